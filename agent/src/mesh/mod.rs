//! The QUIC mesh: authenticated connections with the members of the Data Center, over one UDP port.
//!
//! What it promises: both ends of a connection have proved their keys, and the [`Gate`] of each end
//! has let the other in. There is at most one connection that counts with each member. It is
//! dialled when it is first needed, forgotten after [`IDLE_TIMEOUT`] of silence, and wakes no task
//! while it is idle. All that is sent waits in bounded queues, and no peer can hold up what is sent
//! to another. When packets on a path are not answered, the connection moves to another path within
//! two seconds: to another address of the peer, or to a detour through a member that reaches both.
//! When a better path answers again, the connection moves back.
//!
//! The parts: [`Underlay`] is the socket, real or simulated; `tls` makes identities of keys;
//! `hello` asks the gate; `pool` owns the connections, and `succession` decides which of two
//! connections with one node counts; `door` limits the places for callers that have not shown who
//! they are, and `accept` serves these callers; `peer` sends on one connection, and [`Router`]
//! delivers what arrives; `stall` finds that nothing large arrives, with the help of `gauge`, which
//! looks into QUIC, and `bulk` holds large data back meanwhile; `ways` are the addresses of a node
//! and the detours to it; `watch` keeps what is known of the answers on one connection, `patience`
//! tells how long an answer may take, and `doubt` finds that none comes; `tending` then looks for
//! another path; `detour` and `relay` lead packets through other members.

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
pub use endpoint::{Bind, IDLE_TIMEOUT, Underlay};
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

    /// Returns once there is a connection with the node. Without one, this dials at once, even
    /// while the node rests after a failure.
    ///
    /// # Errors
    /// [`DialError`]. A dial that failed is reported as [`Event::Unreachable`] as well, and the
    /// node rests.
    pub async fn connect(&self, peer: NodeId) -> Result<(), DialError> {
        self.pool.reach(peer, true).await.map(|_| ())
    }

    /// Begins to dial a node that is not connected, and does not wait for the dial. A node that
    /// rests after a failure is not dialled.
    pub fn seek(&self, peer: NodeId) {
        self.pool.seek(peer);
    }

    /// Sends a datagram, which may be lost. Without a connection this dials the node, and the
    /// datagram waits for the dial in a short queue. While the node rests after a failure, the
    /// datagram is dropped and counted.
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
    /// large data gets through to the peer. Where it does not, frames that are on their way are
    /// taken back, and only small frames are sent; those that find no room or do not arrive are
    /// dropped. Answers `false` if the frame was dropped: because the node rests after a failed
    /// dial, because large data is held back and the frame is not small or finds no room, or
    /// because more than [`OUTBOX_BYTES_MAX`] would wait for the peer, in which case its connection
    /// is closed. Frames on a connection that ends are lost. The caller repairs what was lost after
    /// [`Event::Connected`], and what was held back or taken back after [`Event::Released`].
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

    /// Dials a node on the join protocol: a joiner dials its seed, or a seed dials the joiner back.
    /// The holder of the node's key is at the other end of the connection, and nothing was sent on
    /// it yet. The caller closes it. `peer` may be this node's own id; whoever answers with that
    /// key is a copy of this node.
    ///
    /// # Errors
    /// [`DialError`], after a few seconds if nothing answers.
    pub async fn dial_join(
        &self,
        peer: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, DialError> {
        self.pool.dialler.race(peer, ALPN_JOIN, addresses).await
    }

    /// Returns once large data is held back from a peer, because nothing large gets through to it.
    /// A session with the peer then has to end and to take back what it sent. While large data gets
    /// through, or without a connection, this never returns.
    pub async fn holds_back(&self, peer: NodeId) {
        match self.pool.peer(peer) {
            Some(peer) => peer.bulk.held().await,
            None => std::future::pending().await,
        }
    }

    /// The IP addresses that `addresses` stand for, as far as it is known now where their names
    /// lead. A name that is not known yet is looked up in the background.
    pub fn known(&self, addresses: &[Address]) -> Vec<SocketAddr> {
        self.pool.dialler.names.known(addresses)
    }

    /// As [`Mesh::known`], after the names have been looked up, or after a short wait without an
    /// answer.
    pub async fn found(&self, addresses: &[Address]) -> Vec<SocketAddr> {
        let names = addresses.iter().filter_map(Address::name).take(NAMES_MAX);
        let looks = names.map(|name| self.names().resolve(name));
        futures_util::future::join_all(looks).await;
        self.known(addresses)
    }

    /// Resolves names to IP addresses.
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

    /// The caller believes that the peer is dead. Its connection is closed as soon as it does not
    /// answer, so that the next thing that is sent dials anew.
    pub fn abandon(&self, peer: NodeId) {
        self.pool.abandon(peer);
    }

    /// The caller knows that a node is back. If the node rests after failed dials, the rest ends,
    /// and the node is dialled when it is needed.
    pub fn forgive(&self, peer: NodeId) {
        self.pool.forgive(peer);
    }

    /// Another member, `through`, heard the peer, which did not answer this node. This node now
    /// checks whether its path to the peer is broken, and tries a detour through that member first.
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

    /// Tells the mesh that this host is slower than it should be, by the factor `multiplier`.
    /// Connections then get more time before they are doubted, and fewer are made at once.
    /// Otherwise, where all hosts are late, new connections would add to the load that makes them
    /// late.
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
