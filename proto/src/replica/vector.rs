//! Version vectors (Parker et al., 1983): for each writer, the number up to which its changes were
//! seen.
//!
//! A writer is a node *and* an incarnation that it draws at random at a process's first write. A
//! host whose disk is rolled back writes under a new incarnation, so it can never reuse a sequence
//! number that others have seen under the old one.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec;
use crate::id::NodeId;

/// The highest sequence number that a node accepts. A writer that makes a million changes a second
/// needs two thousand years to reach it, and `SEQ_MAX + 1` does not overflow.
pub(super) const SEQ_MAX: u64 = 1 << 56;

/// One process that writes as a node. It numbers its changes from 1, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// The node, whose key signs.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// Random, new with every process that writes.
    #[serde(rename = "i")]
    pub incarnation: u64,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{:04x}", self.node.short(), self.incarnation >> 48)
    }
}

/// The key of one change: its writer, and its number among that writer's changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote it.
    #[serde(rename = "w")]
    pub writer: Writer,
    /// Which of the writer's changes, from 1.
    #[serde(rename = "q")]
    pub seq: u64,
}

impl Dot {
    /// Whether a node that saw this change also saw `other`: both have one writer, and `other` is
    /// not later.
    pub(super) fn stands_for(&self, other: &Self) -> bool {
        self.writer == other.writer && self.seq >= other.seq
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.writer, self.seq)
    }
}

/// For each writer, the sequence number up to which all of its changes were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(Writer, u64)>", into = "Vec<(Writer, u64)>")]
pub struct Vector(BTreeMap<Writer, u64>);

impl Vector {
    /// The number up to which all changes of a writer were seen; 0 for none.
    pub fn seen(&self, writer: &Writer) -> u64 {
        self.0.get(writer).copied().unwrap_or(0)
    }

    /// Whether the change was seen, or is known to be superseded by a change that was seen.
    pub fn covers(&self, dot: &Dot) -> bool {
        dot.seq <= self.seen(&dot.writer)
    }

    /// Whether everything that `other` covers is covered.
    pub fn dominates(&self, other: &Self) -> bool {
        other.0.iter().all(|(writer, seq)| self.seen(writer) >= *seq)
    }

    /// Notes that all of a writer's changes up to `seq` were seen. Never lowers; answers whether
    /// it raised.
    pub fn raise(&mut self, writer: Writer, seq: u64) -> bool {
        if seq <= self.seen(&writer) {
            return false;
        }
        self.0.insert(writer, seq);
        true
    }

    /// The writers and how far each was seen, in the order of the writers.
    pub fn iter(&self) -> btree_map::Iter<'_, Writer, u64> {
        self.0.iter()
    }

    /// Sixteen hex digits that are the same for the same vector: what two nodes compare to see
    /// whether they hold the same.
    pub fn digest(&self) -> String {
        digest(self)
    }
}

/// Sixteen hex digits of the hash of a value's binary form.
pub(super) fn digest<T: Serialize>(value: &T) -> String {
    let hash = Sha256::digest(codec::encode(value));
    data_encoding::HEXLOWER.encode(&hash[..8])
}

impl From<Vec<(Writer, u64)>> for Vector {
    /// Takes the highest number where a writer is named twice, and drops zeros and numbers that no
    /// writer reaches.
    fn from(entries: Vec<(Writer, u64)>) -> Self {
        let mut vector = Self::default();
        for (writer, seq) in entries.into_iter().filter(|(_, seq)| *seq <= SEQ_MAX) {
            vector.raise(writer, seq);
        }
        vector
    }
}

impl From<Vector> for Vec<(Writer, u64)> {
    fn from(vector: Vector) -> Self {
        vector.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writer(n: u8) -> Writer {
        Writer { node: NodeId([n; 32]), incarnation: u64::from(n) }
    }

    fn vectors() -> impl Strategy<Value = Vector> {
        prop::collection::vec((0u8..6, 0u64..9), 0..9).prop_map(|entries| {
            Vector::from(entries.into_iter().map(|(n, seq)| (writer(n), seq)).collect::<Vec<_>>())
        })
    }

    fn joined(a: &Vector, b: &Vector) -> Vector {
        let mut out = a.clone();
        for (writer, seq) in b.iter() {
            out.raise(*writer, *seq);
        }
        out
    }

    proptest! {
        #[test]
        fn joining_is_a_least_upper_bound(a in vectors(), b in vectors(), c in vectors()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert!(joined(&a, &b).dominates(&a) && joined(&a, &b).dominates(&b));
            prop_assert_eq!(a.dominates(&b) && b.dominates(&a), a == b);
            prop_assert_eq!(a == b, a.digest() == b.digest());
        }

        #[test]
        fn a_vector_reads_back(a in vectors()) {
            let bytes = codec::encode(&a);
            prop_assert_eq!(codec::decode::<Vector>(&bytes, bytes.len()).unwrap(), a);
        }
    }
}
