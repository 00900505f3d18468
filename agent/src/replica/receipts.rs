//! Keeps which nodes have a change on their disk, for callers that wait for that (`--wait`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Dot, Vector};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Which nodes have which of the changes that callers wait for.
#[derive(Debug, Default)]
pub struct Receipts {
    /// For each change, how many callers wait for it, and which nodes sent a receipt.
    waiting: Mutex<BTreeMap<Dot, (usize, BTreeSet<NodeId>)>>,
    came: Notify,
    elsewhere: Mutex<Elsewhere>,
}

/// The changes that are known to be on the disk of some other node, whether that node is still
/// there or not.
#[derive(Debug, Default)]
struct Elsewhere {
    seen: Vector,
    /// The digest that another node had in common with this one when they last agreed.
    agreed: Vec<u8>,
}

impl Receipts {
    /// Collects the receipts of these changes until the guard is dropped. A node counts once it has
    /// all of them.
    pub fn expect(self: &Arc<Self>, dots: BTreeSet<Dot>) -> Expected {
        let mut waiting = self.waiting();
        dots.iter().for_each(|dot| waiting.entry(*dot).or_default().0 += 1);
        drop(waiting);
        Expected { receipts: self.clone(), dots }
    }

    /// Notes that a node has these changes on its disk.
    pub fn note(&self, node: NodeId, dots: impl IntoIterator<Item = Dot>) {
        let (mut waiting, mut elsewhere) = (self.waiting(), self.elsewhere());
        for dot in dots {
            waiting.entry(dot).and_modify(|(_, nodes)| _ = nodes.insert(node));
            // A vector says "all up to", so a receipt that would leave a gap cannot be noted in it.
            if elsewhere.seen.seen(&dot.writer) + 1 == dot.seq {
                elsewhere.seen.raise(dot.writer, dot.seq);
            }
        }
        drop((waiting, elsewhere));
        self.came.notify_waiters();
    }

    /// Whether anyone waits for receipts now.
    pub fn are_awaited(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Notes that a node has all that a vector covers on its disk.
    pub fn note_vector(&self, node: NodeId, vector: &Vector) {
        for (dot, (_, nodes)) in self.waiting().iter_mut() {
            if vector.covers(dot) {
                nodes.insert(node);
            }
        }
        self.came.notify_waiters();
        let mut elsewhere = self.elsewhere();
        for (writer, seq) in vector.iter() {
            elsewhere.seen.raise(*writer, *seq);
        }
    }

    /// Notes that another node holds the same as this one, by this digest.
    pub fn note_agreement(&self, digest: &[u8]) {
        digest.clone_into(&mut self.elsewhere().agreed);
    }

    /// Whether the last agreement was by this digest.
    pub fn knows_agreement(&self, digest: &[u8]) -> bool {
        self.elsewhere().agreed == digest
    }

    /// All changes that any other node was known to have on its disk.
    pub fn seen_elsewhere(&self) -> Vector {
        self.elsewhere().seen.clone()
    }

    fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Dot, (usize, BTreeSet<NodeId>)>> {
        // Every update is one call that cannot panic half way, so the map behind a poisoned lock is
        // sound.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receipts of a write's changes, collected while this lives.
#[derive(Debug)]
pub struct Expected {
    receipts: Arc<Receipts>,
    dots: BTreeSet<Dot>,
}

impl Expected {
    /// Whether there is no change to wait for.
    pub fn is_empty(&self) -> bool {
        self.dots.is_empty()
    }

    /// The nodes that sent a receipt of each of the changes so far.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let waiting = self.receipts.waiting();
        // The receipt of the last change comes last. While no node has sent it, the other changes
        // are not looked at.
        let mut sets = self.dots.iter().rev().filter_map(|dot| Some(&waiting.get(dot)?.1));
        let mut all = sets.next().cloned().unwrap_or_default();
        for nodes in sets {
            if all.is_empty() {
                break;
            }
            all.retain(|node| nodes.contains(node));
        }
        all
    }

    /// Waits until `enough` is true of the nodes that sent a receipt of each change, or until the
    /// deadline; returns these nodes.
    pub async fn until(
        &self,
        deadline: Instant,
        enough: impl Fn(&BTreeSet<NodeId>) -> bool,
    ) -> BTreeSet<NodeId> {
        loop {
            let mut came = std::pin::pin!(self.receipts.came.notified());
            // Registered before the look, so that no receipt comes unnoticed in between.
            came.as_mut().enable();
            let nodes = self.nodes();
            if enough(&nodes) || timeout_at(deadline, came).await.is_err() {
                return nodes;
            }
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.receipts.waiting();
        for dot in &self.dots {
            if let Some((count, _)) = waiting.get_mut(dot) {
                *count -= 1;
                if *count == 0 {
                    waiting.remove(dot);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_proto::replica::Writer;

    use super::*;

    fn dot(seq: u64) -> Dot {
        Dot { writer: Writer { node: NodeId([1; 32]), incarnation: 1 }, seq }
    }

    #[test]
    fn a_node_counts_once_it_has_every_change_of_a_write() {
        let receipts = Arc::new(Receipts::default());
        let both = receipts.expect([dot(1), dot(2)].into());
        let one = receipts.expect([dot(2)].into());
        let [a, b] = [NodeId([2; 32]), NodeId([3; 32])];
        receipts.note(a, [dot(2)]);
        receipts.note(b, [dot(1), dot(2), dot(9)]);
        assert_eq!(both.nodes(), [b].into());
        assert_eq!(one.nodes(), [a, b].into());
        drop(both);
        assert_eq!(one.nodes(), [a, b].into());
        drop(one);
        assert!(receipts.waiting().is_empty());
    }
}
