//! Which of two connections with one node counts.

use std::cmp::Ordering;
use std::time::Duration;

use peerage_proto::id::NodeId;

use super::dial::DIAL_TIMEOUT;

/// Two dials are simultaneous if the second ends this soon after the first.
const SIMULTANEOUS: Duration = DIAL_TIMEOUT;

/// What decides between two connections with one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) boot: u64,
    pub(super) dialler: NodeId,
}

/// How a new connection stands to the one that is there.
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

/// Both sides must come to the same answer from what both know. Of two simultaneous dials the one
/// by the lower key counts. A dial long after the first means that its dialler lost that one, so
/// the new one counts, whoever dialled.
pub(super) fn precedence(old: Standing, new: Standing, age: Duration) -> Precedence {
    match new.boot.cmp(&old.boot) {
        Ordering::Greater => Precedence::Restart,
        Ordering::Less => Precedence::Stale,
        Ordering::Equal if new.dialler > old.dialler && age < SIMULTANEOUS => Precedence::Worse,
        Ordering::Equal => Precedence::Better,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_simultaneous_dials_both_sides_keep_the_one_by_the_lower_key() {
        let (low, high) = (NodeId([1; 32]), NodeId([2; 32]));
        let by = |dialler, boot| Standing { boot, dialler };
        let soon = Duration::from_millis(1);
        assert_eq!(precedence(by(high, 1), by(low, 1), soon), Precedence::Better);
        assert_eq!(precedence(by(low, 1), by(high, 1), soon), Precedence::Worse);
        // The same dialler again: it lost the first.
        assert_eq!(precedence(by(low, 1), by(low, 1), soon), Precedence::Better);
        // Long after: the higher key lost the connection that we still hold.
        assert_eq!(precedence(by(low, 1), by(high, 1), SIMULTANEOUS), Precedence::Better);
        // A later start replaces, an earlier one does not, whoever dialled.
        assert_eq!(precedence(by(low, 1), by(high, 2), soon), Precedence::Restart);
        assert_eq!(precedence(by(low, 2), by(low, 1), SIMULTANEOUS), Precedence::Stale);
    }
}
