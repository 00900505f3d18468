//! Which connection with a node counts where there are several, and how the others end.

use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use tokio::time::{Instant, sleep};

use peerage_proto::address::Address;
use peerage_proto::wire::CloseCode;

use super::peer::Peer;
use super::pool::Pool;
use super::precedence::{Precedence, Standing, precedence};
use super::report::{DisconnectReason, Event};
use super::router::deliver;

/// A superseded connection stays open until nothing came on it for this long, so that what is under
/// way on it arrives; and this long at most.
const RETIREMENT: Duration = Duration::from_secs(1);
const RETIREMENT_MAX: Duration = Duration::from_secs(15);

/// After so long on a path, its connections no longer count as unsteady.
const STEADY: Duration = Duration::from_secs(60);

impl Pool {
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
        let path = new.path();
        let roster = self.addresses.of(new.id);
        let route = table.routes.entry(new.id).or_default();
        (route.failures, route.rest) = (0, None);
        if path.is_direct() {
            route.heard_through = None;
        }
        if precedence != Some(Precedence::Stale) {
            let known = |addresses: &[Address]| self.dialler.names.known(addresses);
            route.whereabouts.hear(&new.hello.addresses, roster, path, new.dialled, known);
        }
        if let (true, Some(old)) = (is_new, &old) {
            route.falls = match (old.since.elapsed() < STEADY, old.is_doubted()) {
                (true, true) => route.falls.saturating_add(1),
                (true, false) => route.falls,
                (false, _) => 0,
            };
        }
        let dial = route.dial.take();

        let (peer, hello) = (new.id, new.hello.clone());
        match (precedence, old) {
            (None, _) | (_, None) => {
                // It may be that nobody listens to events.
                let _ = self.events.send(Event::Connected { peer, hello });
            }
            (Some(Precedence::Restart), Some(old)) => {
                old.close(CloseCode::Replaced, "the peer restarted");
                let reason = DisconnectReason::Reset;
                let _ = self.events.send(Event::Disconnected { peer, reason });
                let _ = self.events.send(Event::Connected { peer, hello });
            }
            (Some(Precedence::Better), Some(old)) => {
                let (from, lossy) = (old.path(), old.is_doubted() || old.bulk.is_held());
                if lossy || from != path {
                    let _ = self.events.send(Event::Moved { peer, from, to: path, lossy });
                }
                self.retire(old);
            }
            (Some(Precedence::Worse), Some(_)) => self.retire(new.clone()),
            (Some(Precedence::Stale), Some(_)) => {
                new.close(CloseCode::Replaced, "of an earlier start of this node");
            }
        }
        if let Some(dial) = dial {
            dial.deliver(&current);
            self.expect_answer(&current);
        }
        if is_new {
            self.tend_in(&mut table, peer);
        }
        drop(table);
        tracing::debug!(
            peer = %peer.short(), dialled = new.dialled, boot = new.hello.boot, %path, ?precedence,
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
        let standing = |peer: &Peer| Standing {
            boot: peer.hello.boot,
            dialler: dialler(peer),
            is_direct: peer.path().is_direct(),
            name: peer.name,
            supersedes: peer.supersedes,
        };
        precedence(standing(old), standing(new), old.since.elapsed())
    }

    /// Closes a superseded connection when what is under way on it has had time to arrive, or when
    /// the peer lost the other one, too.
    fn retire(self: &Arc<Self>, peer: Arc<Peer>) {
        self.counters.duplicates.add(1);
        let pool = self.clone();
        tokio::spawn(async move {
            let until = Instant::now() + RETIREMENT_MAX;
            loop {
                let received = || peer.connection.stats().udp_rx.datagrams;
                let before = received();
                sleep(RETIREMENT).await;
                let is_done = received() == before && peer.outbox_bytes() == 0;
                if is_done
                    || peer.is_doubted()
                    || Instant::now() > until
                    || pool.peer(peer.id).is_none()
                {
                    break;
                }
            }
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
            // A reset comes from an agent that is up again, so it is dialled at once. If that
            // fails, whoever needs the peer dials it later.
            let _ = self.dial_in(&mut table, peer.id, true);
        }
    }
}
