//! The QUIC mesh: authenticated connections with the members of the Data Center, over one UDP port.
//!
//! What it promises: both ends of a connection are who their keys say, and both passed the
//! [`Gate`]; each member has at most one connection that counts, dialled when it is first needed
//! and forgotten when it was silent for [`IDLE_TIMEOUT`]; an idle connection wakes nobody; nothing
//! that is sent waits without a bound, and no peer can hold up what is sent to another. A path that
//! does not answer what is sent on it is left for another within two seconds: another address of
//! the peer, or else a detour through a member that reaches both; and when a better one answers
//! again, the connection moves back.
//!
//! The parts: [`Underlay`] is the socket, real or simulated; `tls` makes keys into identities;
//! `hello` asks the gate; `pool` owns who is connected, `succession` which of two connections
//! counts; `door` has places for those who have not shown who they are, and `accept` sees to them;
//! `peer` is what leaves by a connection, [`Router`] where what arrives goes; `stall` sees that
//! nothing large arrives, `gauge` looks into QUIC for it, and `bulk` holds it back; `ways` are the
//! addresses of a node, `doubt` sees that one does not answer, for which `patience` is the time and
//! `watch` what is known, `tending` changes it, `detour` and `relay` lead through others.

mod accept;
mod asking;
mod bulk;
mod detour;
mod dial;
mod door;
mod doubt;
mod endpoint;
mod frames;
mod gauge;
mod hello;
mod meeting;
mod outbox;
mod path;
mod patience;
mod peer;
mod pool;
mod precedence;
mod refusing;
mod relay;
mod report;
mod router;
mod socket;
mod stall;
mod succession;
mod tending;
#[cfg(test)]
mod tests;
mod timer;
mod tls;
mod unsent;
mod waiting;
mod watch;
mod ways;
mod width;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::broadcast;

use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::links::NAMES_MAX;
use peerage_proto::wire::{ALPN_JOIN, CloseCode, StreamKind};

pub use asking::{AskError, write_answer};
pub use dial::{Addresses, DialError};
pub use door::JoinDoor;
pub use endpoint::{Bind, ConnectionIds, IDLE_TIMEOUT, Underlay};
pub use frames::{FrameError, read_frame, write_frame};
pub use hello::{Closed, Gate, Verdict};
pub use outbox::OUTBOX_BYTES_MAX;
pub use path::Path;
pub use report::{DisconnectReason, Event, PeerStatus, Totals};
pub use router::{Datagram, Frame, IncomingJoin, Message, Router, Session};
pub use socket::Refusals;
pub use timer::QuicRuntime;
pub use tls::joining_binding;
pub use ways::Places;
pub use width::{narrowness, too_narrow};

use detour::DetourSocket;
use dial::Dialler;
use pool::Pool;
use tls::Identity;
use waiting::Outgoing;

use crate::resolver::Resolver;

/// Events that a listener may be behind before it misses the oldest.
const EVENTS_MAX: usize = 1024;

/// How long [`Mesh::shutdown`] waits for the closes to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// A handle of the mesh; clones share it. The mesh runs until [`Mesh::shutdown`].
#[derive(Clone)]
pub struct Mesh {
    pool: Arc<Pool>,
}

impl Mesh {
    /// Starts the mesh: it accepts at once, and dials when something is sent. Needs tokio's
    /// runtime.
    ///
    /// # Errors
    /// What the socket says.
    pub fn start(
        keypair: &Keypair,
        underlay: Underlay,
        gate: impl Gate,
        addresses: impl Addresses,
        mut router: Router,
    ) -> io::Result<Self> {
        let identity = Identity::new(keypair).map_err(io::Error::other)?;
        let (socket, packets) = DetourSocket::over(underlay.socket)?;
        let detours = socket.detours.clone();
        let refusals = underlay.refusals.listen();
        let underlay = Underlay { socket, ..underlay };
        let names = underlay.names.clone();
        let (endpoint, transport, accepting) = endpoint::endpoint(underlay, keypair, &identity)?;
        let detour_transport = Arc::new(endpoint::transport(false));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let messages = router.messages(StreamKind::Detour, relay::INBOX_MAX);
        let pool = Arc::new(Pool::new(
            keypair.node_id(),
            Dialler { endpoint, transport, detour_transport, identity, names },
            Arc::new(gate),
            Arc::new(addresses),
            Arc::new(router),
            events,
            detours,
        ));
        tokio::spawn(accept::accept(pool.clone(), accepting));
        tokio::spawn(relay::send_packets(Arc::downgrade(&pool), packets));
        tokio::spawn(relay::relay(Arc::downgrade(&pool), messages));
        tokio::spawn(refusing::follow_refusals(Arc::downgrade(&pool), refusals));
        Ok(Self { pool })
    }

