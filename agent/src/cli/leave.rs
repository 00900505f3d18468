//! `peerage leave`.

use clap::Args;
use peerage_proto::api::node::{GetStatus, Leave};
use peerage_proto::api::{ApiError, ErrorCode, Named};

use super::table::Table;
use super::text::short;
use super::{Client, Console, Outcome};

/// Leave the Data Center.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Leave also where no other member is known to hold what this node holds
    #[arg(long)]
    force: bool,
    /// Do not ask; what would be lost is refused all the same
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn leave(args: LeaveArgs, client: &Client, console: &mut Console) -> Outcome {
    let status = match console.can_ask() && !args.force {
        true => Some(client.call(&GetStatus {}).await?),
        false => None,
    };
    let datacenter = status.as_ref().and_then(|status| status.datacenter.as_ref());
    if let (Some(status), Some(Named { name, id }), false) = (&status, datacenter, args.yes) {
        let mut about = Table::default();
        about.row(["Data Center", &format!("{name} ({})", short(id))]);
        about.row(["Node", &format!("{} ({})", status.node.name, short(&status.node.id))]);
        if !console.confirm(&about, "Leave?")? {
            return Err(said_no());
        }
    }
    let left = console.attend("leaving", client.call(&Leave { force: args.force })).await;
    let departure = match (left, datacenter) {
        (Err(error), Some(Named { name, .. })) if error.code == ErrorCode::NeedsForce => {
            if !console.confirm_by_name(&error, name)? {
                return Err(said_no());
            }
            console.attend("leaving", client.call(&Leave { force: true })).await?
        }
        (left, _) => left?,
    };
    if console.wants_json() {
        return console.json(&departure);
    }
    console.say(format_args!("left {}; this node is standalone now", departure.datacenter.name));
    if !departure.told.is_empty() {
        console.say(format_args!("told: {}", departure.told.join(", ")));
    }
    if let Some(notice) = &departure.notice {
        console.say(&notice.message);
        if let Some(hint) = &notice.hint {
            console.say(format_args!("  {hint}"));
        }
    }
    console.say(format_args!("what it had is kept in {}", departure.backup));
    Ok(())
}

fn said_no() -> super::Stop {
    ApiError::new(ErrorCode::Refused, "nothing was changed: you said no").into()
}
