//! The connections with members: at most one that counts for each, made when they are needed.
//!
//! The pool alone knows who is connected, who is being dialled and who rests after a failure. Its
//! table is behind a lock that is held for a few map operations and never while anything waits.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio::time::Instant;

use peerage_proto::id::NodeId;
use peerage_proto::wire::{ADDRESSES_MAX, ALPN_MEMBER, CloseCode, StreamKind};

use super::dial::{Addresses, DIAL_TIMEOUT, DialError, Dialler, backoff};
use super::hello::{AnyGate, greet};
use super::peer::{OUTBOX_BYTES_MAX, Peer};
use super::report::{Counters, DisconnectReason, Event};
use super::router::{Router, deliver};

/// Dials under way at once; further ones wait their turn.
pub(super) const DIALS_MAX: usize = 32;

/// Datagrams and messages that wait for a dial; the oldest is dropped first. Frames are bounded by
/// [`OUTBOX_BYTES_MAX`] instead, for a gap in them would have to be repaired.
const WAITING_MAX: usize = 16;

/// How long a superseded connection stays open, so that what is under way on it arrives.
const RETIREMENT: Duration = Duration::from_secs(1);

/// Two dials are simultaneous if the second ends this soon after the first.
const SIMULTANEOUS: Duration = DIAL_TIMEOUT;

/// What is to be sent once there is a connection.
pub(super) enum Outgoing {
    Datagram(Bytes),
    Message(StreamKind, Bytes),
    Frame(Bytes),
}

type Waiter = oneshot::Sender<Result<Arc<Peer>, DialError>>;

pub(super) struct Pool {
    pub(super) own: NodeId,
    pub(super) dialler: Dialler,
    pub(super) gate: Arc<dyn AnyGate>,
    pub(super) addresses: Arc<dyn Addresses>,
    pub(super) router: Arc<Router>,
    pub(super) counters: Arc<Counters>,
    pub(super) events: broadcast::Sender<Event>,
    dials: Semaphore,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    stopped: bool,
    peers: HashMap<NodeId, Arc<Peer>>,
    /// Only of nodes that have an address, so no more than the roster has.
    routes: HashMap<NodeId, Route>,
}

/// What is known about reaching a node.
#[derive(Default)]
struct Route {
    last_good: Option<SocketAddr>,
    failures: u32,
    rest: Option<(Instant, Arc<DialError>)>,
    dial: Option<Dial>,
}

/// A dial under way, and those who wait for it.
#[derive(Default)]
struct Dial {
    waiters: Vec<Waiter>,
    short: VecDeque<Outgoing>,
    frames: Vec<Bytes>,
    frames_bytes: usize,
}

