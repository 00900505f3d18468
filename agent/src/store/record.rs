//! One record: the bytes of one write on disk, and how to know that they are whole.
//!
//! ```text
//! offset  0  u32  length of the value
//!         4  u8   kind
//!         5  u8   1 in the last record of a commit, else 0
//!         6  u16  length of the key
//!         8  u64  number of the commit, from 1
//!        16  u32  index of the record in its commit, from 0
//!        20  8 B  checksum of the value
//!        28  8 B  checksum of the format, its place in the file, bytes 0 to 27, and the key
//!        36       key, then value
//! ```
//! Numbers are big-endian; a checksum is the first 8 bytes of a SHA-256. The value has a checksum
//! of its own, so that a damaged value can still be named. The other checksum covers the record's
//! place in the file, so that bytes in a wrong place are no record. [`super::header::FORMAT`] goes
//! up when any of this changes.

use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Dot, StoreOp, Writer};
use sha2::{Digest, Sha256};

use super::header::FORMAT;
use super::{StoreError, Write};

/// How large a record's value may be: above the largest change.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the name of a meta value may be.
pub const META_NAME_BYTES_MAX: usize = 64;

pub(super) const HEAD_LEN: usize = 36;
/// A head with the longest key.
pub(super) const HEAD_AND_KEY_MAX: usize = HEAD_LEN + META_NAME_BYTES_MAX;
const WRITER_LEN: usize = 40;
const DOT_LEN: usize = WRITER_LEN + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put = 1,
    Forget = 2,
    Seen = 3,
    Meta = 4,
    MetaDelete = 5,
    ClearReplica = 6,
    /// Holds nothing; shows that all records before it had been committed.
    Mark = 7,
    /// Whose journal this is.
    Owner = 8,
    /// The value of a name was damaged, and the name got no new value since.
    Lost = 9,
    /// A stretch of the former file was unreadable, and this file was written without it.
    Gap = 10,
    /// All damage before this was dealt with.
    Mended = 11,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) commit: u64,
    pub(super) index: u32,
    pub(super) last: bool,
}

/// What a record is about, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Put(Dot),
    Forget(Dot),
    Seen(Writer, u64),
    Meta(String),
    MetaDelete(String),
    ClearReplica,
    Mark,
    Owner(NodeId),
    Lost(String),
    Gap,
    Mended,
}

/// The head of a record whose own checksum held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) place: Place,
    pub(super) subject: Subject,
    /// The head and the key together, in bytes.
    pub(super) len: usize,
    pub(super) value_len: usize,
    value_sum: [u8; 8],
}

impl Head {
    /// Reads the head that begins at `bytes`, which lie at `at` in the file. `None`, if the bytes
    /// are no whole head.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Option<Self> {
        let fixed = bytes.get(..HEAD_LEN)?;
        let (kind, last) = (Kind::parse(fixed[4])?, fixed[5]);
        let key_len = usize::from(u16::from_be_bytes([fixed[6], fixed[7]]));
        let value_len = u32::from_be_bytes(array(&fixed[..4])) as usize;
        // Cheap looks first: after damage, this is asked at every byte.
        if last > 1 || value_len > VALUE_BYTES_MAX || !kind.fits(key_len) {
            return None;
        }
        let key = bytes.get(HEAD_LEN..HEAD_LEN + key_len)?;
        if head_sum(at, &fixed[..28], key) != fixed[28..] {
            return None;
        }
        Some(Self {
            place: Place {
                commit: u64::from_be_bytes(array(&fixed[8..16])),
                index: u32::from_be_bytes(array(&fixed[16..20])),
                last: last == 1,
            },
            subject: Subject::parse(kind, key)?,
            len: HEAD_LEN + key_len,
            value_len,
            value_sum: array(&fixed[20..28]),
        })
    }

    /// Whether these are the bytes that were written.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        sum(value) == self.value_sum
    }
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Forget,
            3 => Self::Seen,
            4 => Self::Meta,
            5 => Self::MetaDelete,
            6 => Self::ClearReplica,
            7 => Self::Mark,
            8 => Self::Owner,
            9 => Self::Lost,
            10 => Self::Gap,
            11 => Self::Mended,
            _ => return None,
        })
    }

    fn fits(self, key_len: usize) -> bool {
        match self {
            Self::Put | Self::Forget | Self::Seen => key_len == DOT_LEN,
            Self::Meta | Self::MetaDelete | Self::Lost => key_len <= META_NAME_BYTES_MAX,
            Self::Owner => key_len == NodeId::LEN,
            Self::ClearReplica | Self::Mark | Self::Gap | Self::Mended => key_len == 0,
        }
    }
}

