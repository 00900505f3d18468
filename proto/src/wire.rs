//! What two nodes tell each other over QUIC before other modules take over: which protocol they
//! speak, which node each is, what a stream carries, and why a connection or a stream was closed.
//!
//! A connection between members starts with one exchange on the dialler's first stream: its
//! [`Hello`], and the acceptor's [`Answer`]. After that each stream starts with one byte, its
//! [`StreamKind`]. All this is read before the other side is trusted, so every field is bounded,
//! and a reader skips what it does not know.

mod detour;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::address::Address;
use crate::codec::{self, DecodeError};
use crate::id::DataCenterId;
use crate::replica::sync;
use crate::roster::ADDRESSES_MAX;

pub use detour::{DETOUR_PACKET_BYTES_MAX, Detour};

use detour::DETOUR_BYTES_MAX;

/// The application protocol (ALPN, RFC 7301) between members.
pub const ALPN_MEMBER: &[u8] = b"peerage/1";

/// The application protocol of a node that asks to be admitted, and of the seed's dial-back.
pub const ALPN_JOIN: &[u8] = b"peerage-join/1";

/// The version of the protocol between members. It grows with a change that an older node could not
/// follow. A field or a stream kind that an older node may ignore is no such change.
pub const WIRE_VERSION: u16 = 1;

/// The oldest [`WIRE_VERSION`] that this node still speaks.
pub const WIRE_VERSION_OLDEST: u16 = 1;

/// How long an encoded [`Hello`] or [`Answer`] may be.
pub const HELLO_BYTES_MAX: usize = 64 * 1024;

/// How long a node's name in a hello may be.
pub const NAME_BYTES_MAX: usize = 255;

/// How long [`Hello::machine`] may be.
pub const MACHINE_BYTES_MAX: usize = 64;

/// How long the digest of a replica may be.
pub const DIGEST_BYTES_MAX: usize = 64;

/// How long a version of an agent may be, in bytes.
pub const VERSION_BYTES_MAX: usize = 64;

/// How long the message of a refusal or of a close may be; a longer one is cut.
pub const MESSAGE_BYTES_MAX: usize = 512;

/// What each side of a connection between members says first. The sender's id is not in it: the
/// connection's key tells the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`WIRE_VERSION`].
    #[serde(rename = "v")]
    pub wire_version: u16,
    /// The Data Center that the sender is a member of.
    #[serde(rename = "dc")]
    pub datacenter: DataCenterId,
    /// The sender's name as it knows it, at most [`NAME_BYTES_MAX`]; for people.
    #[serde(rename = "n", default)]
    pub name: String,
    /// Grows with every start of the sender's agent: a higher one is a restart.
    #[serde(rename = "b")]
    pub boot: u64,
    /// The sender's wall clock in milliseconds since 1970-01-01 UTC.
    #[serde(rename = "w")]
    pub wall_ms: u64,
    /// Where the sender can be reached, at most [`ADDRESSES_MAX`].
    #[serde(rename = "a", default)]
    pub addresses: Vec<Address>,
    /// Signed changes that prove the sender's membership to a node that has not heard of it yet.
    #[serde(rename = "p", default)]
    pub proof: Vec<ByteBuf>,
    /// The name of an older connection that the dialler gives up for this one. Each end derives
    /// this name from the secrets of the older connection. Only a dialler's hello has it.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<u64>,
    /// Whether the sender serves [`StreamKind::Detour`].
    #[serde(rename = "d", default)]
    pub carries: bool,
    /// A number that the sender's agent drew at random when it started. It tells two hosts with one
    /// key apart. `None` from a version that does not send it.
    #[serde(rename = "i", default)]
    pub instance: Option<u64>,
    /// Which machine the sender runs on, as far as it can tell: a keyed hash of the host's machine
    /// id, different in each Data Center. At most [`MACHINE_BYTES_MAX`].
    #[serde(rename = "m", default)]
    pub machine: Option<ByteBuf>,
    /// Whether the sender only asks which node is there, and closes the connection after the
    /// answer.
    #[serde(rename = "l", default)]
    pub only_looks: bool,
    /// The digest of the sender's replica, at most [`DIGEST_BYTES_MAX`]. A node with the same
    /// digest has nothing to catch up with. A version before this field does not send it.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version of the sender's agent, at most [`VERSION_BYTES_MAX`]; for people. A version
    /// before this field does not send it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One start of an agent. If two agents with one key are alive at once, the one that started later
/// has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// Its boot number.
    pub boot: u64,
    /// Decides which start is the later one where two have the same boot number.
    pub instance: u64,
}

