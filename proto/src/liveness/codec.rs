//! The binary form of a liveness datagram: a version, a header, and what is told of others.
//!
//! All parts have a fixed size, so a datagram is checked wholly before foca sees a byte of it, and
//! what is told of strangers is cut out without touching the rest.
//!
//! ```text
//! version 1 | src 44 | incarnation 2 | dst 44 | kind 1 [| life 44] [| probe 1] [| count 2 | member 47 ...]
//! ```

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::identity::Life;
use crate::id::NodeId;

/// The first byte of a datagram. Another one is a version that this agent does not speak.
pub(super) const VERSION: u8 = 1;

/// The longest datagram, in bytes: fits into a QUIC datagram at the smallest path MTU of 1200.
pub const DATAGRAM_MAX: usize = 1100;

const LIFE_LEN: usize = NodeId::LEN + 8 + 4;
const MEMBER_LEN: usize = LIFE_LEN + 2 + 1;
const COUNT_LEN: usize = 2;

/// The bytes are not a liveness datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a liveness datagram")]
pub(super) struct Malformed;

/// A datagram taken apart.
pub(super) struct Opened<'a> {
    pub(super) header: Header<Life>,
    /// The header as it came.
    header_bytes: &'a [u8],
    /// What is told of others, each [`MEMBER_LEN`] long.
    pub(super) members: Vec<(Member<Life>, &'a [u8])>,
}

impl<'a> Opened<'a> {
    /// Takes a datagram apart; nothing may be missing and nothing left over.
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (&version, body) = datagram.split_first().ok_or(Malformed)?;
        if version != VERSION || datagram.len() > DATAGRAM_MAX {
            return Err(Malformed);
        }
        let mut rest = body;
        let header = Wire.decode_header(&mut rest)?;
        let header_bytes = &body[..body.len() - rest.len()];
        let mut members = Vec::new();
        if rest.has_remaining() {
            let bare = matches!(header.message, Message::Announce | Message::TurnUndead);
            let count = usize::from(rest.try_get_u16().map_err(|_| Malformed)?);
            if bare || rest.len() != count * MEMBER_LEN {
                return Err(Malformed);
            }
            for mut bytes in rest.chunks_exact(MEMBER_LEN) {
                let whole = bytes;
                members.push((Wire.decode_member(&mut bytes)?, whole));
            }
        }
        Ok(Self { header, header_bytes, members })
    }

    /// The datagram as foca reads it, without the members that `keep` refuses.
    pub(super) fn filtered(&self, keep: impl Fn(&Member<Life>) -> bool) -> Vec<u8> {
        let kept: Vec<_> = self.members.iter().filter(|(member, _)| keep(member)).collect();
        let mut bytes =
            Vec::with_capacity(self.header_bytes.len() + COUNT_LEN + kept.len() * MEMBER_LEN);
        bytes.put_slice(self.header_bytes);
        if !kept.is_empty() {
            bytes.put_u16(u16::try_from(kept.len()).expect("bounded by DATAGRAM_MAX"));
            for (_, member) in kept {
                bytes.put_slice(member);
            }
        }
        bytes
    }
}

/// Whether a datagram of ours looks for members or spreads news. Such a datagram serves as well if
/// it goes to another member, or a moment later; a probe or an answer does not.
pub fn can_wait(datagram: &[u8]) -> bool {
    const KIND_AT: usize = 1 + LIFE_LEN + 2 + LIFE_LEN;
    matches!(datagram.get(KIND_AT), Some(6..=8))
}

/// A datagram of ours, with the version in front.
pub(super) fn sealed(foca_bytes: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(1 + foca_bytes.len());
    datagram.put_u8(VERSION);
    datagram.put_slice(foca_bytes);
    datagram
}

/// A datagram that foca did not compose: it tells the state of one node, or nothing.
pub(super) fn composed(header: &Header<Life>, tells: Option<&Member<Life>>) -> Vec<u8> {
    let mut datagram = vec![VERSION];
    Wire.encode_header(header, &mut datagram).expect("a Vec has room");
    if let Some(member) = tells {
        datagram.put_u16(1);
        Wire.encode_member(member, &mut datagram).expect("a Vec has room");
    }
    datagram
}

/// The codec that foca uses.
pub(super) struct Wire;

