//! The objections that this node heard of, each from one node.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::id::NodeId;
use tokio::time::Instant;

/// From how many nodes objections are kept; further nodes would only say the same.
const OBJECTIONS_MAX: usize = 16;

/// For how long an objection must stand to count: by then the news of an admission has spread.
const COUNTS_AFTER: Duration = Duration::from_secs(10);

/// Why a node does not take this one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grounds {
    /// This node's admission goes back to a node that had left or was put out before the objector
    /// heard of the admission.
    AdmittedBy(NodeId),
    /// Each of the two sides put out the other before it heard of its own removal: the removal of
    /// this node was asked for on the node `by`.
    PutOutBoth {
        /// The node on which this one's removal was asked for.
        by: NodeId,
    },
}

/// The objections to this node's membership, by the node that objects.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<BTreeMap<NodeId, Objection>>);

#[derive(Debug, Clone, Copy)]
struct Objection {
    grounds: Grounds,
    since: Instant,
    last: Instant,
    is_told: bool,
}

impl Objection {
    fn counts(&self) -> bool {
        self.last - self.since >= COUNTS_AFTER
    }
}

impl Noted {
    /// Notes an objection. Returns whether it is the first of that node, and was kept.
    pub(super) fn note(&self, by: NodeId, grounds: Grounds) -> bool {
        let now = Instant::now();
        let mut objections = self.lock();
        if let Some(objection) = objections.get_mut(&by) {
            (objection.grounds, objection.last) = (grounds, now);
            return false;
        }
        let has_room = objections.len() < OBJECTIONS_MAX;
        if has_room {
            let objection = Objection { grounds, since: now, last: now, is_told: false };
            objections.insert(by, objection);
        }
        has_room
    }

    /// The nodes whose objections are told, by their grounds.
    pub(super) fn standing(&self) -> BTreeMap<Grounds, Vec<NodeId>> {
        let mut standing: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (by, objection) in self.lock().iter().filter(|(_, objection)| objection.is_told) {
            standing.entry(objection.grounds).or_default().push(*by);
        }
        standing
    }

    /// The nodes whose objections are told, and that were put out themselves.
    pub(super) fn put_out(&self) -> Vec<NodeId> {
        let objections = self.lock();
        let of_both = |o: &&Objection| o.is_told && matches!(o.grounds, Grounds::PutOutBoth { .. });
        objections.iter().filter(|(_, o)| of_both(o)).map(|(by, _)| *by).collect()
    }

    /// Whether a node is known to object.
    pub(super) fn is_known(&self, by: &NodeId) -> bool {
        self.lock().contains_key(by)
    }

    /// The grounds of a node that objects.
    pub(super) fn grounds(&self, by: &NodeId) -> Option<Grounds> {
        self.lock().get(by).map(|objection| objection.grounds)
    }

    /// The grounds of a node whose objection is told.
    pub(super) fn told(&self, by: &NodeId) -> Option<Grounds> {
        let objection = self.lock().get(by).copied();
        objection.filter(|objection| objection.is_told).map(|objection| objection.grounds)
    }

    /// Forgets what a node said.
    pub(super) fn forget(&self, by: &NodeId) {
        self.lock().remove(by);
    }

    /// The grounds of an objection that counts and is not told yet. It counts as told from now on.
    pub(super) fn news(&self, by: &NodeId) -> Option<Grounds> {
        let mut objections = self.lock();
        let objection = objections.get_mut(by).filter(|o| o.counts() && !o.is_told)?;
        objection.is_told = true;
        Some(objection.grounds)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Objection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const ADMITTED: Grounds = Grounds::AdmittedBy(NodeId([9; 32]));

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    /// The news of an admission and the news that its writer was put out spread on different ways.
    #[tokio::test(start_paused = true)]
    async fn what_is_said_once_does_not_count_and_what_stands_is_told_once() {
        let noted = Noted::default();
        assert!(noted.note(node(1), ADMITTED));
        sleep(COUNTS_AFTER).await;
        assert_eq!(noted.news(&node(1)), None);
        assert!(!noted.note(node(1), ADMITTED), "it is known already");
        assert!(noted.standing().is_empty());
        assert_eq!(noted.news(&node(1)), Some(ADMITTED));
        assert_eq!(noted.news(&node(1)), None);
        assert_eq!(noted.standing(), [(ADMITTED, vec![node(1)])].into());
    }

    #[test]
    fn however_many_object_only_so_many_are_kept() {
        let noted = Noted::default();
        let kept = (0..u8::MAX).filter(|n| noted.note(node(*n), ADMITTED)).count();
        assert_eq!((kept, noted.lock().len()), (OBJECTIONS_MAX, OBJECTIONS_MAX));
    }
}
