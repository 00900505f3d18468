//! A change: one signed write to one document, the unit that is stored, replicated and shown.
//!
//! A change is kept as the bytes that were signed, so that what a newer version put in it passes
//! through an older node unharmed. On the wire and on disk it is
//! `version (1 byte) | signature (64 bytes) | length of the body (4 bytes, most significant first) |
//! body (MessagePack) | values (MessagePack)`.
//!
//! The signature covers the body. A value of more than [`INLINE_BYTES_MAX`] stands behind the body,
//! which holds its SHA-256: so a value that another change superseded can be left out later, and
//! what remains is still signed by its writer. A change with a value left out is *abridged*.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::commit::CommitRange;
use super::path::{Field, Path};
use super::vector::{Dot, SEQ_MAX, Writer};
use crate::codec::{self, DecodeError};
use crate::id::DataCenterId;
use crate::identity::{BadSignature, Domain, Keypair, SIGNATURE_LEN};
use crate::time::Hlc;

/// The version of the envelope. A change with another is refused, for its signature could not be
/// checked.
const VERSION: u8 = 2;

/// How large a change may be, envelope included. A document is at most
/// [`super::DOCUMENT_BYTES_MAX`], and one change can write all of it; the rest is names, dots and
/// hashes.
pub const CHANGE_BYTES_MAX: usize = super::DOCUMENT_BYTES_MAX + 512 * 1024;

/// Up to how many bytes of MessagePack a value stands in the signed body itself. A larger one
/// stands behind the body; where it is left out, its hash still takes 32 bytes.
pub const INLINE_BYTES_MAX: usize = 64;

/// A value that stands behind the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Apart {
    /// The SHA-256 of its MessagePack.
    hash: ByteArray<32>,
    /// By how many bytes the change gets smaller without it; 0 where it is left out.
    #[serde(skip)]
    weight: usize,
}

impl Apart {
    fn of(value: &[u8]) -> Self {
        Self { hash: hash(value), weight: weight(value.len()) }
    }
}

/// The last millisecond of the year 9999. No right clock shows a later time, and a much later stamp
/// would leave no room for the stamps of the changes after it.
const WALL_MS_MAX: u64 = 253_402_300_799_999;

/// The time of a change, and its writer, which decides where two changes have one time: a total
/// order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The hybrid logical time.
    pub at: Hlc,
    /// Who wrote it.
    pub writer: Writer,
}

impl fmt::Display for Stamp {
    /// The form that history shows and `revert` takes: the time, then the first digits of node and
    /// incarnation. It tells the changes of one document apart, but a stamp cannot be read back
    /// from it.
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
    /// The Data Center for which it was made; nodes of another one do not take it.
    #[serde(rename = "dc")]
    pub datacenter: DataCenterId,
    /// Its writer, and its number among that writer's changes.
    pub dot: Dot,
    /// When it was made.
    pub at: Hlc,
    /// The document that it writes to.
    pub path: Path,
    /// The fields that it sets, except those whose values this copy leaves out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<Field, Value>,
    /// The hashes of the values that stand behind the body, or are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) apart: BTreeMap<Field, Apart>,
    /// The fields that it takes away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<Field>,
    /// Whether it removes the document: all that its writer saw, and concurrent writes that are not
    /// later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// For each field that it touches, the changes that its writer saw there and supersedes. It
    /// names the latest change of each writer, which stands for that writer's earlier ones. A
    /// change that is not named so was not seen, and stays as a conflict.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub based_on: BTreeMap<Field, Vec<Dot>>,
    /// The removals of the document that its writer saw: of each writer the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals_seen: Vec<Dot>,
    /// For a removal: the other removals that it replaces, of each writer the latest; `None` where
    /// these are `removals_seen`. Its writer may know of another removal only by a write that had
    /// seen it. It then does not know what that removal superseded, and so cannot replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<Vec<Dot>>,
    /// Which of its writer's changes were written together with it; none where it was written alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitRange>,
    /// Who asked for it.
    pub actor: Actor,
}

impl Change {
    /// The time and the writer of the change.
    pub fn stamp(&self) -> Stamp {
        Stamp { at: self.at, writer: self.dot.writer }
    }

    /// The fields that it set to values which this copy leaves out.
    pub fn left_out(&self) -> impl Iterator<Item = &Field> {
        self.apart.keys().filter(|field| !self.set.contains_key(*field))
    }

