//! `peerage events`.

use clap::Args;
use peerage_proto::api::events::{Event, FollowEvents};

use super::follow::{GapArgs, follow, print_all};
use super::text::{one_line, or_unknown};
use super::{Client, Console, Outcome};

/// Tell what happened.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens next
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    gaps: GapArgs,
}

pub(super) async fn events(args: EventsArgs, client: &Client, console: &mut Console) -> Outcome {
    let print = |event: &Event, console: &mut Console| match console.wants_json() {
        true => console.json_line(event),
        false => console.line(&line(event)),
    };
    if !args.follow {
        let mut items = client.follow(&FollowEvents { follow: false, last_event_id: None }).await?;
        return print_all(&mut items, &print, &args.gaps, console).await;
    }
    let from = |last_event_id| FollowEvents { follow: true, last_event_id };
    follow(from, print, &args.gaps, client, console).await
}

fn line(event: &Event) -> String {
    let node = or_unknown(event.node.as_deref());
    one_line(&format!("{}  {}  {node}  {}", event.at, event.kind, event.message))
}
