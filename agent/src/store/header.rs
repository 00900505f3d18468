//! The header of a journal file: its magic bytes, its format and the node that it belongs to.
//!
//! ```text
//! offset  0  14 B  "peerage-store\0"
//!        14  u16   format
//!        16  32 B  the node whose journal this is
//!        48  8 B   zero
//!        56  8 B   checksum of bytes 0 to 55
//! ```
//! Every newer format keeps this layout of 64 bytes, so that an older version of peerage can name
//! the format that it found.

use peerage_proto::id::NodeId;
use sha2::{Digest, Sha256};

/// The format of the file that this version writes.
pub(super) const FORMAT: u16 = 2;

/// How long a header is. Records begin behind it.
pub(super) const HEADER_LEN: usize = 64;

const MAGIC: &[u8; 14] = b"peerage-store\0";

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// A journal of this format.
    Of(NodeId),
    /// A journal of a format that this version does not read.
    Format(u16),
    /// The bytes are no header, or a damaged one.
    Damaged,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else { return Self::Damaged };
        let format = u16::from_be_bytes([header[14], header[15]]);
        match header[..14] == MAGIC[..] && sum(&header[..56]) == header[56..] {
            true if format == FORMAT => {
                let node = header[16..48].try_into().expect("32 bytes were sliced");
                Self::Of(NodeId(node))
            }
            true => Self::Format(format),
            false => Self::Damaged,
        }
    }

    /// Whether a file begins as the journals of format 1 did, which had no checksum there.
    pub(super) fn is_of_format_1(bytes: &[u8]) -> bool {
        bytes.get(..14) == Some(MAGIC) && bytes.get(14..16) == Some(&[0, 1])
    }

    pub(super) fn bytes(node: &NodeId) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..14].copy_from_slice(MAGIC);
        header[14..16].copy_from_slice(&FORMAT.to_be_bytes());
        header[16..48].copy_from_slice(node.as_bytes());
        let sum = sum(&header[..56]);
        header[56..].copy_from_slice(&sum);
        header
    }
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    *Sha256::digest(bytes).first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_shows() {
        let node = NodeId([7; 32]);
        let header = Header::bytes(&node);
        assert_eq!(Header::parse(&header), Header::Of(node));
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&bytes), Header::Damaged, "bit {bit}");
        }
        assert_eq!(Header::parse(&header[..63]), Header::Damaged);
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut header = Header::bytes(&NodeId([7; 32]));
        header[15] = 3;
        let sum = sum(&header[..56]);
        header[56..].copy_from_slice(&sum);
        assert_eq!(Header::parse(&header), Header::Format(3));
    }
}
