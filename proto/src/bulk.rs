//! Finds out whether large packets get through to a peer that answers.
//!
//! A path may take small packets and lose all large ones, for example because a tunnel was put on
//! the way, or an MTU was set too low. QUIC cannot make its full packets smaller than 1,200 bytes
//! (RFC 9000, section 14). So on such a path probes and confirmations pass, while data that fills a
//! packet is sent again for ever. Worse, QUIC puts small data into the same packets, so that in the
//! end no data arrives, although both peers are well.
//!
//! [`Watch`] finds that large data stands still. Then all large data is taken back, and each of the
//! [`Trials`] sends something small alone, and then something large. If the small data arrives each
//! time and the large data never does, for long enough, the size is the cause. A path that is slow,
//! that loses a share of its packets, or that was silent as a whole, lets something large through
//! sooner or later. Then large data is sent again at once.

use std::time::Duration;

use crate::backoff::Backoff;

/// A packet of this many bytes of UDP or more counts as large. QUIC's smallest full packet has
/// 1,200 bytes, and an implementation leaves a few of them free.
pub const LARGE_BYTES: u64 = 1184;

/// For how long the peer counts as audible after a packet of it arrived.
const HEARD_FOR: Duration = Duration::from_millis(400);

/// It is told that nothing large gets through when a small message arrived and the large one after
/// it did not, this many times in a row and for this long.
const FAILURES_MIN: u32 = 3;
const TIME_MIN: Duration = Duration::from_secs(5);

/// The first and the longest wait between two trials.
const TRIAL_WAIT: Duration = Duration::from_secs(2);
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(10);
const BETWEEN_TRIALS: Backoff = Backoff::new(TRIAL_WAIT, TRIAL_WAIT_MAX);

/// How many trials follow each other after the first wait, before it grows.
const TRIALS_QUICK: u32 = 4;

/// Large packets are on their way, and none of them is confirmed yet. All times in this module are
/// of one clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Since when they are on their way.
    pub since: Duration,
}

/// Watches one [`Wait`] after the other, and finds out which of them stands still.
#[derive(Debug, Default)]
pub struct Watch {
    wait: Option<Wait>,
    /// When [`Watch::look`] was called last, and how many packets of the peer had arrived by then.
    looked: Duration,
    heard: u64,
    /// When a new packet of the peer was last noticed.
    heard_at: Option<Duration>,
    /// For how much of the time of this wait the peer was audible.
    audible: Duration,
}

impl Watch {
    /// Looks at the present wait, when `heard` packets have arrived from the peer so far. Answers
    /// whether it stands still: no large packet was confirmed for longer than `patience`, while the
    /// peer was audible. Time in which no packet arrives from the peer does not count, since then
    /// the path as a whole is silent.
    pub fn look(
        &mut self,
        now: Duration,
        wait: Option<Wait>,
        heard: u64,
        patience: Duration,
    ) -> bool {
        let Some(current) = wait else {
            *self = Self::default();
            return false;
        };
        if self.wait != wait {
            // The peer confirmed what was sent before, so it was heard until now.
            let audible = now.saturating_sub(current.since).min(HEARD_FOR);
            *self = Self { wait, looked: now, heard, heard_at: Some(now), audible };
            return audible > patience;
        }
        let step = now.saturating_sub(self.looked);
        if heard != self.heard {
            self.heard_at = Some(now);
        }
        (self.looked, self.heard) = (now, heard);
        if self.heard_at.is_some_and(|at| now.saturating_sub(at) <= HEARD_FOR) {
            self.audible += step.min(HEARD_FOR);
        }
        self.audible > patience
    }
}

/// The trials for a peer to which nothing large is sent any more, since large data stood still.
#[derive(Debug)]
pub struct Trials {
    since: Duration,
    count: u32,
    failures: u32,
    told: bool,
}

impl Trials {
    /// No trial was made yet; nothing large has got through since then.
    pub fn new(since: Duration) -> Self {
        Self { since, count: 0, failures: 0, told: false }
    }

    /// A trial failed: the large message did not arrive. `small_arrived` is whether the small one
    /// before it did. Answers `true` once, when it is to be told that nothing large gets through.
    pub fn failed(&mut self, now: Duration, small_arrived: bool) -> bool {
        self.count = self.count.saturating_add(1);
        // If the small message did not arrive either, the size is not the cause.
        self.failures = if small_arrived { self.failures.saturating_add(1) } else { 0 };
        let lasted = now.saturating_sub(self.since);
        let is_news = !self.told && self.failures >= FAILURES_MIN && lasted >= TIME_MIN;
        self.told |= is_news;
        is_news
    }

    /// Whether no trial failed so far.
    pub fn is_first(&self) -> bool {
        self.count == 0
    }

