//! Looks after the paths of connections: moves a connection away from a path that does not answer,
//! and back to the best path that does.
//!
//! To change the path, this node makes a new connection, whose hello names the connection that it
//! replaces. The old connection stays until the new one stands. One task does this for each peer
//! that needs it; a peer that answers on its best path needs none.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::sync::Notify;
use tokio::time::sleep;

use peerage_proto::address::Address;
use peerage_proto::backoff::Backoff;
use peerage_proto::id::NodeId;
use peerage_proto::wire::CloseCode;

use super::dial::{DialError, Pace};
use super::path::Path;
use super::peer::Peer;
use super::pool::{BETTERMENTS_MAX, Pool, RESCUES_MAX, Route, Table};
use super::ways::{Way, better_than};

/// How long one attempt to reach a peer that does not answer may take. The connection that replaces
/// the old one should be there within two seconds of the first packet that was lost.
const RESCUE_TIMEOUT: Duration = Duration::from_secs(3);

/// How better paths are dialled. Nothing that is sent waits for them.
const BETTERMENT: Pace = Pace { timeout: Duration::from_secs(3), detours_after: Duration::ZERO };

/// The waits between two attempts at a peer that does not answer.
const BETWEEN_RESCUES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// The first and the longest wait before a better path is tried.
const BETTERMENT_WAIT: Duration = Duration::from_secs(1);
const BETTERMENT_WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest wait before addresses are tried at which the peer was never reached. Many hosts have
/// addresses that lead nowhere from here.
const UNPROVEN_WAIT_MAX: Duration = Duration::from_secs(120);

/// What the path to a peer needs.
enum Want {
    /// Nothing: the peer answers, and no path is better.
    Nothing,
    /// Any path that answers, since this one does not. A detour must not lead through the member
    /// `not_through`.
    Rescue { not_through: Option<NodeId> },
    /// Any other path that answers and lets large data through, since this one does not. The
    /// packets that begin a connection are large, so a path on which a connection begins is wide
    /// enough.
    Wider,
    /// A path on one of these better ways, the best first.
    Better { ways: Vec<Way>, wait_max: Duration },
}

impl Pool {
    /// Wakes the task that looks after the path to a peer, or starts it if the path needs it.
    pub(super) fn tend(self: &Arc<Self>, id: NodeId) {
        self.tend_in(&mut self.write(), id);
    }

    pub(super) fn tend_in(self: &Arc<Self>, table: &mut Table, id: NodeId) {
        let route = table.routes.entry(id).or_default();
        let Some(peer) = table.peers.get(&id).filter(|_| !table.stopped) else { return };
        match &route.tended {
            Some(wake) => wake.notify_one(),
            None if matches!(self.want(peer, route), Want::Nothing) => {}
            None => {
                let wake = Arc::new(Notify::new());
                route.tended = Some(wake.clone());
                tokio::spawn(look_after(self.clone(), id, wake));
            }
        }
    }

    /// The members' addresses may have changed.
    pub(super) fn review(self: &Arc<Self>) {
        for peer in self.peers() {
            self.tend(peer.id);
        }
    }

    /// Another member, `through`, heard the peer while the peer did not answer this node.
    pub(super) fn heard_through(self: &Arc<Self>, id: NodeId, through: NodeId) {
        match self.peer(id) {
            Some(peer) => self.expect_answer(&peer),
            None => self.seek(id),
        }
        if let Some(route) = self.write().routes.get_mut(&id) {
            route.heard_through = Some(through);
        }
        self.heard.notify_waiters();
    }

    /// The member in between cannot carry packets to the peer. A connection that leads through this
    /// member is doubted at once.
    pub(super) fn refused_detour(self: &Arc<Self>, id: NodeId, through: NodeId) {
        self.detours.refuse(id, through);
        let peer = self.peer(id);
        if let Some(peer) = peer.filter(|peer| peer.path() == Path::Through(through)) {
            peer.watch.doubt(peer.watch.answers());
            self.tend(id);
        }
    }

    /// The node is known to be back: it rests no longer.
    pub(super) fn forgive(&self, id: NodeId) {
        let mut table = self.write();
        if let Some(route) = table.routes.get_mut(&id) {
            (route.failures, route.rest) = (0, None);
        }
        if let Some(peer) = table.peers.get(&id) {
            peer.watch.abandon(false);
        }
    }

    /// The caller believes that the peer is dead. Its connection is closed now if it is in doubt,
    /// or else as soon as it falls into doubt, so that the next thing that is sent dials anew.
    pub(super) fn abandon(&self, id: NodeId) {
        let Some(peer) = self.peer(id) else { return };
        peer.watch.abandon(true);
        if peer.is_doubted() {
            peer.close(CloseCode::Done, "no answer");
        }
    }

    fn want(&self, peer: &Peer, route: &Route) -> Want {
        let path = peer.path();
        if peer.is_doubted() {
            return Want::Rescue { not_through: path.between() };
        }
        if peer.bulk.stalled_since().is_some() {
            return Want::Wider;
        }
        let addresses = route.whereabouts.addresses(self.addresses.of(peer.id));
        let names = &self.dialler.names;
        let better = better_than(path, peer.dialled, names.known(&addresses));
        // A name that leads nowhere now may lead to a direct path later.
        let unknown =
            |at: &&Address| at.name().is_some() && names.known(slice::from_ref(at)).is_empty();
        let unknown = addresses.iter().filter(|_| !path.is_direct()).filter(unknown);
        let direct = better.iter().map(|address| Way::Direct(*address, None));
        let ways: Vec<Way> = direct.chain(unknown.cloned().map(Way::from)).collect();
        if ways.is_empty() {
            return Want::Nothing;
        }
        let is_near = !path.is_direct() && !better.is_empty();
        let wait_max = match is_near || route.whereabouts.is_proven(&better) {
            true => BETTERMENT_WAIT_MAX,
            false => UNPROVEN_WAIT_MAX,
        };
        Want::Better { ways, wait_max }
    }

