//! Waiting for a state, never for a time: a test polls, and fails with what it saw last.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How often a state is looked at.
pub const POLL: Duration = Duration::from_millis(10);

/// The bound for what takes some round trips on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// The bound for what needs timeouts of the mesh to run out, such as finding a node again.
pub const LATER: Duration = Duration::from_secs(45);

/// Looks until the state is there, and returns it with no further wait.
///
/// # Panics
/// When `bound` has passed, with the last answer: what was seen instead.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(state) => return state,
            Err(seen) if started.elapsed() >= bound => {
                panic!("not within {bound:?}: {what}; last seen: {seen:#?}")
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Looks until `right` holds for what is seen. A failure shows what was seen last.
///
/// # Panics
/// As [`eventually`].
#[track_caller]
pub fn until<T: Debug>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> T,
    right: impl Fn(&T) -> bool,
) -> T {
    eventually(what, bound, || {
        let seen = look();
        if right(&seen) { Ok(seen) } else { Err(seen) }
    })
}