impl Hello {
    /// Which start of the sender's agent sent this; `None` from a version that does not tell.
    pub fn start(&self) -> Option<Start> {
        self.instance.map(|instance| Start { boot: self.boot, instance })
    }

    /// The hello's binary form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content and length, and for a field over its bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: Self = codec::decode(bytes, HELLO_BYTES_MAX)?;
        hello.check()?;
        Ok(hello)
    }

    fn check(&self) -> Result<(), DecodeError> {
        within(self.name.len(), NAME_BYTES_MAX)?;
        within(self.machine.as_ref().map_or(0, |m| m.len()), MACHINE_BYTES_MAX)?;
        within(self.addresses.len(), ADDRESSES_MAX)?;
        within(self.digest.as_ref().map_or(0, String::len), DIGEST_BYTES_MAX)?;
        within(self.version.as_ref().map_or(0, String::len), VERSION_BYTES_MAX)
    }
}

/// What the acceptor of a connection answers to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The acceptor welcomes the dialler and introduces itself.
    #[serde(rename = "hello")]
    Hello(Hello),
    /// The acceptor refuses, and closes the connection next.
    #[serde(rename = "refusal")]
    Refusal(Refusal),
}

impl Answer {
    /// The answer's binary form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an answer; a refusal's message is cut to its bound.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content and length, and for a field over its bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut answer: Self = codec::decode(bytes, HELLO_BYTES_MAX)?;
        match &mut answer {
            Self::Hello(hello) => hello.check()?,
            Self::Refusal(refusal) => refusal.message.truncate(cut(&refusal.message).len()),
        }
        Ok(answer)
    }
}

/// Why a node is not let in: a message for its operator, and evidence for its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The cause.
    #[serde(rename = "c")]
    pub code: RefusalCode,
    /// What happened and what to do, at most [`MESSAGE_BYTES_MAX`]; for people.
    #[serde(rename = "m", default)]
    pub message: String,
    /// Signed changes that show the cause, such as the removal of the refused node.
    #[serde(rename = "e", default)]
    pub evidence: Vec<ByteBuf>,
}

impl Refusal {
    /// A refusal without evidence; a message longer than [`MESSAGE_BYTES_MAX`] is cut.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(cut(&message).len());
        Self { code, message, evidence: Vec::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "{}", self.code)
        } else {
            f.write_str(&self.message)
        }
    }
}

macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident: $number:ty, $unknown:literal;
        $($(#[$entry_doc:meta])* $entry:ident = $value:literal, $words:literal;)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "u64", into = "u64")]
        pub enum $name {
            $($(#[$entry_doc])* $entry,)*
            #[doc = $unknown]
            Other($number),
        }

        impl $name {
            /// The number on the wire.
            pub const fn number(self) -> $number {
                match self {
                    $(Self::$entry => $value,)*
                    Self::Other(number) => number,
                }
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                match number {
                    $($value => Self::$entry,)*
                    other => Self::Other(<$number>::try_from(other).unwrap_or(<$number>::MAX)),
                }
            }
        }

        impl From<$name> for u64 {
            fn from(code: $name) -> Self {
                Self::from(code.number())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$entry => f.write_str($words),)*
                    Self::Other(number) => write!(f, "for a reason unknown here ({number})"),
                }
            }
        }
    };
}

codes! {
    /// The cause of a [`Refusal`].
    RefusalCode: u32, "A cause that only a newer version knows.";
    /// The other side is in another Data Center.
    WrongDataCenter = 1, "a member of another Data Center";
    /// The other side has not heard of this node.
    NotMember = 2, "not a member";
    /// This node was removed.
    Removed = 3, "removed from the Data Center";
    /// This node left.
    Left = 4, "left the Data Center";
    /// The two nodes share no version of the protocol.
    Version = 5, "of a version that cannot be spoken with";
    /// The other side is in no Data Center.
    Standalone = 6, "asking a node that is in no Data Center";
    /// Another live host has the same key.
    DuplicateIdentity = 7, "another host with the same identity is alive";
    /// The other side has no room now; try later.
    Busy = 8, "too busy, try later";
    /// The bytes that were sent are no well-formed hello.
    Malformed = 9, "not understood";
}

