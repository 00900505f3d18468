//! `peerage reset --identity`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use peerage_proto::api::node::{GetStatus, IdentityReset, ResetIdentity};
use peerage_proto::api::{ApiError, ErrorCode, Exit};

use super::table::Table;
use super::text::short;
use super::{Client, Console, Outcome};

/// How long the agent may take to start anew under its new identity, and how often it is looked at.
const START_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Give this host an identity of its own, after its disk was copied or it was removed.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Take a new key: to the others this host is a new one, which has to join
    #[arg(long, required = true)]
    identity: bool,
    /// The data folder of an agent that does not run; root acts there as its owner
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn reset(args: ResetArgs, client: &Client, console: &mut Console) -> Outcome {
    let status = client.call(&GetStatus {}).await.map_err(|error| match (error.code, &error.hint) {
        (ErrorCode::Unreachable, Some(first)) => {
            let hint = format!(
                "{first}; of an agent that is stopped `peerage reset --identity --data-dir FOLDER` \
                 resets the folder"
            );
            error.hint(hint)
        }
        _ => error,
    })?;
    let mut about = Table::default();
    about.row(["Node", &format!("{} ({})", status.node.name, short(&status.node.id))]);
    about.row(["State", &status.node.state]);
    confirm(&args, &about, console)?;
    let request = ResetIdentity { identity: args.identity };
    let reset = console.attend("taking a new identity", client.call(&request)).await?;
    let started = console.attend("starting anew", started(client, &reset.node.id)).await;
    show(&reset, console)?;
    if !started {
        let message = "the agent has its new identity, and does not answer yet";
        return Err(ApiError::new(ErrorCode::Failed, message).hint("look at its journal").into());
    }
    Ok(())
}

/// Resets the folder of an agent that does not run, by `act`.
pub fn reset_stopped(
    args: &ResetArgs,
    folder: &Path,
    act: impl FnOnce(&Path) -> Result<IdentityReset, ApiError>,
    console: &mut Console,
) -> Exit {
    let mut outcome = || {
        let mut about = Table::default();
        about.row(["Data folder", &folder.display().to_string()]);
        confirm(args, &about, console)?;
        Ok(())
    };
    let outcome = outcome().and_then(|()| Ok(act(folder)?));
    let outcome = outcome.and_then(|reset| show(&reset, console));
    console.end(outcome)
}

fn confirm(args: &ResetArgs, about: &Table, console: &mut Console) -> Outcome {
    if args.yes || !console.can_ask() || console.confirm(about, "Take a new identity?")? {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Refused, "nothing was changed: you said no").into())
}

fn show(reset: &IdentityReset, console: &mut Console) -> Outcome {
    if console.wants_json() {
        return console.json(reset);
    }
    let (was, is) = (reset.was.as_deref().map_or("nobody any more", short), short(&reset.node.id));
    console.say(format_args!("this host was {was} and is {is} now; it can join as a new node"));
    if let Some(backup) = &reset.backup {
        console.say(format_args!("what it had is kept in {backup}"));
    }
    if let Some(old_key) = &reset.old_key {
        console.say(format_args!(
            "its old key is kept in {old_key}; delete it where another host has the same"
        ));
    }
    Ok(())
}

/// Whether the agent came back under its new identity in time.
async fn started(client: &Client, id: &str) -> bool {
    let coming = async {
        loop {
            if client.call(&GetStatus {}).await.is_ok_and(|status| status.node.id == id) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(START_MAX, coming).await.is_ok()
}
