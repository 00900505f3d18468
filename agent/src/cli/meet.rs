//! `peerage meet`.

use std::path::PathBuf;

use clap::Args;
use peerage_proto::api::node::Meet;

use super::token::token_of;
use super::{Client, Console, Outcome};

/// Meet members that this node does not find any more, by Join Information of one of them.
#[derive(Debug, Args)]
pub struct MeetArgs {
    /// The Join Information that `peerage invite` printed on one of them; - reads it from stdin, and
    /// without it a terminal is asked; it need not admit anybody any more
    #[arg(conflicts_with = "file")]
    token: Option<String>,
    /// Read the Join Information from this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn meet(args: MeetArgs, client: &Client, console: &mut Console) -> Outcome {
    let token = token_of(args.token.as_deref(), args.file.as_deref(), console)?;
    let met = console.attend("looking for the others", client.call(&Meet { token })).await?;
    if console.wants_json() {
        return console.json(&met);
    }
    let names: Vec<_> = met.met.iter().map(|member| member.name.as_str()).collect();
    console.say(format_args!("met {} of {}", names.join(", "), met.datacenter.name));
    for missed in &met.missed {
        console.say(format_args!("not met: {}", missed.message));
    }
    Ok(())
}