    /// The peer, what its path needs, and how often in a row its paths were lost. `None` if the
    /// path needs nothing, and then no task looks after it any more.
    fn wanting(&self, id: NodeId) -> Option<(Arc<Peer>, Want, u32)> {
        let mut table = self.write();
        let table = &mut *table;
        let route = table.routes.get_mut(&id)?;
        let peer = table.peers.get(&id).filter(|_| !table.stopped);
        match peer.map(|peer| (peer, self.want(peer, route))) {
            None | Some((_, Want::Nothing)) => {
                route.tended = None;
                None
            }
            Some((peer, want)) => Some((peer.clone(), want, route.falls)),
        }
    }

    /// Says hello on a new connection and puts it in the place of the old one. Answers whether that
    /// worked.
    async fn replace(
        self: &Arc<Self>,
        old: &Arc<Peer>,
        reached: Result<Connection, DialError>,
    ) -> bool {
        let greeted = match reached {
            Ok(connection) => self.greeted(old.id, connection, Some(old.name)).await,
            Err(error) => Err(error),
        };
        match greeted {
            Ok(new) => {
                if old.is_doubted() && new.path() == old.path() {
                    // The new connection uses the same path, so the doubt was unfounded.
                    self.patience.widen();
                }
                self.install(new);
                true
            }
            Err(error) => {
                self.counters.dials_failed.add(1);
                tracing::debug!(peer = %old.id.short(), %error, "no other path");
                false
            }
        }
    }

    /// Looks for another path to a peer that does not answer. Answers whether the peer is reached
    /// again, on another path or on the old one.
    async fn rescue(self: &Arc<Self>, old: &Arc<Peer>, not_through: Option<NodeId>) -> bool {
        let other_path = async {
            let mut turn = self.turn(&self.rescues, RESCUES_MAX).await;
            let pace = Pace { timeout: RESCUE_TIMEOUT, detours_after: self.detours_after() };
            let ways = self.other_ways(old, not_through);
            turn.make_room(self.race(old.id, &ways, pace)).await
        };
        let reached = tokio::select! {
            reached = other_path => reached,
            answers = old.watch.answers_again() => {
                if answers {
                    self.patience.widen();
                }
                return answers;
            }
        };
        self.replace(old, reached).await
    }

    /// All ways to a peer except the path in use.
    fn wider_ways(&self, peer: &Peer) -> Vec<Way> {
        let path = peer.path();
        let ways = self.other_ways(peer, path.between());
        ways.into_iter().filter(|way| way.path() != Some(path)).collect()
    }

    fn other_ways(&self, old: &Peer, not_through: Option<NodeId>) -> Vec<Way> {
        let addresses = self.known_addresses(old.id).into_iter().map(Way::from);
        let detours = self.detours_to(old.id, not_through);
        // While a peer is reached by a detour, its direct paths are tried all the time and do not
        // answer, so other detours come first.
        match not_through {
            Some(_) => detours.into_iter().chain(addresses).collect(),
            None => addresses.chain(detours).collect(),
        }
    }
}

/// Looks after the path to a peer until it needs nothing.
async fn look_after(pool: Arc<Pool>, id: NodeId, wake: Arc<Notify>) {
    let (mut rescues, mut betterments) = (0, 0);
    while let Some((peer, want, falls)) = pool.wanting(id) {
        match want {
            Want::Nothing => return,
            Want::Rescue { not_through } => {
                if pool.rescue(&peer, not_through).await {
                    (rescues, betterments) = (0, 0);
                    continue;
                }
                let wait = BETWEEN_RESCUES.drawn(rescues, rand::random());
                rescues += 1;
                tokio::select! {
                    _ = peer.connection.closed() => {}
                    () = sleep(wait) => {}
                }
            }
            Want::Wider | Want::Better { .. } => {
                let (ways, wait_max) = match want {
                    Want::Better { ways, wait_max } => (ways, wait_max),
                    _ => (pool.wider_ways(&peer), BETTERMENT_WAIT_MAX),
                };
                let waits = Backoff::new(BETTERMENT_WAIT, wait_max);
                let wait = waits.drawn(betterments.max(falls), rand::random());
                tokio::select! {
                    () = wake.notified() => continue,
                    () = sleep(wait) => {}
                }
                let better_path = async {
                    let mut turn = pool.turn(&pool.betterments, BETTERMENTS_MAX).await;
                    turn.make_room(pool.race(id, &ways, BETTERMENT)).await
                };
                let reached = tokio::select! {
                    reached = better_path => reached,
                    () = more_urgent(&peer, &wake) => continue,
                };
                let replaced = pool.replace(&peer, reached).await;
                betterments = if replaced { 0 } else { betterments + 1 };
                rescues = 0;
            }
        }
    }
}

/// Returns when the peer does not answer any more.
async fn more_urgent(peer: &Peer, wake: &Notify) {
    loop {
        wake.notified().await;
        if peer.is_doubted() {
            return;
        }
    }
}
