//! How far this node's wall clock is from the others', and what follows from it.
//!
//! No node has the right time; a node can only compare its clock with what most nodes agree on.
//! Each node measures how far the clocks of some peers are ahead of its own. The median of these
//! measurements is how far the node is behind. This is always shown, and from [`WARN_AT`] on the
//! node is warned. The node refuses to write only where *most of all nodes that were measured,
//! itself counted,* are [`REFUSE_AT`] or more away. Of two nodes whose clocks differ nobody can say
//! which one is wrong, so both are warned and both go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::{DRIFT_MAX, HowLong};

/// A node whose clock is off by this or more is warned.
pub const WARN_AT: Duration = Duration::from_secs(1);

/// The warning ends when the clock is off by less than this. It is less than [`WARN_AT`], so that a
/// clock on the edge does not cause one warning after another.
pub const WARN_BELOW: Duration = Duration::from_millis(700);

/// A node whose clock is off by this or more refuses to write.
pub const REFUSE_AT: Duration = DRIFT_MAX;

/// The node writes again when its clock is off by less than this.
pub const REFUSE_BELOW: Duration = Duration::from_secs(50);

/// How long a measurement counts; each is renewed several times in that time.
pub const MEASURED_FOR: Duration = Duration::from_secs(5 * 60);

/// How this node's clock compares with the clocks of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How far it is ahead of the peers' median; negative where it is behind.
    pub ahead_ms: i64,
    /// How many peers were measured.
    pub peers: usize,
}

/// A clock that is so far off that its node writes nothing. Prints as a sentence about this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOff {
    /// How far the clock is off, and with how many peers it was compared.
    pub estimate: Estimate,
}

impl fmt::Display for ClockOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { ahead_ms, peers } = self.estimate;
        let nodes = if peers == 1 { "node" } else { "nodes" };
        write!(f, "this node's clock is {} the median of {peers} other {nodes}", Off(ahead_ms))
    }
}

/// How far a clock is off, in words: `1 min 2 s ahead of`, `1.5 s behind`, `56 years behind`.
pub struct Off(pub i64);

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{} {way}", HowLong::ms(self.0.unsigned_abs()))
    }
}

/// What the clock means for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// The clock is near enough, or no peer was measured.
    #[default]
    Good,
    /// [`WARN_AT`] or more off.
    Warned,
    /// Most nodes are [`REFUSE_AT`] or more away: this node writes nothing.
    Refusing,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    /// How far the peer's clock is ahead of ours.
    ahead_ms: i64,
    /// When it was measured, on the clock of [`crate::time::Now::mono`].
    at: Duration,
}

/// The measurements, and the level that they lead to.
#[derive(Debug, Clone, Default)]
pub struct Skew {
    peers: BTreeMap<NodeId, Measured>,
    /// When a peer was measured last.
    latest: Duration,
    level: Level,
}

impl Skew {
    /// Records a measurement that was made now: the peer's clock is this far ahead of this node's.
    pub fn measured(&mut self, peer: NodeId, ahead_ms: i64, mono: Duration) {
        self.peers.insert(peer, Measured { ahead_ms, at: mono });
        self.latest = mono;
    }

    /// Forgets all measurements, since this node's own clock was set and they compare with the old
    /// one.
    pub fn was_set(&mut self) {
        self.peers.clear();
    }

    /// Forgets measurements that are too old, and those of nodes that are no members any more; then
    /// sets the level. Without any measurement the level stays as it was: that no peer can be
    /// compared with does not make the clock right. When no peer was measured for [`MEASURED_FOR`]
    /// the level becomes good, so that a node that is alone can write.
    pub fn judge(&mut self, members: &BTreeSet<NodeId>, mono: Duration) -> Level {
        let is_old = |at: Duration| mono.saturating_sub(at) >= MEASURED_FOR;
        self.peers.retain(|id, m| members.contains(id) && !is_old(m.at));
        if self.peers.is_empty() {
            if is_old(self.latest) {
                self.level = Level::Good;
            }
            return self.level;
        }
        let (warn, refuse) = (off(self.behind_ms(false)), off(self.behind_ms(true)));
        let refuse_at = if self.level == Level::Refusing { REFUSE_BELOW } else { REFUSE_AT };
        let warn_at = if self.level == Level::Good { WARN_AT } else { WARN_BELOW };
        self.level = if refuse >= refuse_at {
            Level::Refusing
        } else if warn >= warn_at {
            Level::Warned
        } else {
            Level::Good
        };
        self.level
    }

    /// How this node's clock stands; `None` where no peer was measured.
    pub fn estimate(&self) -> Option<Estimate> {
        let peers = self.peers.len();
        (peers > 0).then(|| Estimate { ahead_ms: self.behind_ms(false).saturating_neg(), peers })
    }

    /// The median of how far the peers' clocks are ahead; with `with_itself` this node counts, too.
    /// If two values are in the middle, the one that is nearer to this node is taken: a tie is no
    /// majority against it.
    fn behind_ms(&self, with_itself: bool) -> i64 {
        let mut ahead: Vec<i64> = self.peers.values().map(|m| m.ahead_ms).collect();
        ahead.extend(with_itself.then_some(0));
        ahead.sort_unstable();
        let Some(last) = ahead.len().checked_sub(1) else { return 0 };
        let (low, high) = (ahead[last / 2], ahead[last.div_ceil(2)]);
        if low.unsigned_abs() <= high.unsigned_abs() { low } else { high }
    }
}