    /// Where the mesh listens.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.pool.dialler.endpoint.local_addr()
    }

    /// Makes sure of a connection, dialling at once whatever the backoff says.
    ///
    /// # Errors
    /// [`DialError`]; it was told as [`Event::Unreachable`] as well, and the node rests.
    pub async fn connect(&self, peer: NodeId) -> Result<(), DialError> {
        self.pool.reach(peer, true).await.map(|_| ())
    }

    /// Dials a peer that is not connected, and does not wait for it; one that rests after a failure
    /// is left alone.
    pub fn seek(&self, peer: NodeId) {
        self.pool.seek(peer);
    }

    /// Sends a datagram that may be lost. Without a connection it waits for a dial with a few
    /// others, and is dropped and counted where the node rests after a failure.
    pub fn send_datagram(&self, peer: NodeId, bytes: Bytes) {
        self.pool.send(peer, Outgoing::Datagram(bytes));
    }

    /// Sends a message on a stream of its own, at most [`StreamKind::frame_bytes_max`]. It arrives
    /// whole or not at all; it is dropped and counted where the peer is slow or out of reach.
    pub fn send_message(&self, peer: NodeId, kind: StreamKind, bytes: Bytes) {
        self.pool.send(peer, Outgoing::Message(kind, bytes));
    }

    /// Queues a frame for the peer's push stream, at most [`StreamKind::frame_bytes_max`] of
    /// [`StreamKind::Push`]. Frames of one connection arrive in order and without gaps, as long as
    /// what is large gets through to the peer. Where it does not, what is on its way is taken back, and
    /// only small frames are sent, as far as there is room for them and they arrive. Answers `false`
    /// where the frame was dropped: the node rests after a failed dial, the frame is held back, or
    /// the node is more than [`OUTBOX_BYTES_MAX`] behind, whereupon its connection is closed. Frames
    /// on a connection that ends are lost; [`Event::Connected`] says when to repair, and
    /// [`Event::Released`] does for those that were held back or taken back.
    pub fn push(&self, peer: NodeId, frame: Bytes) -> bool {
        self.pool.send(peer, Outgoing::Frame(frame))
    }

    /// Opens a session, dialling first where there is no connection. Frames go over it by
    /// [`write_frame`] and [`read_frame`]. A peer that does not serve the kind, or has no room,
    /// resets it with a code ([`peerage_proto::wire::StreamCode`]).
    ///
    /// # Errors
    /// [`DialError`], also while the node rests after a failure.
    pub async fn open(
        &self,
        peer: NodeId,
        kind: StreamKind,
    ) -> Result<(SendStream, RecvStream), DialError> {
        let peer = self.pool.reach(peer, false).await?;
        if kind == StreamKind::Sync && peer.bulk.is_held() {
            return Err(DialError::Stalled);
        }
        self.pool.expect_answer(&peer);
        peer.open(kind).await.map_err(|error| DialError::Lost(error.to_string()))
    }

    /// Dials on the join protocol: a joiner its seed, or a seed back. The key is checked; nothing
    /// was said yet. The caller closes the connection. It may be this node's own key: whoever else
    /// has that is a copy.
    ///
    /// # Errors
    /// [`DialError`]; the answer takes a few seconds where nothing answers.
    pub async fn dial_join(
        &self,
        peer: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, DialError> {
        self.pool.dialler.race(peer, ALPN_JOIN, addresses).await
    }

    /// Returns once what is large is held back from a peer, since nothing large gets through to it:
    /// a session with it is to end, and to take back what it sent. Never, where it does get through.
    pub async fn holds_back(&self, peer: NodeId) {
        match self.pool.peer(peer) {
            Some(peer) => peer.bulk.held().await,
            None => std::future::pending().await,
        }
    }

    /// The IP addresses that these stand for now, as far as it is known where their names lead; what
    /// is not known is looked up meanwhile.
    pub fn known(&self, addresses: &[Address]) -> Vec<SocketAddr> {
        self.pool.dialler.names.known(addresses)
    }

    /// The same, once it is known where the names lead, or after a moment without an answer.
    pub async fn found(&self, addresses: &[Address]) -> Vec<SocketAddr> {
        let names = addresses.iter().filter_map(Address::name).take(NAMES_MAX);
        let looks = names.map(|name| self.names().resolve(name));
        futures_util::future::join_all(looks).await;
        self.known(addresses)
    }

    /// Where names lead.
    pub fn names(&self) -> &Resolver {
        &self.pool.dialler.names
    }

    /// Closes the connection with a peer, if there is one. What was not sent yet is lost; whoever
    /// needs the peer again dials it.
    pub fn close(&self, peer: NodeId, code: CloseCode, message: &str) {
        if let Some(peer) = self.pool.peer(peer) {
            peer.close(code, message);
        }
    }

    /// Closes the connection with a peer that is held to be dead, unless it answers after all: what
    /// is sent next dials anew.
    pub fn abandon(&self, peer: NodeId) {
        self.pool.abandon(peer);
    }

    /// A node that rests after failed dials is known to be back: it is dialled when it is needed.
    pub fn forgive(&self, peer: NodeId) {
        self.pool.forgive(peer);
    }

    /// The peer did not answer here, and was heard through another member: whether the path to it
    /// is broken is looked at now, and a detour would begin with that member.
    pub fn heard_through(&self, peer: NodeId, through: NodeId) {
        self.pool.heard_through(peer, through);
    }

    /// Addresses of members may have changed: connections move to better ones where there are any.
    pub fn review_paths(&self) {
        self.pool.review();
    }

    /// Closes the connections with all peers; the mesh goes on.
    pub fn disconnect_all(&self, code: CloseCode, message: &str) {
        for peer in self.pool.peers() {
            peer.close(code, message);
        }
    }

    /// Whether there is a connection with the node now.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.pool.peer(peer).is_some()
    }

    /// One peer as it is now.
    pub fn peer(&self, peer: NodeId) -> Option<PeerStatus> {
        self.pool.peer(peer).map(|peer| peer.status())
    }

    /// All peers as they are now, in no order.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.pool.peers().iter().map(|peer| peer.status()).collect()
    }

    /// What happens from now on. A listener that is behind by more than 1024 events misses the
    /// oldest, and is told how many.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.pool.events.subscribe()
    }

    /// This host is slower than it should be by so much: connections are given more time before
    /// they are doubted, and fewer are made at once. The first to be given up where all hosts are
    /// late must be the load that comes of their being late.
    pub fn slow_down(&self, multiplier: u32) {
        self.pool.lateness.store(multiplier.max(1), Ordering::Relaxed);
    }

    /// By how much this host is slower than it should be: 1 while it keeps up.
    pub fn lateness(&self) -> u32 {
        self.pool.lateness.load(Ordering::Relaxed)
    }

    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        let mut totals = self.pool.counters.totals();
        for peer in self.pool.peers() {
            let stats = peer.connection.stats();
            totals.bytes_in += stats.udp_rx.bytes;
            totals.bytes_out += stats.udp_tx.bytes;
        }
        totals
    }

    /// Ends the mesh: all connections are closed with the code and words, nothing is accepted or
    /// dialled any more. Waits at most half a second for the closes to be sent.
    pub async fn shutdown(&self, code: CloseCode, message: &str) {
        self.pool.stop();
        for peer in self.pool.peers() {
            peer.close(code, message);
        }
        let endpoint = &self.pool.dialler.endpoint;
        endpoint.close(code.number().into(), message.as_bytes());
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some peers did not confirm the close in time");
        }
    }
}
