//! A disk in memory: what a node finds when it starts again, and nothing else.
//!
//! It reads the store's steps on its own, without asking the replica, so that it can be held
//! against what the replica claims to be durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Dot, Limits, Replica, SignedChange, StoreOp, Vector};
use peerage_proto::time::Now;

/// What one node has stored. A clone is a snapshot of it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    changes: BTreeMap<Dot, Arc<[u8]>>,
    seen: Vector,
    covered: Vector,
    commits: u64,
    removed: BTreeSet<NodeId>,
    /// Whether its node has joined, beside what the replica stores.
    pub joined: bool,
}

impl Disk {
    /// Stores the steps of one commit.
    pub fn apply(&mut self, ops: &[StoreOp]) {
        self.commits += 1;
        for op in ops {
            match op {
                StoreOp::Put { dot, bytes } => {
                    self.removed.extend(removed_by(bytes));
                    self.changes.insert(*dot, bytes.clone());
                    self.cover(Dot { writer: dot.writer, seq: 0 });
                }
                StoreOp::Abridge(change) => {
                    self.changes.insert(change.dot, change.bytes().clone());
                }
                StoreOp::Forget(dot) => {
                    self.changes.remove(dot);
                }
                StoreOp::Seen(writer, seq) => {
                    self.seen.raise(*writer, *seq);
                    self.cover(Dot { writer: *writer, seq: *seq });
                }
            }
        }
    }

    fn cover(&mut self, upto: Dot) {
        let mut seq = self.covered.seen(&upto.writer).max(upto.seq);
        while self.changes.contains_key(&Dot { writer: upto.writer, seq: seq + 1 }) {
            seq += 1;
        }
        self.covered.raise(upto.writer, seq);
    }

    /// Whether a change is stored, or was until something stored superseded it.
    pub fn holds(&self, dot: &Dot) -> bool {
        self.covered.covers(dot) || self.changes.contains_key(dot)
    }

    /// How many commits were applied to it.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Up to where every writer's changes are held.
    pub fn covered(&self) -> &Vector {
        &self.covered
    }

    /// The changes that are held above [`Disk::covered`], in order.
    pub fn scattered(&self) -> impl Iterator<Item = &Dot> {
        self.changes.keys().filter(|dot| !self.covered.covers(dot))
    }

    /// The nodes whose removal was ever stored here.
    pub fn removed(&self) -> &BTreeSet<NodeId> {
        &self.removed
    }

    /// The replica that comes back from this disk.
    pub fn load(&self, dc: DataCenterId, key: Keypair, limits: Limits, now: Now) -> Replica {
        let changes = self.changes.values().map(|bytes| {
            SignedChange::trust(bytes.clone()).expect("what was stored was verified before")
        });
        Replica::load(dc, key, limits, changes, self.seen.clone(), now)
    }
}

/// The node that a change removes, if it removes one.
fn removed_by(bytes: &Arc<[u8]>) -> Option<NodeId> {
    let change = SignedChange::trust(bytes.clone()).expect("what is stored was verified before");
    let id = change.path.as_str().strip_prefix("@member/")?.parse().ok()?;
    change.set.contains_key("removed").then_some(id)
}