impl Subject {
    fn parse(kind: Kind, key: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Put => Self::Put(dot(key)),
            Kind::Forget => Self::Forget(dot(key)),
            Kind::Seen => {
                let Dot { writer, seq } = dot(key);
                Self::Seen(writer, seq)
            }
            Kind::Meta => Self::Meta(String::from_utf8(key.to_vec()).ok()?),
            Kind::MetaDelete => Self::MetaDelete(String::from_utf8(key.to_vec()).ok()?),
            Kind::ClearReplica => Self::ClearReplica,
            Kind::Mark => Self::Mark,
            Kind::Owner => Self::Owner(NodeId(array(key))),
            Kind::Lost => Self::Lost(String::from_utf8(key.to_vec()).ok()?),
            Kind::Gap => Self::Gap,
            Kind::Mended => Self::Mended,
        })
    }

    fn kind_and_key(&self) -> (Kind, Vec<u8>) {
        match self {
            Self::Put(dot) => (Kind::Put, dot_key(dot.writer, dot.seq)),
            Self::Forget(dot) => (Kind::Forget, dot_key(dot.writer, dot.seq)),
            Self::Seen(writer, seq) => (Kind::Seen, dot_key(*writer, *seq)),
            Self::Meta(name) => (Kind::Meta, name.as_bytes().to_vec()),
            Self::MetaDelete(name) => (Kind::MetaDelete, name.as_bytes().to_vec()),
            Self::ClearReplica => (Kind::ClearReplica, Vec::new()),
            Self::Mark => (Kind::Mark, Vec::new()),
            Self::Owner(node) => (Kind::Owner, node.0.to_vec()),
            Self::Lost(name) => (Kind::Lost, name.as_bytes().to_vec()),
            Self::Gap => (Kind::Gap, Vec::new()),
            Self::Mended => (Kind::Mended, Vec::new()),
        }
    }
}

/// A write as a record: what it is about, and its value.
pub(super) fn parts(write: &Write) -> Result<(Subject, &[u8]), StoreError> {
    let (subject, value): (_, &[u8]) = match write {
        Write::Replica(StoreOp::Put { dot, bytes }) => (Subject::Put(*dot), bytes),
        Write::Replica(StoreOp::Abridge(change)) => (Subject::Put(change.dot), change.bytes()),
        Write::Replica(StoreOp::Forget(dot)) => (Subject::Forget(*dot), &[]),
        Write::Replica(StoreOp::Seen(writer, seq)) => (Subject::Seen(*writer, *seq), &[]),
        Write::Meta { name, value } => (Subject::Meta((*name).to_owned()), value),
        Write::MetaDelete { name } => (Subject::MetaDelete((*name).to_owned()), &[]),
        Write::ClearReplica => (Subject::ClearReplica, &[]),
        Write::Mended => (Subject::Mended, &[]),
    };
    let bounded = |what, found, bound| match found > bound {
        true => Err(StoreError::TooLarge { what, found, bound }),
        false => Ok(()),
    };
    bounded("a value", value.len(), VALUE_BYTES_MAX)?;
    if let Subject::Meta(name) | Subject::MetaDelete(name) = &subject {
        bounded("a name", name.len(), META_NAME_BYTES_MAX)?;
    }
    Ok((subject, value))
}

/// Appends a record to `out`, whose first byte will lie at `base` in the file.
pub(super) fn append(out: &mut Vec<u8>, base: u64, place: Place, subject: &Subject, value: &[u8]) {
    let at = base + out.len() as u64;
    let (kind, key) = subject.kind_and_key();
    let start = out.len();
    let value_len = u32::try_from(value.len()).expect("a value is bounded by VALUE_BYTES_MAX");
    let key_len = u16::try_from(key.len()).expect("a key is bounded by META_NAME_BYTES_MAX");
    out.extend_from_slice(&value_len.to_be_bytes());
    out.push(kind as u8);
    out.push(u8::from(place.last));
    out.extend_from_slice(&key_len.to_be_bytes());
    out.extend_from_slice(&place.commit.to_be_bytes());
    out.extend_from_slice(&place.index.to_be_bytes());
    out.extend_from_slice(&sum(value));
    let head = head_sum(at, &out[start..], &key);
    out.extend_from_slice(&head);
    out.extend_from_slice(&key);
    out.extend_from_slice(value);
}

/// A change or a meta value, owned.
pub(super) type Value = Arc<[u8]>;

fn head_sum(at: u64, fixed: &[u8], key: &[u8]) -> [u8; 8] {
    // The checksum covers the format, so that a record of one format is no record of another.
    let format_and_place = [&FORMAT.to_be_bytes()[..], &at.to_be_bytes()].concat();
    let hash = Sha256::new().chain_update(format_and_place).chain_update(fixed).chain_update(key);
    array(&hash.finalize()[..8])
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    array(&Sha256::digest(bytes)[..8])
}

fn dot_key(writer: Writer, seq: u64) -> Vec<u8> {
    [&writer.node.0[..], &writer.incarnation.to_be_bytes(), &seq.to_be_bytes()].concat()
}

fn dot(key: &[u8]) -> Dot {
    let writer = Writer {
        node: NodeId(array(&key[..32])),
        incarnation: u64::from_be_bytes(array(&key[32..WRITER_LEN])),
    };
    Dot { writer, seq: u64::from_be_bytes(array(&key[WRITER_LEN..DOT_LEN])) }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller sliced as many bytes as it asks for")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_one_only_where_it_was_written() {
        let place = Place { commit: 3, index: 1, last: true };
        let mut out = Vec::new();
        append(&mut out, 100, place, &Subject::Meta("boot".into()), b"7");
        let head = Head::parse(&out, 100).unwrap();
        assert_eq!((head.place, &head.subject), (place, &Subject::Meta("boot".into())));
        assert!(head.matches(&out[head.len..]) && !head.matches(b"8"));
        assert_eq!(Head::parse(&out, 101), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_head(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert_eq!(Head::parse(&bytes, 0), None);
        }
    }
}
