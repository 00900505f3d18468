//! `peerage events`, and how a stream is followed across a restart of the agent.

use std::time::Duration;

use clap::Args;
use peerage_proto::api::events::{Event, FollowEvents};
use peerage_proto::api::{ApiError, ErrorCode, StreamOperation};
use tokio::time::Instant;

use super::text::{or_unknown, printable};
use super::{Client, Console, Outcome, Stop};

/// How often a lost agent is looked for.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// For how long a lost agent is looked for.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Tell what happened.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens next
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn events(args: EventsArgs, client: &Client, console: &mut Console) -> Outcome {
    let print = |event: &Event, console: &mut Console| match console.wants_json() {
        true => console.json_line(event),
        false => console.line(&line(event)),
    };
    if !args.follow {
        let mut items = client.follow(&FollowEvents { follow: false, last_event_id: None }).await?;
        while let Some(event) = items.next().await? {
            print(&event, console)?;
        }
        return Ok(());
    }
    let from = |last_event_id| FollowEvents { follow: true, last_event_id };
    follow(from, print, client, console).await
}

fn line(event: &Event) -> String {
    let node = or_unknown(event.node.as_deref());
    printable(&format!("{}  {}  {node}  {}", event.at, event.kind, event.message))
}

/// Follows a stream for as long as there is an agent: where it breaks off, it goes on behind the
/// last item that came, and says so where items are missing in between.
pub(super) async fn follow<O: StreamOperation>(
    from: impl Fn(Option<String>) -> O,
    print: impl Fn(&O::Output, &mut Console) -> Result<(), Stop>,
    client: &Client,
    console: &mut Console,
) -> Outcome {
    let mut last_id = None;
    let mut items = client.follow(&from(None)).await?;
    loop {
        match items.next().await {
            Ok(Some(item)) => {
                print(&item, console)?;
                last_id = Some(O::id(&item).to_owned());
                continue;
            }
            Ok(None) => {}
            Err(error) if error.code == ErrorCode::Unreachable => {}
            Err(error) => return Err(error.into()),
        }
        items = console
            .attend("waiting for the agent", async {
                let deadline = Instant::now() + RETRY_FOR;
                loop {
                    tokio::time::sleep(RETRY_EVERY).await;
                    match client.follow(&from(last_id.clone())).await {
                        Err(error) if may_pass(&error) && Instant::now() < deadline => {}
                        Err(error) if error.code == ErrorCode::Gone => last_id = None,
                        answer => return answer,
                    }
                }
            })
            .await?;
        if last_id.is_none() {
            console.say("the agent was away: something may be missing here");
        }
    }
}

fn may_pass(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unreachable | ErrorCode::Busy)
}
