//! Which of two connections with one node counts.

use std::cmp::Ordering;
use std::time::Duration;

use peerage_proto::id::NodeId;

use super::dial::DIAL_TIMEOUT;

/// Two dials are simultaneous if the second ends this soon after the first.
const SIMULTANEOUS: Duration = DIAL_TIMEOUT;

/// What decides between two connections with one node; both ends know the same of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) boot: u64,
    pub(super) dialler: NodeId,
    /// Whether the path is direct, without a member in between.
    pub(super) is_direct: bool,
    pub(super) name: u64,
    /// The connection that the dialler held, and gave up for this one.
    pub(super) supersedes: Option<u64>,
}

/// How a new connection relates to the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precedence {
    /// The peer restarted: the old connection leads nowhere.
    Restart,
    /// The new one counts; the old one ends soon.
    Better,
    /// The old one counts; the new one ends soon.
    Worse,
    /// The new one is of an earlier start of the peer.
    Stale,
}

/// Decides which of two connections counts. Both sides must come to the same answer from what both
/// know. A connection that was made in place of the other counts: its dialler knew the other one,
/// and found it broken or on a worse path. Of two dials that did not know of each other, the direct
/// one counts, or else the one by the lower key. If a dial comes long after the first, its dialler
/// has lost the first connection, so the new one counts, whoever dialled.
pub(super) fn precedence(old: Standing, new: Standing, age: Duration) -> Precedence {
    match new.boot.cmp(&old.boot) {
        Ordering::Greater => return Precedence::Restart,
        Ordering::Less => return Precedence::Stale,
        Ordering::Equal => {}
    }
    if new.supersedes == Some(old.name) {
        return Precedence::Better;
    }
    if old.supersedes == Some(new.name) {
        // The two connections were installed here in the opposite order to the peer's.
        return Precedence::Worse;
    }
    if new.dialler == old.dialler || age >= SIMULTANEOUS {
        return Precedence::Better;
    }
    match (new.is_direct, old.is_direct) {
        (true, false) => Precedence::Better,
        (false, true) => Precedence::Worse,
        _ if new.dialler > old.dialler => Precedence::Worse,
        _ => Precedence::Better,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId([1; 32]);
    const HIGH: NodeId = NodeId([2; 32]);
    const SOON: Duration = Duration::from_millis(1);

    fn by(dialler: NodeId, boot: u64) -> Standing {
        Standing { boot, dialler, is_direct: true, name: 1, supersedes: None }
    }

    #[test]
    fn of_two_simultaneous_dials_both_sides_keep_the_one_by_the_lower_key() {
        assert_eq!(precedence(by(HIGH, 1), by(LOW, 1), SOON), Precedence::Better);
        assert_eq!(precedence(by(LOW, 1), by(HIGH, 1), SOON), Precedence::Worse);
        // The same dialler again: it lost the first.
        assert_eq!(precedence(by(LOW, 1), by(LOW, 1), SOON), Precedence::Better);
        // Long after: the higher key lost the connection that we still hold.
        assert_eq!(precedence(by(LOW, 1), by(HIGH, 1), SIMULTANEOUS), Precedence::Better);
        // A later start replaces, an earlier one does not, whoever dialled.
        assert_eq!(precedence(by(LOW, 1), by(HIGH, 2), SOON), Precedence::Restart);
        assert_eq!(precedence(by(LOW, 2), by(LOW, 1), SIMULTANEOUS), Precedence::Stale);
    }

    #[test]
    fn what_was_made_in_place_of_another_counts_in_whatever_order_they_arrive() {
        let first = by(LOW, 1);
        let moved = Standing { name: 2, supersedes: Some(1), ..by(HIGH, 1) };
        for age in [SOON, SIMULTANEOUS] {
            assert_eq!(precedence(first, moved, age), Precedence::Better);
            assert_eq!(precedence(moved, first, age), Precedence::Worse);
        }
        // A detour counts too: the node that made it found the direct path broken.
        let detour = Standing { is_direct: false, ..moved };
        assert_eq!(precedence(first, detour, SOON), Precedence::Better);
    }

    #[test]
    fn both_ends_agree_on_two_that_were_made_in_place_of_the_same_one_at_once() {
        let of_low = Standing { name: 2, supersedes: Some(1), ..by(LOW, 1) };
        let of_high = Standing { name: 3, supersedes: Some(1), ..by(HIGH, 1) };
        assert_eq!(precedence(of_high, of_low, SOON), Precedence::Better);
        assert_eq!(precedence(of_low, of_high, SOON), Precedence::Worse);
        let detour = Standing { is_direct: false, ..of_low };
        assert_eq!(precedence(of_high, detour, SOON), Precedence::Worse);
        assert_eq!(precedence(detour, of_high, SOON), Precedence::Better);
    }
}