impl Codec<Life> for Wire {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Life>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        if buf.remaining_mut() < 3 * LIFE_LEN + 2 + 1 + 1 {
            return Err(Malformed);
        }
        put_life(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_life(&header.dst, &mut buf);
        let mut about = |kind: u8, life: Option<&Life>, probe: Option<u8>| {
            buf.put_u8(kind);
            if let Some(life) = life {
                put_life(life, &mut buf);
            }
            if let Some(probe) = probe {
                buf.put_u8(probe);
            }
        };
        match &header.message {
            Message::Ping(n) => about(0, None, Some(*n)),
            Message::Ack(n) => about(1, None, Some(*n)),
            Message::PingReq { target, probe_number } => {
                about(2, Some(target), Some(*probe_number))
            }
            Message::IndirectPing { origin, probe_number } => {
                about(3, Some(origin), Some(*probe_number));
            }
            Message::IndirectAck { target, probe_number } => {
                about(4, Some(target), Some(*probe_number));
            }
            Message::ForwardedAck { origin, probe_number } => {
                about(5, Some(origin), Some(*probe_number));
            }
            Message::Announce => about(6, None, None),
            Message::Feed => about(7, None, None),
            Message::Gossip => about(8, None, None),
            Message::TurnUndead => about(9, None, None),
            Message::Broadcast => return Err(Malformed),
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Life>, Malformed> {
        let src = take_life(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| Malformed)?;
        let dst = take_life(&mut buf)?;
        let kind = take_u8(&mut buf)?;
        let message = match kind {
            0 => Message::Ping(take_u8(&mut buf)?),
            1 => Message::Ack(take_u8(&mut buf)?),
            2..=5 => {
                let life = take_life(&mut buf)?;
                let probe_number = take_u8(&mut buf)?;
                match kind {
                    2 => Message::PingReq { target: life, probe_number },
                    3 => Message::IndirectPing { origin: life, probe_number },
                    4 => Message::IndirectAck { target: life, probe_number },
                    _ => Message::ForwardedAck { origin: life, probe_number },
                }
            }
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::TurnUndead,
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Life>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        if buf.remaining_mut() < MEMBER_LEN {
            return Err(Malformed);
        }
        put_life(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Life>, Malformed> {
        let life = take_life(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(|_| Malformed)?;
        let state = match take_u8(&mut buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(life, incarnation, state))
    }
}

fn put_life(life: &Life, buf: &mut impl BufMut) {
    buf.put_slice(life.node.as_bytes());
    buf.put_u64(life.boot);
    buf.put_u32(life.renewal);
}

fn take_life(buf: &mut impl Buf) -> Result<Life, Malformed> {
    let mut node = [0; NodeId::LEN];
    buf.try_copy_to_slice(&mut node).map_err(|_| Malformed)?;
    Ok(Life {
        node: NodeId(node),
        boot: buf.try_get_u64().map_err(|_| Malformed)?,
        renewal: buf.try_get_u32().map_err(|_| Malformed)?,
    })
}

fn take_u8(buf: &mut impl Buf) -> Result<u8, Malformed> {
    buf.try_get_u8().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(byte: u8) -> Life {
        Life { node: NodeId([byte; 32]), boot: 7, renewal: 1 }
    }

    #[test]
    fn what_is_told_reads_back_and_strangers_are_cut_out() {
        let header = Header {
            src: life(1),
            src_incarnation: 3,
            dst: life(2),
            message: Message::PingReq { target: life(3), probe_number: 9 },
        };
        let datagram = composed(&header, Some(&Member::new(life(4), 5, State::Suspect)));
        let opened = Opened::parse(&datagram).unwrap();
        assert_eq!(opened.header, header);
        assert_eq!(opened.members[0].0, Member::new(life(4), 5, State::Suspect));
        assert_eq!(opened.filtered(|_| true), datagram[1..]);
        assert_eq!(
            opened.filtered(|_| false),
            datagram[1..datagram.len() - COUNT_LEN - MEMBER_LEN]
        );
    }

    #[test]
    fn a_cut_or_a_longer_datagram_is_refused() {
        let header =
            Header { src: life(1), src_incarnation: 0, dst: life(2), message: Message::Ping(1) };
        let datagram = composed(&header, Some(&Member::alive(life(3))));
        // A datagram that ends after the header is whole, too.
        let bare = datagram.len() - COUNT_LEN - MEMBER_LEN;
        for len in (0..datagram.len()).filter(|len| *len != bare) {
            assert!(Opened::parse(&datagram[..len]).is_err(), "{len} bytes");
        }
        let longer: Vec<u8> = datagram.iter().copied().chain([0]).collect();
        assert!(Opened::parse(&longer).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            let mut bytes = bytes;
            let _ = Opened::parse(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Opened::parse(&bytes);
        }
    }
}
