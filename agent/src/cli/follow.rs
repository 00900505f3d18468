//! How a command that follows a stream goes on after the agent was away for a while, and after a
//! gap.

use std::time::Duration;

use clap::{Args, ValueEnum};
use peerage_proto::api::events::{Gap, Told};
use peerage_proto::api::{ApiError, ErrorCode, Item, Operation, Streamed};
use tokio::time::Instant;

use super::sse::Subscription;
use super::{Client, Console, Outcome, Stop};

/// How often a lost agent is looked for.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// For how long a lost agent is looked for.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// What is done about a gap.
#[derive(Debug, Args)]
pub(super) struct GapArgs {
    /// Where items were missed, since this reader was too slow or the agent was started anew: end
    /// with 1, or tell it and go on [default: stop; on a terminal: continue]
    #[arg(long, value_name = "stop|continue", hide_possible_values = true)]
    on_gap: Option<OnGap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnGap {
    Stop,
    Continue,
}

impl GapArgs {
    /// Tells of a gap, as an item where items are JSON, and ends the command unless it is to go on.
    fn tell(&self, gap: Gap, console: &mut Console) -> Outcome {
        let by_default = if console.shows_to_a_person() { OnGap::Continue } else { OnGap::Stop };
        let stops = self.on_gap.unwrap_or(by_default) == OnGap::Stop;
        let message = gap.message.clone();
        if console.wants_json() {
            console.json_line(&Told::<()>::Gap(gap))?;
        } else if !stops {
            console.say(&message);
        }
        if !stops {
            return Ok(());
        }
        let hint = "read the state anew, then follow again; --on-gap continue goes on all the same";
        Err(ApiError::new(ErrorCode::Failed, message).hint(hint).into())
    }
}

/// Prints what a stream tells until it ends; an error may be one that passes.
pub(super) async fn print_all<T: Item>(
    items: &mut Subscription<T>,
    print: &impl Fn(&T, &mut Console) -> Result<(), Stop>,
    gaps: &GapArgs,
    console: &mut Console,
) -> Outcome {
    while let Some(told) = items.next().await? {
        match told {
            Told::Item(item) => print(&item, console)?,
            Told::Gap(gap) => gaps.tell(gap, console)?,
        }
    }
    Ok(())
}

/// Follows a stream for as long as there is an agent: where the stream breaks off, a new one goes
/// on behind the place to which the first had come.
pub(super) async fn follow<T: Item, O: Operation<Answer = Streamed<T>>>(
    from: impl Fn(Option<String>) -> O,
    print: impl Fn(&T, &mut Console) -> Result<(), Stop>,
    gaps: &GapArgs,
    client: &Client,
    console: &mut Console,
) -> Outcome {
    let mut place = None;
    let mut items = client.follow(&from(None)).await?;
    loop {
        match print_all(&mut items, &print, gaps, console).await {
            Err(Stop::Failed(error)) if !may_pass(&error) => return Err(error.into()),
            Err(Stop::PipeClosed) => return Err(Stop::PipeClosed),
            Ok(()) | Err(Stop::Failed(_)) => {}
        }
        place = items.place().map(str::to_owned).or(place);
        let resumed = async || client.follow(&from(place.clone())).await;
        items = again(resumed, console).await?;
    }
}

/// Repeats a question that failed because the agent is away, until the agent answers or a minute
/// has passed.
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

/// Whether asking again may succeed after this failure.
pub(super) fn may_pass(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unreachable | ErrorCode::Busy)
}
