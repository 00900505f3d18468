//! What the mesh tells of itself: events, the peers it holds, and counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use peerage_proto::wire::{CloseCode, Hello};

use super::dial::DialError;
use super::path::Path;

/// What happened to a peer. The events of one peer come in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// A first connection, or the first since the peer restarted.
    Connected {
        /// Who.
        peer: NodeId,
        /// What it said of itself.
        hello: Arc<Hello>,
    },
    /// A connection took the place of another one, of the same start of the peer.
    Moved {
        /// Who.
        peer: NodeId,
        /// How it was reached.
        from: Path,
        /// How it is reached now.
        to: Path,
        /// Whether the former path did not answer, or let nothing large through. What was sent on
        /// it lately may be lost.
        lossy: bool,
    },
    /// The peer answers, but nothing large gets through to it. Large data is held back until
    /// something large arrives again.
    Stalled {
        /// Who.
        peer: NodeId,
    },
    /// Large data gets through again. Frames that were pushed meanwhile, and shortly before, may be
    /// lost. If large data was held back for a moment only, no [`Event::Stalled`] came before.
    Released {
        /// Who.
        peer: NodeId,
    },
    /// The last connection ended.
    Disconnected {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: DisconnectReason,
    },
    /// The host of a peer, or of a node that is being dialled, answered that nobody listens at its
    /// port. That answer may be forged, or the agent there may just be starting again.
    Refused {
        /// Who.
        peer: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// A dial failed; the next waits for its backoff.
    Unreachable {
        /// Who.
        peer: NodeId,
        /// Where it was looked for.
        addresses: Vec<Address>,
        /// Why it failed.
        error: DialError,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The peer closed it.
    #[error("closed by the peer: {code} {message:?}")]
    ByPeer {
        /// The peer's code.
        code: CloseCode,
        /// The peer's words.
        message: String,
    },
    /// This node closed it.
    #[error("closed here: {code} {message:?}")]
    Here {
        /// The code.
        code: CloseCode,
        /// The words.
        message: String,
    },
    /// Nothing was sent for [`super::IDLE_TIMEOUT`], or nothing of it arrived.
    #[error("silent for too long")]
    Silent,
    /// The peer's host says that it does not know the connection: the agent there restarted.
    #[error("the peer restarted")]
    Reset,
    /// Anything else, such as a violation of QUIC.
    #[error("{0}")]
    Failed(String),
}

/// A peer as it is now.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who.
    pub peer: NodeId,
    /// How it is reached.
    pub path: Path,
    /// Whether it does not answer on this path; others are tried.
    pub doubted: bool,
    /// Which address of this host it dialled; `None` where this node dialled, or the kernel does
    /// not say.
    pub local: Option<IpAddr>,
    /// QUIC's estimate of the round trip on this path.
    pub rtt: Duration,
    /// How long the connection has been there.
    pub age: Duration,
    /// The boot number of its hello.
    pub boot: u64,
    /// What it said of itself.
    pub hello: Arc<Hello>,
    /// How far its wall clock was ahead of ours when the connection began; `None` where the hellos
    /// were kept waiting, and their clocks cannot be compared.
    pub clock_ahead_ms: Option<i64>,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Bytes of frames that wait to be sent.
    pub outbox_bytes: usize,
    /// For how long nothing large gets through although the peer answers; `None` if large data gets
    /// through, or if that is not certain yet.
    pub stalled: Option<Duration>,
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a running mesh.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        /// All that the mesh counted since it started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn totals(&self) -> Totals {
                Totals { $($name: self.$name.value(),)* }
            }
        }

        impl Totals {
            /// Each counter with its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Bytes of UDP payload received on connections with members.
    bytes_in,
    /// Bytes of UDP payload sent on connections with members.
    bytes_out,
    /// Connections with members that passed the hello.
    connections,
    /// Connections of members that another one superseded.
    duplicates,
    /// Handshakes that others began with this node.
    handshakes_in,
    /// Handshakes that were turned away unread: too many at once or too fast.
    handshakes_shed,
    /// Peers that were refused at the hello by this node.
    refused,
    /// Dials that this node began, including dials to find a better path.
    dials,
    /// Dials that failed.
    dials_failed,
    /// Times when what was sent to a peer was not answered for so long that other paths were tried.
    doubts,
    /// Times when nothing large got through to a peer that answered, and large data was held back.
    stalls,
    /// Packets carried for others, from one peer to another.
    carried,
    /// Packets of detours dropped here: too many or too fast.
    carried_dropped,
    /// Datagrams received.
    datagrams_in,
    /// Datagrams sent.
    datagrams_out,
    /// Datagrams dropped here: nobody had room, the peer was out of reach, or too large.
    datagrams_dropped,
    /// Messages received.
    messages_in,
    /// Messages begun to be sent.
    messages_out,
    /// Messages dropped here: nobody had room, or the peer was slow or out of reach.
    messages_dropped,
    /// Frames received.
    frames_in,
    /// Frames queued to be sent.
    frames_out,
    /// Frames dropped here: the connection ended, large data was held back, or the peer was slow or
    /// out of reach.
    frames_dropped,
    /// Connections closed because the peer took less than was sent to it.
    overruns,
    /// Sessions that peers opened.
    sessions_in,
    /// Sessions of peers refused because nobody had room.
    sessions_refused,
    /// Sessions opened.
    sessions_out,
    /// Connections on the join protocol that were handed over.
    joins_in,
}
