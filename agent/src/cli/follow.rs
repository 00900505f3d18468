//! How a command that goes on and on gets over an agent that is away for a while.

use std::time::Duration;

use peerage_proto::api::{ApiError, ErrorCode, StreamOperation};
use tokio::time::Instant;

use super::{Client, Console, Outcome, Stop};

/// How often a lost agent is looked for.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// For how long a lost agent is looked for.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Follows a stream for as long as there is an agent: where it breaks off, it goes on behind the
/// last item that came, and says so where items may be missing in between.
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
            Err(error) if may_pass(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let resumed = async || client.follow(&from(last_id.clone())).await;
        items = match again(resumed, console).await {
            Err(error) if error.code == ErrorCode::Gone => {
                last_id = None;
                client.follow(&from(None)).await?
            }
            resumed => resumed?,
        };
        if last_id.is_none() {
            console.say("the agent was away: something may be missing here");
        }
    }
}

/// Asks again what failed because the agent is away, until it answers or a minute has passed.
pub(super) async fn again<T>(
    ask: impl AsyncFn() -> Result<T, ApiError>,
    console: &mut Console,
) -> Result<T, ApiError> {
    let deadline = Instant::now() + RETRY_FOR;
    let asking = async {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            match ask().await {
                Err(error) if may_pass(&error) && Instant::now() < deadline => {}
                answer => return answer,
            }
        }
    };
    console.attend("waiting for the agent", asking).await
}

/// Whether a failure is one that asking again may get over.
pub(super) fn may_pass(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unreachable | ErrorCode::Busy)
}