codes! {
    /// Why a connection was closed.
    CloseCode: u32, "A reason that only a newer version knows.";
    /// No reason was given. QUIC closes a connection with this code when no part of the agent holds
    /// it any more, such as a dial that was given up. It tells nothing about the node.
    Dropped = 0, "given up";
    /// The hello was refused.
    Refused = 1, "refused";
    /// The two nodes have a better connection.
    Duplicate = 2, "superseded by another connection of the two";
    /// The peer restarted, and has a new connection.
    Replaced = 3, "superseded by a connection of a later start";
    /// The peer sent something that does not follow the protocol.
    Protocol = 4, "the protocol was not followed";
    /// The hello or the answer did not come in time.
    TooSlow = 5, "the answer did not come in time";
    /// The peer took less than was to be sent to it, so that the outbox was full.
    Overrun = 6, "the peer takes less than is sent to it";
    /// The node leaves the Data Center.
    Leaving = 7, "the node leaves the Data Center";
    /// The peer was removed from the Data Center.
    Removed = 8, "the peer was removed";
    /// The purpose of the connection is fulfilled.
    Done = 9, "done";
    /// The node has no room for another connection.
    Busy = 10, "too many connections";
    /// The agent stops.
    Shutdown = 11, "the agent stops";
}

codes! {
    /// Why a stream was reset or stopped, while its connection goes on.
    StreamCode: u32, "A reason that only a newer version knows.";
    /// The node does not know the stream kind, or does not serve it.
    UnknownKind = 1, "of a kind that is not served";
    /// A message or frame is over its bound.
    TooLong = 2, "longer than allowed";
    /// The part of the agent that serves the kind has no room now.
    Busy = 3, "too busy, try later";
    /// The stream took too long.
    TooSlow = 4, "too slow";
}

/// What a stream carries. It is told by the first byte of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// One chitchat message on a stream of its own, one way.
    Chitchat,
    /// The digest of the sender's replica, as text on a stream of its own, one way.
    Digest,
    /// Frames, in order, for as long as the connection lives, one way: changes and receipts.
    Push,
    /// One message about a detour on a stream of its own, one way: a [`Detour`].
    Detour,
    /// Bytes without a meaning, one way. Whether they arrive shows which size of packets the path
    /// takes. No node serves this kind: the receiver stops the stream, and that shows the sender
    /// that it arrived.
    Trial,
    /// A session of anti-entropy, both ways.
    Sync,
    /// A question how often an invitation was used, both ways.
    InviteUses,
    /// The two nodes read each other's clocks, both ways. An answer also shows that the peer is
    /// alive.
    Clock,
}

impl StreamKind {
    /// All kinds that this version knows.
    pub const ALL: [Self; 8] = [
        Self::Chitchat,
        Self::Push,
        Self::Detour,
        Self::Digest,
        Self::Trial,
        Self::Sync,
        Self::InviteUses,
        Self::Clock,
    ];

    /// The byte on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Chitchat => 1,
            Self::Push => 2,
            Self::Detour => 3,
            Self::Digest => 4,
            Self::Trial => 5,
            Self::Sync => 16,
            Self::InviteUses => 17,
            Self::Clock => 18,
        }
    }

    /// The kind that a byte stands for; `None` for a kind that this version does not know.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }

    /// How long one message or frame on a stream of this kind may be.
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Self::Chitchat => 64 * 1024,
            Self::Digest => DIGEST_BYTES_MAX,
            Self::Push | Self::Sync => sync::FRAME_BYTES_MAX,
            Self::Detour => DETOUR_BYTES_MAX,
            Self::Trial | Self::InviteUses => 4 * 1024,
            Self::Clock => 256,
        }
    }
}

/// The message in both directions of a [`StreamKind::Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// The sender's wall clock in milliseconds since 1970-01-01 UTC, read just before it was sent.
    #[serde(rename = "w")]
    pub wall_ms: u64,
}

impl ClockReading {
    /// The binary form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// [`DecodeError`], for bytes of any content.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, StreamKind::Clock.frame_bytes_max())
    }
}

fn within(found: usize, bound: usize) -> Result<(), DecodeError> {
    if found > bound { Err(DecodeError::TooLong { found, bound }) } else { Ok(()) }
}

