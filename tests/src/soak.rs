//! Whether there is time for tests that prove something by how long it holds.

use std::time::Duration;

/// The variable that asks for the long form: any value but an empty one.
const VARIABLE: &str = "PEERAGE_TESTS_SOAK";

/// How long a state is held: `short` in a plain test run, `long` where the soak is asked for.
pub fn lasting(short: Duration, long: Duration) -> Duration {
    let asked = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
    if asked { long } else { short }
}