impl Pool {
    pub(super) fn new(
        own: NodeId,
        dialler: Dialler,
        gate: Arc<dyn AnyGate>,
        addresses: Arc<dyn Addresses>,
        router: Arc<Router>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        Self {
            own,
            dialler,
            gate,
            addresses,
            router,
            counters: Arc::default(),
            events,
            dials: Semaphore::new(DIALS_MAX),
            table: RwLock::default(),
        }
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.read().peers.get(&id).cloned()
    }

    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        self.read().peers.values().cloned().collect()
    }

    /// Sends on the live connection, or dials unless the node rests and lets it wait for that.
    /// Answers `false` where it was dropped, counted.
    pub(super) fn send(self: &Arc<Self>, id: NodeId, outgoing: Outgoing) -> bool {
        if let Some((found, bound)) = outgoing.excess() {
            tracing::error!(found, bound, "what was to be sent is over its bound");
            outgoing.drop_counted(&self.counters);
            return false;
        }
        if let Some(peer) = self.peer(id) {
            return outgoing.leave(&peer);
        }
        let mut table = self.write();
        // It may have connected since we looked.
        if let Some(peer) = table.peers.get(&id).cloned() {
            return outgoing.leave(&peer);
        }
        match self.dial_in(&mut table, id, false) {
            Ok(dial) => dial.queue(outgoing, &self.counters),
            Err(_) => {
                outgoing.drop_counted(&self.counters);
                false
            }
        }
    }

    /// The live connection, or the one that a dial makes. With `now`, a backoff is cleared.
    pub(super) async fn reach(
        self: &Arc<Self>,
        id: NodeId,
        now: bool,
    ) -> Result<Arc<Peer>, DialError> {
        let connected = {
            let mut table = self.write();
            if let Some(peer) = table.peers.get(&id) {
                return Ok(peer.clone());
            }
            let (waiter, connected) = oneshot::channel();
            self.dial_in(&mut table, id, now)?.waiters.push(waiter);
            connected
        };
        connected.await.unwrap_or(Err(DialError::Stopped))
    }

    /// The dial of a node that is not connected, begun here if there is none.
    fn dial_in<'t>(
        self: &Arc<Self>,
        table: &'t mut Table,
        id: NodeId,
        now: bool,
    ) -> Result<&'t mut Dial, DialError> {
        if table.stopped {
            return Err(DialError::Stopped);
        }
        if id == self.own {
            return Err(DialError::Own);
        }
        let route = table.routes.entry(id).or_default();
        if route.dial.is_none() {
            match &route.rest {
                Some((until, last)) if !now && *until > Instant::now() => {
                    let wait = until.duration_since(Instant::now());
                    return Err(DialError::Resting { wait, last: last.clone() });
                }
                _ => route.rest = None,
            }
            if now {
                route.failures = 0;
            }
            tokio::spawn(self.clone().dial(id, route.last_good));
        }
        Ok(route.dial.get_or_insert_default())
    }

    async fn dial(self: Arc<Self>, id: NodeId, last_good: Option<SocketAddr>) {
        let _turn = self.dials.acquire().await;
        self.counters.dials.add(1);
        let mut addresses = self.addresses.of(id);
        addresses.truncate(ADDRESSES_MAX);
        if let Some(good) = last_good.and_then(|good| addresses.iter().position(|a| *a == good)) {
            addresses[..=good].rotate_right(1);
        }
        match self.attempt(id, &addresses).await {
            Ok((peer, address)) => {
                self.write().routes.entry(id).or_default().last_good = Some(address);
                self.install(peer);
            }
            Err(error) => self.fail(id, addresses, error),
        }
    }

    async fn attempt(
        &self,
        id: NodeId,
        addresses: &[SocketAddr],
    ) -> Result<(Peer, SocketAddr), DialError> {
        if self.gate.hello().is_none() {
            return Err(DialError::Standalone);
        }
        let (connection, address) = self.dialler.race(id, ALPN_MEMBER, addresses).await?;
        let greeted = greet(&connection, id, &*self.gate).await?;
        let (hello, ahead) = (greeted.hello, greeted.clock_ahead_ms);
        Ok((Peer::new(id, connection, hello, true, ahead, self.counters.clone()), address))
    }

    /// A dial came to nothing: those who waited are told, and the node rests. If the peer has
    /// dialled us meanwhile all is well.
    fn fail(&self, id: NodeId, addresses: Vec<SocketAddr>, error: DialError) {
        self.counters.dials_failed.add(1);
        tracing::debug!(peer = %id.short(), %error, "a dial failed");
        if let DialError::Refused(refusal) = &error {
            self.gate.refused(id, refusal.clone());
        }
        let mut table = self.write();
        let is_connected = table.peers.contains_key(&id);
        let Some(route) = table.routes.get_mut(&id) else { return };
        let dial = route.dial.take();
        if !is_connected {
            route.failures = route.failures.saturating_add(1);
            let rest = backoff(route.failures, rand::random());
            route.rest = Some((Instant::now() + rest, Arc::new(error.clone())));
        }
        if matches!(error, DialError::NoAddress) {
            table.routes.remove(&id);
        }
        if let Some(dial) = dial {
            dial.fail(&error, &self.counters);
        }
        if !is_connected {
            // Nobody may be listening.
            let _ = self.events.send(Event::Unreachable { peer: id, addresses, error });
        }
    }

    /// Takes in a connection that passed the hello, and settles which one counts if there are two.
    pub(super) fn install(self: &Arc<Self>, new: Peer) {
        let new = Arc::new(new);
        let mut table = self.write();
        if table.stopped {
            return new.close(CloseCode::Shutdown, "the agent stops");
        }
        self.counters.connections.add(1);
        let old = table.peers.get(&new.id).cloned();
        let precedence = old.as_ref().map(|old| self.precedence(old, &new));
        let (current, is_new) = match (precedence, &old) {
            (Some(Precedence::Stale | Precedence::Worse), Some(old)) => (old.clone(), false),
            _ => (new.clone(), true),
        };
        if is_new {
            table.peers.insert(new.id, new.clone());
        }
        let route = table.routes.entry(new.id).or_default();
        (route.failures, route.rest) = (0, None);
        let dial = route.dial.take();

        let (peer, hello) = (new.id, new.hello.clone());
        match (precedence, old) {
            (None, _) | (_, None) => {
                // Nobody may be listening.
                let _ = self.events.send(Event::Connected { peer, hello });
            }
            (Some(Precedence::Restart), Some(old)) => {
                old.close(CloseCode::Replaced, "the peer restarted");
                let reason = DisconnectReason::Reset;
                let _ = self.events.send(Event::Disconnected { peer, reason });
                let _ = self.events.send(Event::Connected { peer, hello });
            }
            (Some(Precedence::Better), Some(old)) => self.retire(old),
            (Some(Precedence::Worse), Some(_)) => self.retire(new.clone()),
            (Some(Precedence::Stale), Some(_)) => {
                new.close(CloseCode::Replaced, "of an earlier start of this node");
            }
        }
        if let Some(dial) = dial {
            dial.deliver(&current);
        }
        drop(table);
        tracing::debug!(
            peer = %peer.short(), dialled = new.dialled, boot = new.hello.boot, ?precedence,
            "connected"
        );
        let pool = self.clone();
        tokio::spawn(async move {
            let (router, counters) = (pool.router.clone(), pool.counters.clone());
            let error = deliver(new.connection.clone(), new.id, router, counters).await;
            pool.lost(&new, &error);
        });
    }

    fn precedence(&self, old: &Peer, new: &Peer) -> Precedence {
        let dialler = |peer: &Peer| if peer.dialled { self.own } else { peer.id };
        precedence(
            Standing { boot: old.hello.boot, dialler: dialler(old) },
            Standing { boot: new.hello.boot, dialler: dialler(new) },
            old.since.elapsed(),
        )
    }

    /// Closes a superseded connection when what is under way on it has had time to arrive.
    fn retire(&self, peer: Arc<Peer>) {
        self.counters.duplicates.add(1);
        tokio::spawn(async move {
            tokio::time::sleep(RETIREMENT).await;
            peer.close(CloseCode::Duplicate, "the two nodes have another connection");
        });
    }

    fn lost(self: &Arc<Self>, peer: &Arc<Peer>, error: &ConnectionError) {
        let stats = peer.connection.stats();
        self.counters.bytes_in.add(stats.udp_rx.bytes);
        self.counters.bytes_out.add(stats.udp_tx.bytes);
        let reason = peer.reason(error);
        let mut table = self.write();
        let counted = table.peers.get(&peer.id).is_some_and(|current| Arc::ptr_eq(current, peer));
        if !counted {
            return;
        }
        table.peers.remove(&peer.id);
        tracing::debug!(peer = %peer.id.short(), %reason, "disconnected");
        let restarted = reason == DisconnectReason::Reset;
        let _ = self.events.send(Event::Disconnected { peer: peer.id, reason });
        if restarted {
            // A reset comes from an agent that is up again, so it is dialled at once; should that
            // fail, whoever needs it dials later.
            let _ = self.dial_in(&mut table, peer.id, true);
        }
    }

    /// Begins nothing new, and tells who waits.
    pub(super) fn stop(&self) {
        let mut table = self.write();
        table.stopped = true;
        for (_, mut route) in table.routes.drain() {
            if let Some(dial) = route.dial.take() {
                dial.fail(&DialError::Stopped, &self.counters);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    fn leave(self, peer: &Peer) -> bool {
        match self {
            Self::Datagram(bytes) => peer.send_datagram(bytes),
            Self::Message(kind, bytes) => peer.send_message(kind, bytes),
            Self::Frame(bytes) => return peer.push(bytes),
        }
        true
    }

    /// Length and bound, where what is to be sent is over its bound: the peer would close the
    /// connection over it.
    fn excess(&self) -> Option<(usize, usize)> {
        let (found, bound) = match self {
            // QUIC knows the bound of datagrams, which depends on the path.
            Self::Datagram(_) => return None,
            Self::Message(kind, bytes) => (bytes.len(), kind.frame_bytes_max()),
            Self::Frame(bytes) => (bytes.len(), StreamKind::Push.frame_bytes_max()),
        };
        (found > bound).then_some((found, bound))
    }

    fn drop_counted(self, counters: &Counters) {
        match self {
            Self::Datagram(_) => counters.datagrams_dropped.add(1),
            Self::Message(..) => counters.messages_dropped.add(1),
            Self::Frame(_) => counters.frames_dropped.add(1),
        }
    }
}

impl Dial {
    fn queue(&mut self, outgoing: Outgoing, counters: &Counters) -> bool {
        if let Outgoing::Frame(frame) = outgoing {
            if self.frames_bytes + frame.len() > OUTBOX_BYTES_MAX / 2 {
                counters.frames_dropped.add(1);
                return false;
            }
            self.frames_bytes += frame.len();
            self.frames.push(frame);
            return true;
        }
        if self.short.len() >= WAITING_MAX
            && let Some(oldest) = self.short.pop_front()
        {
            oldest.drop_counted(counters);
        }
        self.short.push_back(outgoing);
        true
    }

    fn deliver(self, peer: &Arc<Peer>) {
        for frame in self.frames {
            peer.push(frame);
        }
        for outgoing in self.short {
            outgoing.leave(peer);
        }
        for waiter in self.waiters {
            // One who gave up waiting needs no answer.
            let _ = waiter.send(Ok(peer.clone()));
        }
    }

    fn fail(self, error: &DialError, counters: &Counters) {
        counters.frames_dropped.add(self.frames.len() as u64);
        for outgoing in self.short {
            outgoing.drop_counted(counters);
        }
        for waiter in self.waiters {
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// What decides between two connections with one node.
#[derive(Debug, Clone, Copy)]
struct Standing {
    boot: u64,
    dialler: NodeId,
}

/// How a new connection stands to the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precedence {
    /// The peer restarted: the old connection leads nowhere.
    Restart,
    /// The new one counts; the old one ends soon.
    Better,
    /// The old one counts; the new one ends soon.
    Worse,
    /// The new one is of an earlier start of the peer.
    Stale,
}

/// Both sides must come to the same answer from what both know. Of two simultaneous dials the one
/// by the lower key counts. A dial long after the first means that its dialler lost that one, so
/// the new one counts, whoever dialled.
fn precedence(old: Standing, new: Standing, age: Duration) -> Precedence {
    match new.boot.cmp(&old.boot) {
        std::cmp::Ordering::Greater => Precedence::Restart,
        std::cmp::Ordering::Less => Precedence::Stale,
        std::cmp::Ordering::Equal if new.dialler > old.dialler && age < SIMULTANEOUS => {
            Precedence::Worse
        }
        std::cmp::Ordering::Equal => Precedence::Better,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_simultaneous_dials_both_sides_keep_the_one_by_the_lower_key() {
        let (low, high) = (NodeId([1; 32]), NodeId([2; 32]));
        let by = |dialler, boot| Standing { boot, dialler };
        let soon = Duration::from_millis(1);
        assert_eq!(precedence(by(high, 1), by(low, 1), soon), Precedence::Better);
        assert_eq!(precedence(by(low, 1), by(high, 1), soon), Precedence::Worse);
        // The same dialler again: it lost the first.
        assert_eq!(precedence(by(low, 1), by(low, 1), soon), Precedence::Better);
        // Long after: the higher key lost the connection that we still hold.
        assert_eq!(precedence(by(low, 1), by(high, 1), SIMULTANEOUS), Precedence::Better);
        // A later start replaces, an earlier one does not, whoever dialled.
        assert_eq!(precedence(by(low, 1), by(high, 2), soon), Precedence::Restart);
        assert_eq!(precedence(by(low, 2), by(low, 1), SIMULTANEOUS), Precedence::Stale);
    }
}
