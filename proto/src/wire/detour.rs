//! A detour: two nodes that cannot reach each other send packets through a third node that reaches
//! both.
//!
//! The third node carries packets of a QUIC connection of the two, so it can neither read nor
//! change what they say. It carries them only between peers that it is directly connected with, so
//! that no packet goes round in circles. Each message is one byte that tells its kind, the id of a
//! node, and the packet as it is.

use crate::codec::DecodeError;
use crate::id::NodeId;

/// How long a packet on a detour may be: the size that QUIC requires of every path, and no more.
pub const DETOUR_PACKET_BYTES_MAX: usize = 1200;

/// How long a message about a detour may be.
pub(super) const DETOUR_BYTES_MAX: usize = HEAD_BYTES + DETOUR_PACKET_BYTES_MAX;

const HEAD_BYTES: usize = 1 + size_of::<NodeId>();

const CARRY: u8 = 1;
const CARRIED: u8 = 2;
const CANNOT: u8 = 3;

/// A message about a detour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detour<'a> {
    /// The sender asks the third node to carry a packet on.
    Carry {
        /// The node that the packet is for.
        to: NodeId,
        /// The packet; at most [`DETOUR_PACKET_BYTES_MAX`].
        packet: &'a [u8],
    },
    /// The third node delivers a packet that it was asked to carry.
    Carried {
        /// The node that sent the packet, as the third node knows by its connection with that node.
        from: NodeId,
        /// The packet; at most [`DETOUR_PACKET_BYTES_MAX`].
        packet: &'a [u8],
    },
    /// The third node says that it has no direct connection with the node that a packet is for.
    Cannot {
        /// The node that the packet is for.
        to: NodeId,
    },
}

impl<'a> Detour<'a> {
    /// The message's binary form.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, node, packet): (u8, &NodeId, &[u8]) = match self {
            Self::Carry { to, packet } => (CARRY, to, packet),
            Self::Carried { from, packet } => (CARRIED, from, packet),
            Self::Cannot { to } => (CANNOT, to, &[]),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + packet.len());
        bytes.push(kind);
        bytes.extend_from_slice(&node.0);
        bytes.extend_from_slice(packet);
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content and length, and for a message that only a newer
    /// version knows.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        super::within(bytes.len(), DETOUR_BYTES_MAX)?;
        let malformed = |what: &str| DecodeError::Malformed(what.to_owned());
        let (kind, rest) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
        let (node, packet) = rest.split_first_chunk().ok_or_else(|| malformed("cut short"))?;
        let node = NodeId(*node);
        match *kind {
            CARRY => Ok(Self::Carry { to: node, packet }),
            CARRIED => Ok(Self::Carried { from: node, packet }),
            // A newer version may add to this message; this version ignores that.
            CANNOT => Ok(Self::Cannot { to: node }),
            _ => Err(malformed("of an unknown kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_on_the_wire_stay_as_they_are() {
        let node = NodeId([7; 32]);
        let carry = Detour::Carry { to: node, packet: b"ab" }.encode();
        assert_eq!(carry, [[1].as_slice(), &[7; 32], b"ab"].concat());
        let carried = Detour::Carried { from: node, packet: b"" }.encode();
        assert_eq!(carried, [[2].as_slice(), &[7; 32]].concat());
        assert_eq!(Detour::Cannot { to: node }.encode(), [[3].as_slice(), &[7; 32]].concat());
    }

    proptest! {
        #[test]
        fn every_message_reads_back(
            node in any::<[u8; 32]>(),
            packet in prop::collection::vec(any::<u8>(), 0..=DETOUR_PACKET_BYTES_MAX),
        ) {
            let (node, packet) = (NodeId(node), &packet[..]);
            for message in [
                Detour::Carry { to: node, packet },
                Detour::Carried { from: node, packet },
                Detour::Cannot { to: node },
            ] {
                let bytes = message.encode();
                prop_assert_eq!(Detour::decode(&bytes), Ok(message));
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(message) = Detour::decode(&bytes) {
                prop_assert!(bytes.len() <= DETOUR_BYTES_MAX);
                prop_assert!(message.encode().len() <= bytes.len());
            }
        }
    }
}
