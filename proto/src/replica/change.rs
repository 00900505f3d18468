//! A change: one signed write to one document, the unit that is stored, replicated and shown.
//!
//! A change is kept as the bytes that were signed, so that what a newer version put in it passes
//! through an older node unharmed. On the wire and on disk it is
//! `version (1 byte) | signature (64 bytes) | body (MessagePack)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::path::{Field, Path};
use super::vector::{Dot, SEQ_MAX, Writer};
use crate::codec::{self, DecodeError};
use crate::id::DataCenterId;
use crate::identity::{BadSignature, Domain, Keypair, SIGNATURE_LEN};
use crate::time::Hlc;

/// The version of the envelope. A change with another is refused, for its signature could not be
/// checked.
const VERSION: u8 = 1;

/// How large a change may be, envelope included. A document is at most
/// [`super::DOCUMENT_BYTES_MAX`], and one change can write all of it; the rest is names and dots.
pub const CHANGE_BYTES_MAX: usize = super::DOCUMENT_BYTES_MAX + 256 * 1024;

/// The last millisecond of the year 9999. A later stamp is nobody's clock: it would leave no room
/// for the stamps of those who write after it.
const WALL_MS_MAX: u64 = 253_402_300_799_999;

/// When a change was made, and by whom where two were made at once: a total order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The hybrid logical time.
    pub at: Hlc,
    /// Who wrote it.
    pub writer: Writer,
}

impl fmt::Display for Stamp {
    /// The form of history, ETag and `revert`: the time, then the first digits of node and
    /// incarnation. It tells the changes of one document apart; it does not read back alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Writer { node, incarnation } = self.writer;
        write!(f, "{:016x}-{}{:04x}", self.at.0, node.short(), incarnation >> 48)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.at, self.writer)
    }
}

/// Who asked for a change, and by which door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// A user of the host, or of the Data Center: `root`.
    pub who: String,
    /// The door: `socket`, `join`, `agent`.
    pub via: String,
}

/// What a change says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The Data Center that it was made for: it holds in no other.
    #[serde(rename = "dc")]
    pub datacenter: DataCenterId,
    /// Who wrote it, as which of its changes.
    pub dot: Dot,
    /// When.
    pub at: Hlc,
    /// To which document.
    pub path: Path,
    /// The fields that it sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<Field, Value>,
    /// The fields that it takes away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<Field>,
    /// Whether it removes the document: every field that is not later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// For each field that it touches, what its writer saw there and so means to supersede: of each
    /// writer the latest change to the field, which stands for the earlier ones. What is not named
    /// here was not seen: it stays, as a conflict.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub based_on: BTreeMap<Field, Vec<Dot>>,
    /// The removals of the document that its writer saw: of each writer the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals_seen: Vec<Dot>,
    /// Of a removal: whose word it takes over, of each writer the latest, where that is not all
    /// that it saw. Its writer may know of another removal only by a write that had seen it, and
    /// then cannot say what that one superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<Vec<Dot>>,
    /// Who asked.
    pub actor: Actor,
}

impl Change {
    /// When and by whom.
    pub fn stamp(&self) -> Stamp {
        Stamp { at: self.at, writer: self.dot.writer }
    }
}