    /// How long to wait before the next trial.
    pub fn wait(&self) -> Duration {
        BETWEEN_TRIALS.wait(self.count.saturating_sub(TRIALS_QUICK))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(600);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// When a watch says that a wait stands still. For each moment, in milliseconds, `waits` tells
    /// since when large packets wait, and `heard` how many packets have arrived.
    fn stands_still(
        until: u64,
        waits: impl Fn(u64) -> Option<u64>,
        heard: impl Fn(u64) -> u64,
    ) -> Option<u64> {
        let mut watch = Watch::default();
        (0..until).step_by(100).find(|at| {
            let wait = waits(*at).map(|since| Wait { since: ms(since) });
            watch.look(ms(*at), wait, heard(*at), PATIENCE)
        })
    }

    #[test]
    fn what_is_never_confirmed_by_a_peer_that_is_heard_stands_still_soon() {
        let at = stands_still(60_000, |_| Some(0), |at| at / 700).expect("it does");
        assert!((600..1_200).contains(&at), "{at}");
    }

    #[test]
    fn a_slow_link_on_which_something_large_arrives_does_not_stand_still() {
        // 10 kB/s: a packet of 1,200 bytes is confirmed every 120 ms, and then the next one waits.
        assert_eq!(stands_still(60_000, |at| Some(at / 120 * 120), |at| at / 120), None);
        // And at 2.4 kB/s.
        assert_eq!(stands_still(60_000, |at| Some(at / 500 * 500), |at| at / 500), None);
    }

    #[test]
    fn a_path_that_is_silent_as_a_whole_does_not_stand_still_for_its_size() {
        assert_eq!(stands_still(60_000, |_| Some(0), |_| 7), None);
        // Half a minute of silence; then the large packets are confirmed soon after the peer is
        // heard.
        let waits = |at| (at < 30_200).then_some(0);
        assert_eq!(stands_still(60_000, waits, |at| at.saturating_sub(30_000) / 100), None);
    }

    #[test]
    fn it_is_told_after_some_seconds_and_trials_and_once() {
        let mut trials = Trials::new(ms(0));
        assert!(!trials.failed(ms(1_000), true));
        assert!(!trials.failed(ms(2_000), true));
        assert!(!trials.failed(ms(3_000), true), "too soon");
        assert!(trials.failed(ms(5_000), true));
        assert!(!trials.failed(ms(9_000), true), "once");
    }

    #[test]
    fn where_nothing_small_arrives_either_nothing_is_told_of_size() {
        let mut trials = Trials::new(ms(0));
        for at in 1..100 {
            assert!(!trials.failed(ms(at * 1_000), false));
            assert!(!trials.failed(ms(at * 1_000 + 500), at % 3 == 0));
        }
    }

    #[test]
    fn trials_become_rarer_within_bounds() {
        let mut trials = Trials::new(ms(0));
        for _ in 0..TRIALS_QUICK {
            assert_eq!(trials.wait(), TRIAL_WAIT);
            trials.failed(ms(0), true);
        }
        for _ in 0..1000 {
            trials.failed(ms(0), true);
        }
        assert_eq!(trials.wait(), TRIAL_WAIT_MAX);
    }

    proptest! {
        /// A link that loses a share of all packets: large ones are sent every 100 ms, and each
        /// that arrives is confirmed. The watch says that the link stands still only after so many
        /// losses in a row.
        #[test]
        fn a_link_that_loses_a_quarter_stands_still_for_no_single_loss(seed in any::<u64>()) {
            let mut state = seed | 1;
            let mut lost = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % 100 < 25
            };
            let (mut watch, mut since, mut heard) = (Watch::default(), 0, 0);
            let mut run = 0;
            for at in (0..300_000).step_by(100) {
                if lost() { run += 1 } else { (since, run) = (at, 0) }
                heard += u64::from(!lost());
                let wait = Some(Wait { since: ms(since) });
                let still = watch.look(ms(at), wait, heard, PATIENCE);
                prop_assert!(!still || run as u128 >= PATIENCE.as_millis() / STEP.as_millis());
            }
        }

        /// Whatever the trials show, nothing is told before [`TIME_MIN`], or with fewer failures in
        /// a row than [`FAILURES_MIN`].
        #[test]
        fn nothing_is_told_too_soon(trials in prop::collection::vec((0u64..4_000, any::<bool>()), 0..50)) {
            let (mut rule, mut now, mut in_a_row) = (Trials::new(ms(0)), 0, 0);
            for (after, small) in trials {
                now += after;
                in_a_row = if small { in_a_row + 1 } else { 0 };
                if rule.failed(ms(now), small) {
                    prop_assert!(in_a_row >= FAILURES_MIN && ms(now) >= TIME_MIN);
                }
            }
        }
    }
}
