//! How long tests run that prove something by how long it holds: a short form, and a long one on
//! request.

use std::time::Duration;

/// The variable that asks for the long form, and says for how many seconds at most.
const VARIABLE: &str = "PEERAGE_TESTS_SOAK";

/// How long a state is held: `short` in a plain test run, up to `long` where the soak is asked for.
///
/// # Panics
/// When the variable is no number of seconds.
pub fn lasting(short: Duration, long: Duration) -> Duration {
    match std::env::var(VARIABLE) {
        Ok(seconds) if !seconds.is_empty() => {
            let seconds = seconds.parse().expect("PEERAGE_TESTS_SOAK is a number of seconds");
            long.min(Duration::from_secs(seconds)).max(short)
        }
        _ => short,
    }
}
