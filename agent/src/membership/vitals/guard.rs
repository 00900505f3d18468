//! What a chitchat message must look like before chitchat sees it.
//!
//! chitchat trusts its peers: a digest that is too large makes it panic, node ids are kept as they
//! come, and a few bytes of compressed zeros become megabytes. A member can be broken or hostile,
//! so the outside of a message is walked here first, with nothing allocated.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peerage_proto::id::NodeId;

/// The longest message, in bytes: chitchat makes none that is longer.
pub const MESSAGE_MAX: usize = 65_507;

/// How many entries a digest may have, each of 69 bytes. With 949 entries or more chitchat's own
/// message would be longer than the longest message, and chitchat would panic.
pub(super) const DIGEST_ENTRIES_MAX: usize = 900;

/// How many entries of a digest may be of nodes that the roster does not name: newly admitted ones
/// that it will name soon, and removed ones that are forgotten after a quarter of an hour.
const STRANGERS_MAX: usize = 64;

/// How many blocks a delta may have; each becomes 64 KiB at most.
const BLOCKS_MAX: usize = 64;

/// The length of a node's id in chitchat: 16 hex digits.
pub(super) const SHORT_ID_LEN: usize = 16;

const MAGIC: [u8; 2] = 45_139_u16.to_le_bytes();
const PROTOCOL: u8 = 0;

/// Why a message was not passed on to chitchat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is not well-formed")]
    Malformed,
    #[error("it is longer than {MESSAGE_MAX} bytes")]
    TooLong,
    #[error("its digest names {0} nodes")]
    TooManyEntries(usize),
    #[error("its digest names more than {STRANGERS_MAX} nodes that the roster does not")]
    Strangers,
    #[error("its delta has more than {BLOCKS_MAX} blocks")]
    TooManyBlocks,
}

/// Walks the outside of a message. `members` are the addresses that stand for members.
pub(super) fn inspect(message: &[u8], members: &BTreeMap<SocketAddr, NodeId>) -> Result<(), Unfit> {
    if message.len() > MESSAGE_MAX {
        return Err(Unfit::TooLong);
    }
    let mut walk = Walk(message);
    if walk.bytes()? != MAGIC || walk.bytes()? != [PROTOCOL] {
        return Err(Unfit::Malformed);
    }
    match walk.bytes()? {
        [0] => {
            walk.digest(members)?;
            walk.text()?;
        }
        [1] => {
            walk.digest(members)?;
            walk.delta()?;
        }
        [2] => walk.delta()?,
        [3] => {}
        _ => return Err(Unfit::Malformed),
    }
    if walk.0.is_empty() { Ok(()) } else { Err(Unfit::Malformed) }
}

/// The bytes that are left.
struct Walk<'a>(&'a [u8]);

impl<'a> Walk<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unfit> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Unfit::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unfit> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn length(&mut self) -> Result<usize, Unfit> {
        self.bytes().map(u16::from_le_bytes).map(usize::from)
    }

    fn text(&mut self) -> Result<&'a [u8], Unfit> {
        let len = self.length()?;
        self.take(len)
    }

    fn digest(&mut self, members: &BTreeMap<SocketAddr, NodeId>) -> Result<(), Unfit> {
        let entries = self.length()?;
        if entries > DIGEST_ENTRIES_MAX {
            return Err(Unfit::TooManyEntries(entries));
        }
        let mut strangers = 0;
        for _ in 0..entries {
            let id = self.text()?;
            if id.len() != SHORT_ID_LEN || !id.iter().all(u8::is_ascii_hexdigit) {
                return Err(Unfit::Malformed);
            }
            let _generation = self.take(8)?;
            let ip: IpAddr = match self.bytes()? {
                [4] => Ipv4Addr::from(self.bytes::<4>()?).into(),
                [6] => Ipv6Addr::from(self.bytes::<16>()?).into(),
                _ => return Err(Unfit::Malformed),
            };
            let port = u16::from_le_bytes(self.bytes()?);
            let _heartbeat_and_versions = self.take(3 * 8)?;
            strangers += usize::from(!members.contains_key(&SocketAddr::new(ip, port)));
        }
        if strangers > STRANGERS_MAX { Err(Unfit::Strangers) } else { Ok(()) }
    }

    fn delta(&mut self) -> Result<(), Unfit> {
        for _ in 0..=BLOCKS_MAX {
            match self.bytes()? {
                [0] => return Ok(()),
                [1 | 2] => self.text()?,
                _ => return Err(Unfit::Malformed),
            };
        }
        Err(Unfit::TooManyBlocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(entries: u16) -> Vec<u8> {
        let mut message = [&MAGIC[..], &[PROTOCOL, 0]].concat();
        message.extend(entries.to_le_bytes());
        for entry in 0..entries {
            message.extend(16_u16.to_le_bytes());
            message.extend(format!("{entry:016x}").into_bytes());
            message.extend([0; 8]);
            message.extend([6]);
            message.extend([0xfd; 16]);
            message.extend([0; 2 + 24]);
        }
        message.extend([2, 0, b'd', b'c']);
        message
    }

    fn no_members() -> BTreeMap<SocketAddr, NodeId> {
        BTreeMap::new()
    }

    #[test]
    fn digests_are_bounded() {
        assert_eq!(inspect(&syn(64), &no_members()), Ok(()));
        assert_eq!(inspect(&syn(65), &no_members()), Err(Unfit::Strangers));
        assert_eq!(inspect(&syn(901), &no_members()), Err(Unfit::TooManyEntries(901)));
    }

    #[test]
    fn a_delta_of_many_small_blocks_is_refused() {
        let mut ack = [&MAGIC[..], &[PROTOCOL, 2]].concat();
        ack.extend([1, 1, 0, 7].repeat(BLOCKS_MAX));
        ack.push(0);
        assert_eq!(inspect(&ack, &no_members()), Ok(()));
        ack.splice(4..4, [1, 1, 0, 7]);
        assert_eq!(inspect(&ack, &no_members()), Err(Unfit::TooManyBlocks));
    }

    #[test]
    fn a_message_cut_short_or_too_long_is_refused() {
        let whole = syn(3);
        for len in 0..whole.len() {
            assert!(inspect(&whole[..len], &no_members()).is_err(), "{len} bytes");
        }
        assert_eq!(inspect(&vec![0; MESSAGE_MAX + 1], &no_members()), Err(Unfit::TooLong));
        let longer: Vec<u8> = whole.into_iter().chain([0]).collect();
        assert_eq!(inspect(&longer, &no_members()), Err(Unfit::Malformed));
    }
}
