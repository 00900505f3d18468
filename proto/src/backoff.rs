//! Waits between attempts: each is twice as long as the one before it, up to a longest one.
//!
//! The caller counts its waits, and asks how long the next one is. Where many nodes may begin to
//! wait at the same moment, they draw their waits from a range, so that they do not come back in
//! step (Metcalfe, Boggs: "Ethernet: Distributed Packet Switching for Local Computer Networks",
//! 1976).

use std::time::Duration;

/// How waits grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// From the first wait to the longest one.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// How long to wait when there were so many waits before.
    pub fn wait(&self, before: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(before)).min(self.longest)
    }

    /// The same, drawn from the upper half by a random number from 0 to 1.
    pub fn drawn(&self, before: u32, random: f64) -> Duration {
        self.wait(before).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn a_wait_doubles_to_its_bound_and_stays_there() {
        let waits: Vec<u128> =
            (0..8).map(|before| Backoff::new(FIRST, LONGEST).wait(before).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Backoff::new(FIRST, LONGEST).wait(u32::MAX), LONGEST);
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_stay_within_their_bounds(
            first in 1u64..100_000, longest in 1u64..10_000_000, before in any::<u32>(),
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let backoff = Backoff::new(first, longest);
            let wait = backoff.wait(before);
            prop_assert!(wait >= first.min(longest) && wait <= longest);
            let next = backoff.wait(before.saturating_add(1));
            prop_assert!(wait <= next && (next == wait * 2 || next == longest));
        }

        #[test]
        fn a_drawn_wait_is_in_the_upper_half(before in 0u32..40, random in 0.0f64..=1.0) {
            let backoff = Backoff::new(FIRST, LONGEST);
            let (drawn, wait) = (backoff.drawn(before, random), backoff.wait(before));
            prop_assert!(drawn >= wait / 2 && drawn <= wait);
            prop_assert_eq!(backoff.drawn(before, 0.0), wait / 2);
            prop_assert_eq!(backoff.drawn(before, 1.0), wait);
        }
    }
}
