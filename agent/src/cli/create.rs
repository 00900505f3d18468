//! `peerage create`.

use clap::Args;
use peerage_proto::api::node::Create;

use super::{Client, Console, Outcome};

/// Found a Data Center on this node.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What the Data Center shall be called
    name: String,
}

pub(super) async fn create(args: CreateArgs, client: &Client, console: &mut Console) -> Outcome {
    let request = Create { name: args.name };
    let created = console.attend("founding", client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&created);
    }
    let (datacenter, node) = (&created.datacenter.name, &created.node.name);
    console.say(format_args!("founded {datacenter}, with {node} as its first node"));
    console.say("the next node: run `peerage invite` here, and paste what it prints there");
    Ok(())
}
