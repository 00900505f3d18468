//! The connections with members: at most one that counts for each, made when they are needed.
//!
//! The pool alone knows who is connected, who is being dialled and who rests after a failure. Its
//! table is behind a lock that is held for a few map operations and never while anything waits.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use quinn::Connection;
use rand::seq::SliceRandom;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, broadcast, oneshot};
use tokio::time::{Instant, sleep, timeout};

use peerage_proto::address::Address;
use peerage_proto::backoff::Backoff;
use peerage_proto::id::NodeId;
use peerage_proto::wire::ALPN_MEMBER;

use super::detour::Detours;
use super::dial::{
    Addresses, BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT, DialError, Dialler, Pace, STAGGER,
};
use super::hello::{AnyGate, greet};
use super::patience::Patience;
use super::peer::Peer;
use super::report::{Counters, Event};
use super::router::Router;
use super::waiting::{Dial, Outgoing};
use super::ways::{Way, Whereabouts};
use crate::repeats::Lines;

/// How many dials of each kind may be under way at once; further ones wait their turn. Dials of
/// nodes without a connection, dials that replace a connection that does not answer, and dials that
/// only look for a better path have turns of their own, so that many nodes that are down hold up no
/// rescue.
pub(super) const DIALS_MAX: usize = 32;
pub(super) const RESCUES_MAX: usize = 32;
pub(super) const BETTERMENTS_MAX: usize = 8;

/// How few dials of each kind a host makes at once while it is very late.
const AT_ONCE_WHEN_LATE: usize = 2;

/// How long a handshake takes at most between hosts that are late but alive.
const HANDSHAKE_USUAL: Duration = Duration::from_secs(1);

/// Through how many members a node is tried at once.
const DETOURS_TRIED_MAX: usize = 3;

/// How long a node is dialled directly before detours join in, if no other member is known to hear
/// it.
const DETOURS_AFTER: Duration = Duration::from_secs(2);

/// The longest time before detours join in, if another member is known to hear the node or if a
/// path was lost. It is well within the time for a rescue.
const DETOURS_AFTER_MAX: Duration = Duration::from_millis(1500);

/// How long a node rests after dials that failed.
const REST: Backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);

/// How a node without a connection is dialled.
const DIAL: Pace = Pace { timeout: DIAL_TIMEOUT, detours_after: STAGGER };

pub(super) struct Pool {
    pub(super) own: NodeId,
    pub(super) dialler: Dialler,
    pub(super) gate: Arc<dyn AnyGate>,
    pub(super) addresses: Arc<dyn Addresses>,
    pub(super) router: Arc<Router>,
    pub(super) counters: Arc<Counters>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) detours: Arc<Detours>,
    /// What was logged about nodes that were not let in.
    pub(super) refusals: Lines<(NodeId, String)>,
    pub(super) patience: Patience,
    /// By how much this host is slower than it should be: a factor, 1 or more.
    pub(super) lateness: AtomicU32,
    dials: Semaphore,
    pub(super) rescues: Semaphore,
    pub(super) betterments: Semaphore,
    /// Wakes the dials of nodes that another member has heard.
    pub(super) heard: Notify,
    table: RwLock<Table>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) stopped: bool,
    pub(super) peers: HashMap<NodeId, Arc<Peer>>,
    /// A dial that finds no address removes the route of its node again, so nearly all routes are
    /// of nodes that the roster has or had.
    pub(super) routes: HashMap<NodeId, Route>,
}

/// One or several of the places for dials.
pub(super) struct Turn<'t>(Option<SemaphorePermit<'t>>);

impl Turn<'_> {
    /// Gives back all places but one.
    fn keep_one(&mut self) {
        if let Some(held) = &mut self.0 {
            drop(held.split(held.num_permits().saturating_sub(1)));
        }
    }

    /// Does the work that the turn is for. Past a usual handshake time the work only waits for a
    /// silent host and uses no CPU, so all places but one are given back.
    pub(super) async fn make_room<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => done,
            () = sleep(HANDSHAKE_USUAL) => {
                self.keep_one();
                work.await
            }
        }
    }
}

