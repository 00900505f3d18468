//! What two replicas say to each other: pushes of what is new, and sessions that repair the rest.
//!
//! A session is symmetric. Each side sends the vector of what it has on disk ([`SyncFrame::Have`])
//! and the changes that the other side lacks. It ends with the vector that the other side has once
//! it has merged those changes ([`SyncFrame::Done`]). At last it sends the vector of what it has on
//! disk after it merged the other's changes ([`SyncFrame::Kept`]). Pushes are not acknowledged
//! unless their writer waits for receipts; sessions bring the changes of lost pushes (Demers et
//! al., "Epidemic Algorithms for Replicated Database Maintenance", 1987: direct mail and
//! anti-entropy).

use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::change::{CHANGE_BYTES_MAX, ChangeError, SignedChange};
use super::vector::{Dot, Vector};
use crate::codec::{self, DecodeError};
use crate::id::NodeId;

/// How large an encoded frame may be: one change of the largest size, and what wraps it.
pub const FRAME_BYTES_MAX: usize = CHANGE_BYTES_MAX + 4096;

/// How many bytes of changes one frame carries, unless a single change is larger.
const CHUNK_BYTES: usize = 64 * 1024;

/// Up to this many members, a node pushes a change to all others directly. Where there are more, it
/// pushes to a few ([`FANOUT`]), and each of these passes the change on to a few more.
pub const DIRECT_MAX: usize = 64;

/// To how many members a node pushes a change where there are more than [`DIRECT_MAX`]. With eight,
/// epidemic pushing misses fewer than one member in a thousand (Demers et al., section 1.4);
/// anti-entropy reaches the missed ones.
pub const FANOUT: usize = 8;

/// One frame of an anti-entropy session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncFrame {
    /// The first frame of each side: what it has on disk.
    #[serde(rename = "have")]
    Have(Vector),
    /// Changes that the other lacks.
    #[serde(rename = "changes")]
    Changes(Vec<ByteBuf>),
    /// The sender has no more changes. A receiver that has merged them knows everything up to this
    /// vector.
    #[serde(rename = "done")]
    Done(Vector),
    /// The sender has all of the receiver's changes on disk; the vector is what it has on disk now.
    #[serde(rename = "kept")]
    Kept(Vector),
}

/// One frame of the push stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushFrame {
    /// New changes.
    #[serde(rename = "changes")]
    Changes {
        /// The changes.
        #[serde(rename = "c")]
        changes: Vec<ByteBuf>,
        /// Whether a node that sees one of them for the first time passes it on.
        #[serde(rename = "r", default)]
        relay: bool,
        /// Whether their writer waits for receipts.
        #[serde(rename = "a", default)]
        receipt: bool,
    },
    /// These changes of yours are on my disk.
    #[serde(rename = "receipt")]
    Receipt(Vec<Dot>),
}

impl SyncFrame {
    /// The frame's binary form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, FRAME_BYTES_MAX)
    }
}

impl PushFrame {
    /// The frame's binary form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, FRAME_BYTES_MAX)
    }
}

/// Splits changes into lists that each fit into one frame, in their order.
pub fn chunks(changes: &[SignedChange]) -> impl Iterator<Item = Vec<ByteBuf>> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().position(|change| {
            bytes += change.bytes().len();
            bytes > CHUNK_BYTES
        });
        let (chunk, later) = rest.split_at(fits.unwrap_or(rest.len()).max(1).min(rest.len()));
        rest = later;
        let chunk: Vec<_> = chunk.iter().map(|c| ByteBuf::from(c.bytes().to_vec())).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Reads and verifies the changes of a frame. All or none.
///
/// # Errors
/// [`ChangeError`]: the sender is broken or lies, and nothing of the frame is taken.
pub fn verified(changes: Vec<ByteBuf>) -> Result<Vec<SignedChange>, ChangeError> {
    let verify = |bytes: ByteBuf| SignedChange::verify(Arc::from(bytes.into_vec()));
    changes.into_iter().map(verify).collect()
}

/// The members to which a node pushes a change, and whether they are to pass it on.
pub fn targets(others: &[NodeId], rng: &mut impl Rng) -> (Vec<NodeId>, bool) {
    if others.len() < DIRECT_MAX {
        (others.to_vec(), false)
    } else {
        (others.sample(rng, FANOUT).copied().collect(), true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::replica::Writer;

    fn bytes() -> impl Strategy<Value = Vec<ByteBuf>> {
        let one = prop::collection::vec(any::<u8>(), 0..40).prop_map(ByteBuf::from);
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn frames_read_back(changes in bytes(), relay: bool, receipt: bool, seq: u64) {
            let writer = Writer { node: NodeId([1; 32]), incarnation: 7 };
            let vector = Vector::from(vec![(writer, seq)]);
            let sync = [
                SyncFrame::Have(vector.clone()),
                SyncFrame::Changes(changes.clone()),
                SyncFrame::Done(vector.clone()),
                SyncFrame::Kept(vector),
            ];
            for frame in sync {
                prop_assert_eq!(SyncFrame::decode(&frame.encode()).unwrap(), frame);
            }
            let push = [
                PushFrame::Changes { changes, relay, receipt },
                PushFrame::Receipt(vec![Dot { writer, seq }]),
            ];
            for frame in push {
                prop_assert_eq!(PushFrame::decode(&frame.encode()).unwrap(), frame);
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = SyncFrame::decode(&bytes);
            let _ = PushFrame::decode(&bytes);
        }

        #[test]
        fn few_are_told_directly_and_of_many_a_few(count in 0u8..200, seed: u64) {
            let others: Vec<_> = (0..count).map(|n| NodeId([n; 32])).collect();
            let (told, relay) = targets(&others, &mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(relay, others.len() >= DIRECT_MAX);
            prop_assert_eq!(told.len(), if relay { FANOUT } else { others.len() });
            let distinct: std::collections::BTreeSet<_> = told.iter().collect();
            prop_assert_eq!(distinct.len(), told.len());
        }
    }
}
