//! Allowances that time refills: so many in a second, and so many at once after a calm. Each is a token
//! bucket (RFC 2697, section 3, has one of the same kind).

use std::time::Duration;

/// How many takings are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// How many in one second.
    pub per_second: f64,
    /// How many at once, after a calm.
    pub burst: f64,
}

/// What is left of an [`Allowance`]: from nothing to its burst. The allowance is handed in each time,
/// since it may change with what the host can do. Times are of one clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    left: f64,
    at: Duration,
}

impl Bucket {
    /// A bucket of which nothing was taken yet.
    pub fn full(of: Allowance, now: Duration) -> Self {
        Self { left: of.burst, at: now }
    }

    /// Adds what the time since the last refill brings.
    pub fn refill(&mut self, of: Allowance, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * of.per_second).min(of.burst);
        self.at = now;
    }

    /// Whether one can be taken, as of the last refill.
    pub fn has_one(&self) -> bool {
        self.left >= 1.0
    }

    /// Takes one; `false` where there is none, and then nothing is taken.
    pub fn take(&mut self) -> bool {
        let has_one = self.has_one();
        self.left -= f64::from(u8::from(has_one));
        has_one
    }

    /// Takes one, or what is left where that is less.
    pub fn take_at_most_one(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }

    /// What is left, as a share of the burst: from 0 to 1.
    pub fn share(&self, of: Allowance) -> f64 {
        self.left / of.burst
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Allowance = Allowance { per_second: 10.0, burst: 5.0 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_is_there_at_once_and_then_what_time_brings() {
        let mut bucket = Bucket::full(TEN, at(0));
        let mut taken = |ms| {
            bucket.refill(TEN, at(ms));
            (0..100).filter(|_| bucket.take()).count()
        };
        assert_eq!([taken(0), taken(50), taken(100), taken(300), taken(60_000)], [5, 0, 1, 2, 5]);
    }

    #[test]
    fn where_less_than_one_is_left_it_is_taken_only_as_what_is_left() {
        let mut bucket = Bucket::full(Allowance { burst: 1.5, ..TEN }, at(0));
        assert!(bucket.take() && !bucket.take());
        assert_eq!(bucket.left, 0.5);
        bucket.take_at_most_one();
        assert_eq!(bucket.left, 0.0);
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_the_burst_and_what_time_brings(
            burst in 1.0f64..100.0,
            per_second in 0.1f64..1000.0,
            steps in prop::collection::vec((0u64..2_000, 0u32..50), 1..100),
        ) {
            let of = Allowance { per_second, burst };
            let (mut bucket, mut now, mut taken) = (Bucket::full(of, at(0)), 0, 0.0);
            for (passed, wanted) in steps {
                now += passed;
                bucket.refill(of, at(now));
                taken += (0..wanted).filter(|_| bucket.take()).count() as f64;
                let share = bucket.share(of);
                prop_assert!((0.0..=1.0).contains(&share), "{share}");
                prop_assert!(taken <= burst + per_second * at(now).as_secs_f64() + 1e-6);
            }
        }
    }
}
