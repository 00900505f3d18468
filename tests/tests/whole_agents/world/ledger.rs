//! What the agents of a world acknowledged, and what was done to their hosts. The promises are
//! checked against it.

use std::collections::BTreeSet;

use peerage_proto::id::NodeId;

/// A write that returned.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) host: usize,
    pub(super) path: String,
    pub(super) field: String,
    pub(super) value: u64,
    pub(super) stamp: String,
    pub(super) at_ms: u64,
    /// On how many of how many nodes it was when it returned.
    pub(super) on: u32,
    pub(super) of: u32,
}

/// A removal that returned.
#[derive(Debug, Clone)]
pub(super) struct PutOut {
    pub(super) by: usize,
    pub(super) node: NodeId,
    pub(super) at_ms: u64,
}

/// A stretch of time that a host lost, disk and all.
#[derive(Debug, Clone, Copy)]
struct Lost {
    host: usize,
    from_ms: u64,
    to_ms: u64,
}

/// The truth about a world.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) kept: Vec<Kept>,
    pub(super) put_out: Vec<PutOut>,
    /// The nodes that were handed a token that admits.
    pub(super) invited: BTreeSet<NodeId>,
    lost: Vec<Lost>,
}

impl Ledger {
    /// Notes that a host lost what it held from one time to another, since its disk came back old.
    pub(super) fn rolled_back(&mut self, host: usize, from_ms: u64, to_ms: u64) {
        self.lost.push(Lost { host, from_ms, to_ms });
    }

    /// Notes that a host is gone with all that it had.
    pub(super) fn destroyed(&mut self, host: usize) {
        self.lost.push(Lost { host, from_ms: 0, to_ms: u64::MAX });
    }

    /// Whether a host may have lost what it came to hold at a time.
    pub(super) fn may_be_gone(&self, host: usize, at_ms: u64) -> bool {
        let covers = |lost: &Lost| (lost.from_ms..=lost.to_ms).contains(&at_ms);
        self.lost.iter().any(|lost| lost.host == host && covers(lost))
    }
}