/// Why bytes are no change that may be merged. It is the sender's fault, or the disk's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Cut off, or of a version whose envelope is unknown.
    #[error("no change of version {VERSION}")]
    Envelope,
    /// The body does not read.
    #[error("the body of a change is {0}")]
    Body(#[from] DecodeError),
    /// Not signed by the node that it names.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// A number or a time that no change has, or a value that nests too deep.
    #[error("a change says {0}")]
    Content(&'static str),
}

/// A change whose signature was checked when it came in, with the bytes that were signed.
/// Cloning shares it.
#[derive(Clone)]
pub struct SignedChange {
    change: Arc<Change>,
    bytes: Arc<[u8]>,
}

impl SignedChange {
    /// Signs a change. The key must be that of the writer's node.
    pub(super) fn sign(change: Change, key: &Keypair) -> Self {
        debug_assert_eq!(change.dot.writer.node, key.node_id());
        let body = codec::encode(&change);
        let signature = key.sign(Domain::Change, &body);
        let bytes = [&[VERSION][..], &signature, &body].concat().into();
        Self { change: Arc::new(change), bytes }
    }

    /// Reads a change that came from elsewhere, and checks its signature.
    ///
    /// # Errors
    /// [`ChangeError`], for bytes of any content; never a panic.
    pub fn verify(bytes: Arc<[u8]>) -> Result<Self, ChangeError> {
        let this = Self::trust(bytes)?;
        let (signature, body) = envelope(&this.bytes)?;
        this.change.dot.writer.node.verify(Domain::Change, body, signature)?;
        Ok(this)
    }

    /// Reads a change that was verified before it was stored on this disk.
    ///
    /// # Errors
    /// [`ChangeError`] where the bytes do not read; the signature is not looked at.
    pub fn trust(bytes: Arc<[u8]>) -> Result<Self, ChangeError> {
        let (_, body) = envelope(&bytes)?;
        let change = codec::decode::<Change>(body, CHANGE_BYTES_MAX)?;
        if change.dot.seq == 0 || change.dot.seq > SEQ_MAX {
            return Err(ChangeError::Content("a number that no change of a writer has"));
        }
        if change.at.wall_ms() > WALL_MS_MAX {
            return Err(ChangeError::Content("that it was made after the year 9999"));
        }
        if change.set.values().any(|value| codec::json_depth(value) > codec::JSON_DEPTH_MAX) {
            return Err(ChangeError::Content("a value that nests too deep"));
        }
        Ok(Self { change: Arc::new(change), bytes })
    }

    /// The bytes to store and to send.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

impl std::ops::Deref for SignedChange {
    type Target = Change;

    fn deref(&self) -> &Change {
        &self.change
    }
}

impl fmt::Debug for SignedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {:?}", self.dot, self.path, self.stamp())
    }
}

fn envelope(bytes: &[u8]) -> Result<(&[u8; SIGNATURE_LEN], &[u8]), ChangeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) if bytes.len() <= CHANGE_BYTES_MAX => {
            rest.split_first_chunk().ok_or(ChangeError::Envelope)
        }
        _ => Err(ChangeError::Envelope),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(super) fn sample(key: &Keypair) -> Change {
        Change {
            datacenter: DataCenterId([9; 16]),
            dot: Dot { writer: Writer { node: key.node_id(), incarnation: 5 }, seq: 3 },
            at: Hlc::at(1_700_000_000_000),
            path: "storage/nas1".parse().unwrap(),
            set: [("server".parse().unwrap(), json!({"host": "10.0.0.9", "ports": [1, 2]}))].into(),
            unset: ["old".parse().unwrap()].into(),
            remove: false,
            based_on: BTreeMap::new(),
            removals_seen: Vec::new(),
            takes_over: None,
            actor: Actor { who: "root".into(), via: "socket".into() },
        }
    }

    #[test]
    fn a_change_reads_back_and_any_altered_byte_shows() {
        let key = Keypair::from_seed([1; 32]);
        let signed = SignedChange::sign(sample(&key), &key);
        let read = SignedChange::verify(signed.bytes().clone()).unwrap();
        assert_eq!(*read, *signed);
        for at in 0..signed.bytes().len() {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= 0x20;
            assert!(SignedChange::verify(bytes.into()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_field_of_a_newer_version_is_signed_kept_and_passed_on() {
        #[derive(Serialize)]
        struct Newer {
            #[serde(flatten)]
            change: Change,
            colour: &'static str,
        }
        let key = Keypair::from_seed([1; 32]);
        let body = codec::encode(&Newer { change: sample(&key), colour: "blue" });
        let signature = key.sign(Domain::Change, &body);
        let bytes: Arc<[u8]> = [&[VERSION][..], &signature, &body].concat().into();
        let read = SignedChange::verify(bytes.clone()).unwrap();
        assert_eq!(*read, sample(&key));
        assert_eq!(*read.bytes(), bytes);
    }

    #[test]
    fn what_no_writer_says_is_refused_though_it_is_signed() {
        let key = Keypair::from_seed([1; 32]);
        let mut late = sample(&key);
        late.at = Hlc(u64::MAX);
        let mut last = sample(&key);
        last.dot.seq = u64::MAX;
        let mut none = sample(&key);
        none.dot.seq = 0;
        for change in [late, last, none] {
            let bytes = SignedChange::sign(change, &key).bytes().clone();
            assert!(matches!(SignedChange::verify(bytes), Err(ChangeError::Content(_))));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(SignedChange::verify(bytes.into()).is_err());
        }
    }
}