/// The start of a text, at most [`MESSAGE_BYTES_MAX`] of it, cut at a character's edge.
pub fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::address::tests::address;

    fn hello() -> impl Strategy<Value = Hello> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..64).prop_map(ByteBuf::from);
        (
            any::<(u16, [u8; 16], u64, u64)>(),
            "[a-z0-9é-]{0,40}",
            prop::collection::vec(address(), 0..=ADDRESSES_MAX),
            prop::collection::vec(bytes(), 0..4),
            any::<(Option<u64>, Option<[u8; 16]>, bool)>(),
        )
            .prop_map(
                |((wire_version, dc, boot, wall_ms), name, addresses, proof, who)| {
                    let (instance, machine, only_looks) = who;
                    Hello {
                        wire_version,
                        datacenter: DataCenterId(dc),
                        name,
                        boot,
                        wall_ms,
                        addresses,
                        proof,
                        supersedes: boot.is_multiple_of(2).then_some(wall_ms),
                        carries: boot.is_multiple_of(3),
                        instance,
                        machine: machine.map(|m| ByteBuf::from(m.to_vec())),
                        only_looks,
                        digest: boot.is_multiple_of(5).then(|| format!("{wall_ms:016x}")),
                        version: boot.is_multiple_of(7).then(|| format!("0.{wall_ms}.0")),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_hello_and_its_answers_read_back(hello in hello(), code in any::<u32>()) {
            prop_assert_eq!(&Hello::decode(&hello.encode()).unwrap(), &hello);
            let refusal = Answer::Refusal(Refusal {
                code: RefusalCode::from(u64::from(code % 16)),
                message: "no".into(),
                evidence: hello.proof.clone(),
            });
            for answer in [Answer::Hello(hello), refusal] {
                prop_assert_eq!(&Answer::decode(&answer.encode()).unwrap(), &answer);
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = Hello::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let _ = ClockReading::decode(&bytes);
        }

        #[test]
        fn a_damaged_hello_does_no_harm(hello in hello(), at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = hello.encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Hello::decode(&bytes);
        }

        #[test]
        fn every_code_keeps_its_number(number in any::<u32>()) {
            let wide = u64::from(number);
            prop_assert_eq!(RefusalCode::from(wide).number(), number);
            prop_assert_eq!(CloseCode::from(wide).number(), number);
            prop_assert_eq!(StreamCode::from(wide).number(), number);
        }
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped_and_missing_ones_filled() {
        let newer = json!({"v": 2, "dc": [], "b": 7, "w": 9, "zz": {"new": [1, 2]}});
        let mut newer = newer.as_object().unwrap().clone();
        newer.remove("dc");
        #[derive(Serialize)]
        struct Newer {
            dc: DataCenterId,
            #[serde(flatten)]
            rest: serde_json::Map<String, serde_json::Value>,
        }
        let bytes = codec::encode(&Newer { dc: DataCenterId([5; 16]), rest: newer });
        let hello = Hello::decode(&bytes).unwrap();
        assert_eq!((hello.wire_version, hello.boot, hello.wall_ms), (2, 7, 9));
        assert_eq!(hello.datacenter, DataCenterId([5; 16]));
        assert!(
            !hello.carries
                && hello.addresses.is_empty()
                && hello.proof.is_empty()
                && hello.name.is_empty()
        );
        assert_eq!((hello.start(), hello.machine, hello.only_looks), (None, None, false));
        assert_eq!((hello.digest, hello.version), (None, None));
    }

    #[test]
    fn what_is_over_its_bound_is_refused_or_cut() {
        let mut hello = Hello {
            wire_version: 1,
            datacenter: DataCenterId([1; 16]),
            name: String::new(),
            boot: 1,
            wall_ms: 1,
            addresses: Vec::new(),
            proof: Vec::new(),
            supersedes: None,
            carries: false,
            instance: None,
            machine: Some(ByteBuf::from(vec![0; MACHINE_BYTES_MAX + 1])),
            only_looks: false,
            digest: None,
            version: None,
        };
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        hello.machine = None;
        hello.name = "n".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        hello.name.clear();
        hello.addresses = vec!["127.0.0.1:1".parse().unwrap(); ADDRESSES_MAX + 1];
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        hello.addresses.clear();
        hello.digest = Some("0".repeat(DIGEST_BYTES_MAX + 1));
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        hello.digest = None;
        hello.version = Some("1".repeat(VERSION_BYTES_MAX + 1));
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        hello.version = None;
        hello.proof = vec![ByteBuf::from(vec![0; HELLO_BYTES_MAX])];
        assert!(matches!(Hello::decode(&hello.encode()), Err(DecodeError::TooLong { .. })));
        // 'é' has two bytes, so the bound falls inside a character.
        let long = Refusal::new(RefusalCode::Removed, format!("x{}", "é".repeat(400)));
        assert_eq!(long.message.len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn every_stream_kind_has_a_byte_of_its_own() {
        for kind in StreamKind::ALL {
            assert_eq!(StreamKind::from_byte(kind.byte()), Some(kind));
            assert!(kind.frame_bytes_max() <= sync::FRAME_BYTES_MAX);
        }
        assert_eq!(StreamKind::from_byte(0), None);
    }
}
