//! Time as it is handed to the rules, and the hybrid logical clock that stamps changes.
//!
//! The clock is that of Kulkarni et al., "Logical Physical Clocks" (2014), with a bound on how far
//! a stamp from elsewhere may drag it: a host whose clock is wrong by an hour must not move the
//! others by an hour.

mod how_long;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use how_long::HowLong;

/// How far ahead of the local wall clock a stamp from elsewhere may move the local clock.
pub const DRIFT_MAX: Duration = Duration::from_secs(60);

/// The present, as the shell measured it just before it called a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since an arbitrary start, never going back: for deadlines.
    pub mono: Duration,
    /// Milliseconds since 1970-01-01 UTC by the host's clock: for stamps and for people.
    pub wall_ms: u64,
}

/// A stamp of the hybrid logical clock: 48 bits of wall milliseconds, 16 bits of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The earliest stamp, before anything that was written.
    pub const ZERO: Self = Self(0);

    /// The first stamp of a millisecond. Milliseconds beyond 48 bits (the year 10889) count as the
    /// last.
    pub const fn at(wall_ms: u64) -> Self {
        const MS_MAX: u64 = (1 << 48) - 1;
        Self(if wall_ms > MS_MAX { MS_MAX } else { wall_ms } << 16)
    }

    /// The wall milliseconds of the stamp.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next stamp; a full counter goes on in the next millisecond.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.0 & 0xffff)
    }
}

/// A node's hybrid logical clock. Each stamp that it gives is later than all stamps that it gave
/// before, and than all that it observed within [`DRIFT_MAX`], whatever the wall clock does.
#[derive(Debug, Clone, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// The latest stamp given or observed.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// Stamps an event of this node.
    pub fn tick(&mut self, now: Now) -> Hlc {
        self.last = Hlc::at(now.wall_ms).max(self.last.next());
        self.last
    }

    /// Takes note of a stamp from another node. A stamp more than [`DRIFT_MAX`] ahead of the wall
    /// clock is ignored, and the answer is `false`: its change may be merged, but the clock stays.
    pub fn observe(&mut self, stamp: Hlc, now: Now) -> bool {
        let bound = now.wall_ms.saturating_add(DRIFT_MAX.as_millis() as u64);
        if stamp.wall_ms() > bound {
            return false;
        }
        self.last = self.last.max(stamp);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(wall_ms: u64) -> Now {
        Now { mono: Duration::ZERO, wall_ms }
    }

    proptest! {
        #[test]
        fn stamps_grow_under_any_clock(walls in prop::collection::vec(0u64..1 << 50, 1..200)) {
            let mut clock = HybridClock::default();
            let mut before = Hlc::ZERO;
            for wall in walls {
                let stamp = clock.tick(at(wall));
                prop_assert!(stamp > before);
                before = stamp;
            }
        }

        #[test]
        fn a_stamp_is_later_than_what_was_observed(wall in 0u64..1 << 47, ahead_ms in 0u64..60_000) {
            let mut clock = HybridClock::default();
            let seen = Hlc::at(wall + ahead_ms).next();
            prop_assert!(clock.observe(seen, at(wall)));
            prop_assert!(clock.tick(at(wall)) > seen);
        }

        #[test]
        fn a_clock_far_ahead_drags_nobody(wall in 0u64..1 << 47, ahead_ms in 60_001u64..1 << 40) {
            let mut clock = HybridClock::default();
            prop_assert!(!clock.observe(Hlc::at(wall + ahead_ms), at(wall)));
            prop_assert_eq!(clock.tick(at(wall)).wall_ms(), wall);
        }
    }
}