fn off(ahead_ms: i64) -> Duration {
    Duration::from_millis(ahead_ms.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId([n as u8; 32])
    }

    /// The level of a node whose peers' clocks are this far ahead.
    fn level(ahead_ms: &[i64]) -> Level {
        let mut skew = Skew::default();
        judged(&mut skew, ahead_ms)
    }

    fn judged(skew: &mut Skew, ahead_ms: &[i64]) -> Level {
        let members = (0..ahead_ms.len()).map(node).collect();
        for (n, ahead_ms) in ahead_ms.iter().enumerate() {
            skew.measured(node(n), *ahead_ms, Duration::ZERO);
        }
        skew.judge(&members, Duration::ZERO)
    }

    #[test]
    fn of_three_the_one_that_is_wrong_refuses_and_the_two_that_are_right_are_not_even_warned() {
        assert_eq!(level(&[-120_000, -120_010]), Level::Refusing);
        assert_eq!(level(&[3, 120_000]), Level::Good);
    }

    #[test]
    fn of_two_nobody_knows_who_is_wrong_so_both_are_warned_and_neither_refuses() {
        assert_eq!(level(&[120_000]), Level::Warned);
        assert_eq!(level(&[-120_000]), Level::Warned);
    }

    #[test]
    fn a_half_against_a_half_is_no_majority() {
        assert_eq!(level(&[0, 120_000, 120_000]), Level::Warned);
        assert_eq!(level(&[0, 0, 120_000, 120_000, 120_000]), Level::Warned);
        assert_eq!(level(&[0, 120_000, 120_000, 120_000]), Level::Refusing);
    }

    #[test]
    fn a_clock_on_the_edge_is_told_of_once() {
        let mut skew = Skew::default();
        let levels = [990, 1000, 990, 800, 699, 900].map(|ms| judged(&mut skew, &[ms, ms]));
        use Level::{Good, Warned};
        assert_eq!(levels, [Good, Warned, Warned, Warned, Good, Good]);
        let levels = [60_000, 55_000, 49_000].map(|ms| judged(&mut skew, &[ms, ms]));
        assert_eq!(levels, [Level::Refusing, Level::Refusing, Warned]);
    }

    #[test]
    fn what_is_old_or_of_a_stranger_does_not_count() {
        let mut skew = Skew::default();
        skew.measured(node(1), 5_000, Duration::ZERO);
        skew.measured(node(2), 5_000, Duration::ZERO);
        assert_eq!(skew.judge(&[node(1)].into(), Duration::from_secs(1)), Level::Warned);
        assert_eq!(skew.estimate(), Some(Estimate { ahead_ms: -5_000, peers: 1 }));
        assert_eq!(skew.judge(&[node(1)].into(), MEASURED_FOR), Level::Good);
        assert_eq!(skew.estimate(), None);
    }

    /// Between the setting of the clock and the next measurements nothing is known about it. A node
    /// that refused to write goes on refusing until they show that the clock is right.
    #[test]
    fn a_clock_that_was_set_is_judged_anew_and_not_before() {
        let mut skew = Skew::default();
        assert_eq!(judged(&mut skew, &[-90_000, -90_000]), Level::Refusing);
        skew.was_set();
        let members = [node(0), node(1)].into();
        assert_eq!(skew.judge(&members, Duration::ZERO), Level::Refusing);
        assert_eq!(skew.clone().judge(&members, MEASURED_FOR), Level::Good, "alone for long");
        assert_eq!(judged(&mut skew, &[10, -10]), Level::Good);
    }

    #[test]
    fn the_figure_is_told_in_words() {
        let off = |ahead_ms, peers| ClockOff { estimate: Estimate { ahead_ms, peers } }.to_string();
        assert_eq!(
            off(120_040, 2),
            "this node's clock is 2 min ahead of the median of 2 other nodes"
        );
        assert_eq!(
            off(-61_500, 3),
            "this node's clock is 1 min 1 s behind the median of 3 other nodes"
        );
        assert_eq!(
            off(-1_795_721_663_500, 2),
            "this node's clock is 56 years behind the median of 2 other nodes"
        );
    }

    proptest! {
        /// As long as most clocks are right, a node with a right clock never refuses to write, and
        /// a node with a wrong clock always does, whatever its clock shows.
        #[test]
        fn the_right_write_and_the_wrong_refuse_as_long_as_most_are_right(
            right in 2usize..8,
            wrong in prop::collection::vec(prop_oneof![-1i64 << 50..-61_000, 61_000i64..1 << 50], 1..7),
        ) {
            prop_assume!(wrong.len() < right);
            let mut seen_by_right = vec![0; right - 1];
            seen_by_right.extend(&wrong);
            prop_assert_ne!(level(&seen_by_right), Level::Refusing);
            for (n, own) in wrong.iter().enumerate() {
                let mut seen = vec![-own; right];
                seen.extend(wrong.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, w)| w - own));
                prop_assert_eq!(level(&seen), Level::Refusing, "{}", own);
            }
        }

        #[test]
        fn any_figures_do_no_harm(ahead_ms in prop::collection::vec(any::<i64>(), 0..9)) {
            let mut skew = Skew::default();
            judged(&mut skew, &ahead_ms);
            prop_assert_eq!(skew.estimate().map_or(0, |e| e.peers), ahead_ms.len());
        }
    }
}
