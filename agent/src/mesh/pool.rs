//! The connections with members: at most one that counts for each, made when they are needed.
//!
//! The pool alone knows who is connected, who is being dialled and who rests after a failure. Its
//! table is behind a lock that is held for a few map operations and never while anything waits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use quinn::ConnectionError;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tokio::time::Instant;

use peerage_proto::id::NodeId;
use peerage_proto::roster::ADDRESSES_MAX;
use peerage_proto::wire::{ALPN_MEMBER, CloseCode};

use super::dial::{Addresses, DialError, Dialler, backoff};
use super::hello::{AnyGate, greet};
use super::peer::Peer;
use super::precedence::{Precedence, Standing, precedence};
use super::report::{Counters, DisconnectReason, Event};
use super::router::{Router, deliver};
use super::waiting::{Dial, Outgoing};

/// Dials under way at once; further ones wait their turn.
pub(super) const DIALS_MAX: usize = 32;

/// How long a superseded connection stays open, so that what is under way on it arrives.
const RETIREMENT: Duration = Duration::from_secs(1);

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
