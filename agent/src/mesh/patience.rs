//! How long an answer may take. This time grows with the round trip. When doubts turn out to be
//! unfounded, because hosts are overloaded or packets get lost, all further answers get more time,
//! as in Lifeguard for a failure detector (Dadgar, Phillips, Currey: "Lifeguard: Local Health
//! Awareness for More Accurate Failure Detection", 2018).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an answer may take on a short path, while this host and its peers keep up.
const PATIENCE_MIN: Duration = Duration::from_millis(600);

/// The longest time to which unfounded doubts extend it.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// How many round trips an answer may always take.
const ROUND_TRIPS: u32 = 4;

/// How long an answer may take, learnt from doubts that were unfounded.
#[derive(Debug)]
pub(super) struct Patience {
    millis: AtomicU64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { millis: AtomicU64::new(PATIENCE_MIN.as_millis() as u64) }
    }
}

impl Patience {
    /// How long an answer over this round trip may take, at a host that is late by this factor.
    pub(super) fn with(&self, rtt: Duration, lateness: u32) -> Duration {
        let learnt = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        (learnt * lateness).min(PATIENCE_MAX).max(rtt * ROUND_TRIPS)
    }

    /// A doubt was unfounded.
    pub(super) fn widen(&self) {
        self.change(|millis| (millis * 3 / 2).min(PATIENCE_MAX.as_millis() as u64));
    }

    /// An answer came in time.
    pub(super) fn narrow(&self) {
        self.change(|millis| (millis - millis / 64).max(PATIENCE_MIN.as_millis() as u64));
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        // If two tasks change the time at once, one of the changes is lost, which does no harm.
        self.millis.store(change(self.millis.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_the_round_trip_and_with_unfounded_doubts_within_bounds() {
        let patience = Patience::default();
        assert_eq!(patience.with(Duration::from_millis(1), 1), PATIENCE_MIN);
        assert_eq!(patience.with(Duration::from_millis(1), 3), 3 * PATIENCE_MIN);
        assert_eq!(patience.with(Duration::from_secs(1), 1), Duration::from_secs(4));
        for _ in 0..20 {
            patience.widen();
        }
        assert_eq!(patience.with(Duration::ZERO, 1), PATIENCE_MAX);
        assert_eq!(patience.with(Duration::ZERO, 7), PATIENCE_MAX);
        for _ in 0..200 {
            patience.narrow();
        }
        assert_eq!(patience.with(Duration::ZERO, 1), PATIENCE_MIN);
    }
}
