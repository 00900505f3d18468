//! `watch`.

use clap::Args;
use peerage_proto::api::events::{WatchSettings, WatchedChange};

use super::super::follow::{GapArgs, follow};
use super::super::text::{change, one_line};
use super::{Client, Console, Outcome};

/// Print each change as it comes.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only documents whose path begins so, letter by letter: g for g1 and gateway/lan, storage/
    /// for all below storage
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    gaps: GapArgs,
}

pub(super) async fn watch(args: WatchArgs, client: &Client, console: &mut Console) -> Outcome {
    let from = |last_event_id| WatchSettings { prefix: args.prefix.clone(), last_event_id };
    let print = |item: &WatchedChange, console: &mut Console| match console.wants_json() {
        true => console.json_line(item),
        false => console.line(&line(item)),
    };
    follow(from, print, &args.gaps, client, console).await
}

fn line(item: &WatchedChange) -> String {
    let done = change(&item.set, &item.unset, item.removed);
    one_line(&format!("{}  {done}  (by {} on {})", item.path, item.actor, item.writer))
}