    /// The fields that it set or took away, those included whose values this copy leaves out.
    pub fn touched(&self) -> impl Iterator<Item = &Field> {
        self.set.keys().chain(&self.unset).chain(self.left_out())
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
    /// Signs a change that has all its values. The key must be that of the writer's node.
    pub(super) fn sign(mut change: Change, key: &Keypair) -> Self {
        debug_assert_eq!(change.dot.writer.node, key.node_id());
        let encoded = change.set.iter().map(|(field, value)| (field, codec::encode(value)));
        let large = encoded.filter(|(_, value)| value.len() > INLINE_BYTES_MAX);
        let large: BTreeMap<Field, Vec<u8>> = large.map(|(f, value)| (f.clone(), value)).collect();
        change.apart =
            large.iter().map(|(field, value)| (field.clone(), Apart::of(value))).collect();
        let mut behind = BTreeMap::new();
        behind.extend(large.keys().filter_map(|field| change.set.remove_entry(field)));
        let body = codec::encode(&change);
        change.set.append(&mut behind);
        let signature = key.sign(Domain::Change, &body);
        let values: Vec<_> = large.into_values().map(|value| Some(ByteBuf::from(value))).collect();
        let bytes = Envelope { signature: &signature, body: &body }.with(&values);
        Self { change: Arc::new(change), bytes }
    }

    /// Reads a change that came from elsewhere, and checks its signature and its values.
    ///
    /// # Errors
    /// [`ChangeError`], for bytes of any content; never a panic.
    pub fn verify(bytes: Arc<[u8]>) -> Result<Self, ChangeError> {
        let (Envelope { signature, body }, values) = Envelope::of(&bytes)?;
        let (change, values) = read(body, values)?;
        change.dot.writer.node.verify(Domain::Change, body, signature)?;
        let mut pairs = change.apart.values().zip(&values);
        if pairs.any(|(said, value)| value.as_ref().is_some_and(|value| said.hash != hash(value))) {
            return Err(ChangeError::Content("a value that its writer did not sign"));
        }
        Ok(Self { change: Arc::new(change), bytes })
    }

    /// Reads a change that was verified before it was stored on this disk.
    ///
    /// # Errors
    /// [`ChangeError`] where the bytes do not read; neither signature nor values are checked.
    pub fn trust(bytes: Arc<[u8]>) -> Result<Self, ChangeError> {
        let (Envelope { body, .. }, values) = Envelope::of(&bytes)?;
        let (change, _) = read(body, values)?;
        Ok(Self { change: Arc::new(change), bytes })
    }

    /// The same change without the values of these fields, as far as they can be left out.
    pub(super) fn without(&self, fields: &BTreeSet<Field>) -> Self {
        let (envelope, values) = Envelope::of(&self.bytes).expect("it was read before");
        let (mut change, mut values) = read(envelope.body, values).expect("it was read before");
        for ((field, apart), value) in change.apart.iter_mut().zip(&mut values) {
            if fields.contains(field) {
                (apart.weight, *value) = (0, None);
                change.set.remove(field);
            }
        }
        Self { bytes: envelope.with(&values), change: Arc::new(change) }
    }

    /// By how many bytes it gets smaller without the value of a field; 0 where that cannot be left
    /// out.
    pub fn weight(&self, field: &Field) -> usize {
        self.change.apart.get(field).map_or(0, |apart| apart.weight)
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

/// The parts that a change's bytes have before the values.
struct Envelope<'a> {
    signature: &'a [u8; SIGNATURE_LEN],
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Splits bytes into the envelope and the values behind the body.
    fn of(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ChangeError> {
        let parts = || {
            let (&VERSION, rest) = bytes.split_first()? else { return None };
            let (signature, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (body, values) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            Some((Self { signature, body }, values))
        };
        let parts = if bytes.len() <= CHANGE_BYTES_MAX { parts() } else { None };
        parts.ok_or(ChangeError::Envelope)
    }

    /// The bytes of a change with these values.
    fn with(&self, values: &[Option<ByteBuf>]) -> Arc<[u8]> {
        let length = u32::try_from(self.body.len()).expect("the bounds of a document are far less");
        let values = if values.is_empty() { Vec::new() } else { codec::encode(&values) };
        [&[VERSION][..], self.signature, &length.to_be_bytes(), self.body, &values].concat().into()
    }
}

/// Reads body and values. Answers with the change, and the MessagePack of each value, in the order
/// of `apart`.
fn read(body: &[u8], behind: &[u8]) -> Result<(Change, Vec<Option<ByteBuf>>), ChangeError> {
    let mut change = codec::decode::<Change>(body, CHANGE_BYTES_MAX)?;
    let values: Vec<Option<ByteBuf>> = match behind {
        [] => Vec::new(),
        behind => codec::decode(behind, CHANGE_BYTES_MAX)?,
    };
    if values.len() != change.apart.len() {
        return Err(ChangeError::Content("more or fewer values than it has hashes of"));
    }
    // In any other encoding the change might grow when a value is left out.
    if !values.is_empty() && codec::encode(&values) != behind {
        return Err(ChangeError::Content("values in a form that no writer gives them"));
    }
    if change.apart.keys().any(|field| change.set.contains_key(field)) {
        return Err(ChangeError::Content("two values of one field"));
    }
    for ((field, apart), value) in change.apart.iter_mut().zip(&values) {
        if let Some(value) = value {
            apart.weight = weight(value.len());
            change.set.insert(field.clone(), codec::decode(value, CHANGE_BYTES_MAX)?);
        }
    }
    if !saw_what_it_could(&change) {
        return Err(ChangeError::Content("that it saw what it does not touch, or itself"));
    }
    if change.dot.seq == 0 || change.dot.seq > SEQ_MAX {
        return Err(ChangeError::Content("a number that no change of a writer has"));
    }
    if change.commit.is_some_and(|commit| !commit.fits(change.dot.seq)) {
        return Err(ChangeError::Content("that it belongs to a commit which it cannot be of"));
    }
    if change.at.wall_ms() > WALL_MS_MAX {
        return Err(ChangeError::Content("that it was made after the year 9999"));
    }
    if change.set.values().any(|value| codec::json_depth(value) > codec::JSON_DEPTH_MAX) {
        return Err(ChangeError::Content("a value that nests too deep"));
    }
    Ok((change, values))
}

/// Whether a change supersedes only in fields that it touches, and names only changes that its
/// writer can have seen: of its own, only earlier ones. Each writer is named once, in the order of
/// the writers.
fn saw_what_it_could(change: &Change) -> bool {
    let before = |dot: &Dot| dot.writer != change.dot.writer || dot.seq < change.dot.seq;
    let touches = |field: &Field| {
        let sets = change.set.contains_key(field) || change.apart.contains_key(field);
        change.remove || sets || change.unset.contains(field)
    };
    let removals = [Some(&change.removals_seen), change.takes_over.as_ref()];
    let mut contexts = change.based_on.values().chain(removals.into_iter().flatten());
    if !contexts.all(|dots| dots.is_sorted_by(|a, b| a.writer < b.writer)) {
        return false;
    }
    let seen = change.removals_seen.iter().chain(change.takes_over.iter().flatten());
    change.based_on.keys().all(touches)
        && change.based_on.values().flatten().chain(seen).all(before)
}

fn hash(value: &[u8]) -> ByteArray<32> {
    ByteArray::new(Sha256::digest(value).into())
}

/// How many bytes a change saves that leaves out a value of this length: the value and its head,
/// less one byte, which marks it as left out. See "bin format family" in the specification of
/// MessagePack.
fn weight(length: usize) -> usize {
    let head = match length {
        0..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    };
    head + length - 1
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
            set: [
                ("server".parse().unwrap(), json!({"host": "10.0.0.9", "ports": [1, 2]})),
                ("export".parse().unwrap(), json!("/srv/".repeat(20))),
            ]
            .into(),
            apart: BTreeMap::new(),
            unset: ["old".parse().unwrap()].into(),
            remove: false,
            based_on: BTreeMap::new(),
            removals_seen: Vec::new(),
            takes_over: None,
            commit: None,
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
        let mut change = sample(&key);
        change.set.retain(|_, value| value.is_object());
        let body = codec::encode(&Newer { change: change.clone(), colour: "blue" });
        let signature = key.sign(Domain::Change, &body);
        let bytes = Envelope { signature: &signature, body: &body }.with(&[]);
        let read = SignedChange::verify(bytes.clone()).unwrap();
        assert_eq!(*read, change);
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
        let mut other = sample(&key);
        other.commit = Some((4, 5).into());
        for change in [late, last, none, other] {
            let bytes = SignedChange::sign(change, &key).bytes().clone();
            assert!(matches!(SignedChange::verify(bytes), Err(ChangeError::Content(_))));
        }
    }

    #[test]
    fn a_change_without_a_large_value_is_still_signed_by_its_writer() {
        let key = Keypair::from_seed([1; 32]);
        let whole = SignedChange::sign(sample(&key), &key);
        let (small, large): (Field, Field) = ("server".parse().unwrap(), "export".parse().unwrap());
        let weight = whole.weight(&large);
        assert!(weight > 100 && whole.weight(&small) == 0);
        let abridged = whole.without(&[small.clone(), large.clone()].into());
        assert_eq!(abridged.bytes().len() + weight, whole.bytes().len());
        assert_eq!(abridged.weight(&large), 0);
        let read = SignedChange::verify(abridged.bytes().clone()).unwrap();
        assert_eq!(*read, *abridged);
        assert!(read.set.contains_key(&small), "a small value stays");
        assert_eq!(read.left_out().collect::<Vec<_>>(), [&large]);
        assert_eq!(read.touched().count(), whole.touched().count());
        let again = abridged.without(&[large].into());
        assert_eq!(again.bytes(), abridged.bytes());
    }

    #[test]
    fn values_that_their_writer_did_not_sign_are_refused() {
        let key = Keypair::from_seed([1; 32]);
        let whole = SignedChange::sign(sample(&key), &key);
        let (envelope, _) = Envelope::of(whole.bytes()).unwrap();
        let value = |text: &str| Some(ByteBuf::from(codec::encode(&json!(text))));
        for values in [vec![value("other")], vec![], vec![None, None]] {
            let bytes = envelope.with(&values);
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
