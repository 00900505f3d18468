//! Watches the agent's file descriptors: whether the process has any left.

use std::fs;
use std::time::Duration;

use peerage_proto::notice::{NoticeKind, State};
use rustix::process::{Resource, getrlimit};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Notices;

/// How often the descriptors are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The notice begins where no more than this part of the limit is left, or no more than the
/// minimum; it ends where more than twice as many are left.
const LEFT_PART: u64 = 20;
const LEFT_MIN: u64 = 4;

/// Where the kernel lists the descriptors of this process.
const OPEN: &str = "/proc/self/fd";

/// Keeps the notice about descriptors. `refused` tells whether the socket got none for a
/// connection; the watch ends when its sender is gone.
pub async fn watch_descriptors(notices: Notices, mut refused: watch::Receiver<bool>) {
    let mut stands = false;
    loop {
        let (used, limit) = (used(), getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
        let few = (limit / LEFT_PART).max(LEFT_MIN) * if stands { 2 } else { 1 };
        let is_full = used.is_none_or(|used| limit.saturating_sub(used) <= few);
        stands = *refused.borrow_and_update() || is_full;
        notices.set(NoticeKind::Descriptors, stands.then(|| state(used, limit)));
        tokio::select! {
            changed = refused.changed() => if changed.is_err() { return },
            () = sleep(COUNT_EVERY) => {}
        }
    }
}

/// How many descriptors are in use; `None` where not even one was left to count them with.
fn used() -> Option<u64> {
    // Since Linux 6.2 the size of the folder is the number of descriptors.
    match fs::metadata(OPEN).map_or(0, |folder| folder.len()) {
        0 => fs::read_dir(OPEN).ok().map(|entries| entries.count() as u64),
        count => Some(count),
    }
}

fn state(used: Option<u64>, limit: u64) -> State {
    let used = used.map_or_else(|| "all".to_owned(), |used| used.min(limit).to_string());
    State::new(
        format!(
            "the agent has {used} of its {limit} file descriptors in use: further connections to its \
             socket wait, and files cannot be opened"
        ),
        "end programs that hold many connections to the agent's socket; or allow more: `systemctl \
         edit peerage`, LimitNOFILE=",
    )
}
