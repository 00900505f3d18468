//! `peerage join`.

use std::path::PathBuf;

use clap::Args;
use peerage_proto::api::invites::{Inspect, Inspection};
use peerage_proto::api::node::Join;
use peerage_proto::api::{ApiError, ErrorCode, text};

use super::inspect::table;
use super::text::count;
use super::token::token_of;
use super::{Client, Console, Outcome, Stop};

/// Join the Data Center that Join Information speaks of.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The Join Information that `peerage invite` printed; - reads it from stdin, and without it a
    /// terminal is asked: all users of a host see the arguments of a command
    #[arg(conflicts_with = "file")]
    token: Option<String>,
    /// Read the Join Information from this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What this node shall be called [default: the name it has]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take the name over from a member that is down, which is removed by that: for a host that was
    /// installed anew
    #[arg(long)]
    replace: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn join(args: JoinArgs, client: &Client, console: &mut Console) -> Outcome {
    let token = token_of(args.token.as_deref(), args.file.as_deref(), console)?;
    let inspection = client.call(&Inspect { token: token.clone() }).await?;
    // If the Join Information cannot be used, the agent refuses it in full words, so there is no
    // need to ask before.
    if inspection.valid
        && !args.yes
        && console.can_ask()
        && !console.confirm(&table(&inspection), "Join?")?
    {
        return Err(ApiError::new(ErrorCode::Refused, "not joined: you said no").into());
    }
    // Meeting members takes no secret.
    let password = match inspection.secret || inspection.already {
        true => None,
        false => Some(password(console)?),
    };
    let doing = format!("contacting {}", seeds(&inspection));
    let request = Join { token, name: args.name, password, replace: args.replace };
    let joined = console.attend(&doing, client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&joined);
    }
    let (datacenter, node, seed) = (&joined.datacenter.name, &joined.node.name, &joined.seed);
    if joined.already {
        console.say(format_args!("{node} is a member of {datacenter} already, and met {seed}"));
        return Ok(());
    }
    let members = count(joined.members.into(), "node");
    console.say(format_args!("{node} joined {datacenter} by {seed}; it has {members} now"));
    Ok(())
}

/// The secret that the token does not hold.
fn password(console: &mut Console) -> Result<String, Stop> {
    let mut password = console.secret("Password that `peerage invite` printed")?;
    while !console.can_ask() && password.as_deref().is_some_and(text::says_nothing) {
        password = console.read_line()?;
    }
    let password = password.map(|password| password.trim().to_owned());
    password.filter(|password| !password.is_empty()).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "this Join Information is without its secret")
            .hint("give the password that `peerage invite` printed, on a line of stdin")
            .into()
    })
}

fn seeds(inspection: &Inspection) -> String {
    let addresses = inspection.seeds.iter().filter_map(|seed| seed.addresses.first());
    let addresses: Vec<&str> = addresses.map(String::as_str).collect();
    if addresses.is_empty() { "the seeds".to_owned() } else { addresses.join(", ") }
}