/// What is known about reaching a node.
#[derive(Default)]
pub(super) struct Route {
    pub(super) whereabouts: Whereabouts,
    /// The member that lately heard the node while the node did not answer here.
    pub(super) heard_through: Option<NodeId>,
    pub(super) failures: u32,
    pub(super) rest: Option<(Instant, Arc<DialError>)>,
    pub(super) dial: Option<Dial>,
    /// Wakes the task that looks after the path, if there is one.
    pub(super) tended: Option<Arc<Notify>>,
    /// How often in a row a path was lost soon after the connection had moved to it.
    pub(super) falls: u32,
}

impl Pool {
    pub(super) fn new(
        own: NodeId,
        dialler: Dialler,
        gate: Arc<dyn AnyGate>,
        addresses: Arc<dyn Addresses>,
        router: Arc<Router>,
        events: broadcast::Sender<Event>,
        detours: Arc<Detours>,
    ) -> Self {
        Self {
            own,
            dialler,
            gate,
            addresses,
            router,
            counters: Arc::default(),
            events,
            detours,
            refusals: Lines::new(),
            patience: Patience::default(),
            lateness: AtomicU32::new(1),
            dials: Semaphore::new(DIALS_MAX),
            rescues: Semaphore::new(RESCUES_MAX),
            betterments: Semaphore::new(BETTERMENTS_MAX),
            heard: Notify::new(),
            table: RwLock::default(),
        }
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.read().peers.get(&id).cloned()
    }

    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        self.read().peers.values().cloned().collect()
    }

    /// Sends on the live connection. Without one, begins a dial and lets `outgoing` wait for it,
    /// unless the node rests. Answers `false` if it was dropped, which is counted.
    pub(super) fn send(self: &Arc<Self>, id: NodeId, outgoing: Outgoing) -> bool {
        if let Some((found, bound)) = outgoing.excess() {
            tracing::error!(found, bound, "what was to be sent is over its bound");
            outgoing.drop_counted(&self.counters);
            return false;
        }
        if let Some(peer) = self.peer(id) {
            self.expect_answer(&peer);
            return outgoing.leave(&peer);
        }
        let mut table = self.write();
        // The node may have connected since the first look.
        if let Some(peer) = table.peers.get(&id).cloned() {
            self.expect_answer(&peer);
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

    /// Begins to dial a node that is not connected, unless it rests.
    pub(super) fn seek(self: &Arc<Self>, id: NodeId) {
        let mut table = self.write();
        if !table.peers.contains_key(&id) {
            // Nobody waits for this dial, so its result is not needed here. If it fails, the node
            // rests.
            let _ = self.dial_in(&mut table, id, false);
        }
    }

    /// The dial of a node that is not connected, begun here if there is none.
    pub(super) fn dial_in<'t>(
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
            let dial = route.dial.insert(Dial::default());
            tokio::spawn(self.clone().dial(id, dial.mark.clone()));
        }
        Ok(route.dial.get_or_insert_default())
    }

    async fn dial(self: Arc<Self>, id: NodeId, mark: Arc<()>) {
        let mut turn = self.turn(&self.dials, DIALS_MAX).await;
        if self.is_over(id, &mark) {
            return;
        }
        let addresses = self.known_addresses(id);
        let greeted = turn.make_room(async {
            let connection = self.dial_everywhere(id, &addresses).await?;
            if self.is_over(id, &mark) {
                // The peer connected to us meanwhile. `precedence` would prefer our later
                // connection and replace theirs, so ours is dropped.
                return Ok(None);
            }
            self.greeted(id, connection, None).await.map(Some)
        });
        match greeted.await {
            Ok(Some(peer)) => self.install(peer),
            Ok(None) => {}
            Err(error) => self.fail(id, &mark, addresses, error),
        }
    }

    /// Whether the dial is over, because the node connected to us meanwhile or the mesh has
    /// stopped.
    fn is_over(&self, id: NodeId, mark: &Arc<()>) -> bool {
        let table = self.read();
        let dial = table.routes.get(&id).and_then(|route| route.dial.as_ref());
        dial.is_none_or(|dial| !Arc::ptr_eq(&dial.mark, mark))
    }

    /// Connects with a node, directly at its addresses and by detours through other members.
    /// Detours join in soon if another member is known to hear the node, and later if nothing is
    /// known. While this host is late and nothing is known, no detours join in, since other hosts
    /// may be late too, and a node that does not answer is probably slow rather than out of reach.
    /// The caller says hello only on the connection that is returned: a hello on a connection that
    /// is then dropped would cost the node the connection that it had before.
    async fn dial_everywhere(
        &self,
        id: NodeId,
        addresses: &[Address],
    ) -> Result<Connection, DialError> {
        self.begin_dial()?;
        let direct = Way::to_each(addresses);
        let direct = self.dialler.race_over(id, ALPN_MEMBER, &direct, DIAL);
        let failed = Notify::new();
        let around = async {
            let heard = async {
                self.heard_elsewhere(id).await;
                sleep(self.detours_after()).await;
            };
            tokio::select! {
                () = heard => {}
                () = self.in_time(self.detours_unheard(id)) => {}
                () = failed.notified() => {}
            }
            self.dialler.race_over(id, ALPN_MEMBER, &self.detours_to(id, None), DIAL).await
        };
        let (mut direct, mut around) = (pin!(direct), pin!(around));
        tokio::select! {
            biased;
            reached = &mut direct => match reached {
                Err(direct) if !addresses.is_empty() && self.may_go_round(id) => {
                    failed.notify_one();
                    let around = timeout(DIAL_TIMEOUT, around).await;
                    around.ok().and_then(Result::ok).ok_or(direct)
                }
                reached => reached,
            },
            reached = &mut around => match reached {
                Ok(connection) => Ok(connection),
                Err(_) => direct.await,
            },
        }
    }

    /// How long the addresses of a node have to answer if no other member is known to hear it. The
    /// time is shorter if the last dial failed.
    fn detours_unheard(&self, id: NodeId) -> Duration {
        let failed = self.read().routes.get(&id).is_some_and(|route| route.failures > 0);
        if failed { self.detours_after() } else { DETOURS_AFTER }
    }

    /// Returns once another member is known to hear the node.
    async fn heard_elsewhere(&self, id: NodeId) {
        loop {
            let next = self.heard.notified();
            if self.is_heard_elsewhere(id) {
                return;
            }
            next.await;
        }
    }

    /// Waits for `wait`, and again as long as this host is late after it.
    async fn in_time(&self, wait: Duration) {
        loop {
            sleep(wait).await;
            if !self.is_late() {
                return;
            }
        }
    }

    fn may_go_round(&self, id: NodeId) -> bool {
        !self.is_late() || self.is_heard_elsewhere(id)
    }

    fn is_late(&self) -> bool {
        self.lateness.load(Ordering::Relaxed) > 1
    }

    fn is_heard_elsewhere(&self, id: NodeId) -> bool {
        self.read().routes.get(&id).is_some_and(|route| route.heard_through.is_some())
    }

    /// How long addresses have to answer before detours join in: longer where hosts are slow.
    pub(super) fn detours_after(&self) -> Duration {
        (self.patience_with(Duration::ZERO) / 2).min(DETOURS_AFTER_MAX)
    }

    /// How long an answer over this round trip may take.
    pub(super) fn patience_with(&self, rtt: Duration) -> Duration {
        self.patience.with(rtt, self.lateness.load(Ordering::Relaxed))
    }

    /// A turn to dial, of `turns` in all. While this host is late, one turn takes several places.
    /// Otherwise many handshakes would share the CPU, and none would be done within its time.
    pub(super) async fn turn<'t>(&self, of: &'t Semaphore, turns: usize) -> Turn<'t> {
        let places = || {
            // A quarter of the places is left for dials that have given back all places but one.
            let most = u32::try_from(turns * 3 / 4 / AT_ONCE_WHEN_LATE).unwrap_or(1).max(1);
            self.lateness.load(Ordering::Relaxed).saturating_pow(2).min(most)
        };
        // The semaphore is never closed.
        let mut turn = Turn(of.acquire_many(places()).await.ok());
        if places() == 1 {
            turn.keep_one();
        }
        turn
    }

    /// Connects with a node over these ways.
    pub(super) async fn race(
        &self,
        id: NodeId,
        ways: &[Way],
        pace: Pace,
    ) -> Result<Connection, DialError> {
        self.begin_dial()?;
        self.dialler.race_over(id, ALPN_MEMBER, ways, pace).await
    }

    fn begin_dial(&self) -> Result<(), DialError> {
        self.counters.dials.add(1);
        self.gate.hello().map(drop).ok_or(DialError::Standalone)
    }

    /// Says hello on a new connection. Once begun, this must not be cancelled.
    pub(super) async fn greeted(
        &self,
        id: NodeId,
        connection: Connection,
        supersedes: Option<u64>,
    ) -> Result<Peer, DialError> {
        let greeted = greet(&connection, id, supersedes, &*self.gate).await?;
        let (counters, detours) = (self.counters.clone(), self.detours.clone());
        Ok(Peer::new(id, connection, greeted, true, counters, detours))
    }

    /// The addresses of a node, best first.
    pub(super) fn known_addresses(&self, id: NodeId) -> Vec<Address> {
        let roster = self.addresses.of(id);
        match self.read().routes.get(&id) {
            Some(route) => route.whereabouts.addresses(roster),
            None => Whereabouts::default().addresses(roster),
        }
    }

    /// A few detours to a node. The member that lately heard the node comes first, and the others
    /// in a random order.
    pub(super) fn detours_to(&self, id: NodeId, except: Option<NodeId>) -> Vec<Way> {
        let (heard_through, mut others) = {
            let table = self.read();
            let heard_through = table.routes.get(&id).and_then(|route| route.heard_through);
            let others: Vec<Arc<Peer>> = table.peers.values().cloned().collect();
            (heard_through, others)
        };
        others.shuffle(&mut rand::rng());
        others.sort_by_key(|other| Some(other.id) != heard_through);
        others
            .iter()
            .filter(|other| other.id != id && Some(other.id) != except && other.may_carry())
            .filter_map(|other| self.detours.to(id, other.id))
            .take(DETOURS_TRIED_MAX)
            .map(Way::Detour)
            .collect()
    }

    /// A dial failed: those who waited for it are told, and the node rests. If the node has
    /// connected to us meanwhile, it does not rest, and no event is sent.
    fn fail(&self, id: NodeId, mark: &Arc<()>, addresses: Vec<Address>, error: DialError) {
        self.counters.dials_failed.add(1);
        tracing::debug!(peer = %id.short(), %error, "a dial failed");
        if let DialError::Refused(refusal) = &error {
            self.gate.refused(id, refusal.clone());
        }
        let mut table = self.write();
        let is_connected = table.peers.contains_key(&id);
        let Some(route) = table.routes.get_mut(&id) else { return };
        let Some(dial) = route.dial.take_if(|dial| Arc::ptr_eq(&dial.mark, mark)) else { return };
        if !is_connected {
            let rest = REST.drawn(route.failures, rand::random());
            route.failures = route.failures.saturating_add(1);
            route.rest = Some((Instant::now() + rest, Arc::new(error.clone())));
        }
        if matches!(error, DialError::NoAddress) && !is_connected && route.tended.is_none() {
            table.routes.remove(&id);
        }
        dial.fail(&error, &self.counters);
        if !is_connected {
            // It may be that nobody listens to events.
            let _ = self.events.send(Event::Unreachable { peer: id, addresses, error });
        }
    }

    /// Begins no new dials, and tells those who wait for a dial.
    pub(super) fn stop(&self) {
        let mut table = self.write();
        table.stopped = true;
        for (_, mut route) in table.routes.drain() {
            if let Some(dial) = route.dial.take() {
                dial.fail(&DialError::Stopped, &self.counters);
            }
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
