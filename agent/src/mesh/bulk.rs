//! Peers to which nothing large gets through. The rule is `peerage_proto::bulk`.
//!
//! Where something large stands still, all that is large is taken back: streams are reset, and no new
//! ones begin. What is small then has packets of its own and arrives, so that the peer is not held to
//! be dead, and a trial now and then shows when something large arrives again. What was taken back
//! is repaired by a session, as after a connection that was lost.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::SendStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use peerage_proto::bulk::{Trials, Wait, Watch};
use peerage_proto::wire::{StreamCode, StreamKind};

use super::gauge::Gauge;
use super::peer::{Peer, kind_byte};
use super::pool::Pool;
use super::report::Event;

/// How often it is looked whether what is large stands still, while it is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A message up to this size leaves in a packet that is not full.
pub(super) const SMALL_BYTES_MAX: usize = 1000;

/// How much a trial of something large sends: several full packets, of whatever size.
const LARGE_TRIAL_BYTES: usize = 4 * 1024;

/// What is known of the bulk of one connection.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Whether somebody looks already.
    looked_at: AtomicBool,
    /// Whether what is large is held back.
    held: watch::Sender<bool>,
    /// Since when, where that was told.
    told: watch::Sender<Option<Instant>>,
}

impl Bulk {
    /// Whether what is large is held back.
    pub(super) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Since when nothing large gets through, where it was long enough to be told.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        *self.told.borrow()
    }

    /// Returns once what is large is held back.
    pub(super) async fn held(&self) {
        self.until(true).await;
    }

    /// Returns once it is not.
    pub(super) async fn released(&self) {
        self.until(false).await;
    }

    async fn until(&self, held: bool) {
        // The sender is in `self`.
        let _ = self.held.subscribe().wait_for(|now| *now == held).await;
    }
}

/// Takes back what was given to a stream and has not arrived.
pub(super) fn take_back(stream: &mut SendStream) {
    // One that ended already has nothing to take back.
    let _ = stream.reset(StreamCode::TooSlow.number().into());
}

/// Waits until what a stream was given has arrived, or takes it back with all that is large.
pub(super) async fn see_through(mut stream: SendStream, bulk: &Bulk) {
    tokio::select! {
        _ = stream.stopped() => {}
        () = bulk.held() => take_back(&mut stream),
    }
}

impl Peer {
    /// Sends so many bytes that nobody needs. Whether they arrived within this time.
    async fn try_out(&self, bytes: usize, patience: Duration) -> bool {
        let Some(gauge) = Gauge::of(&self.connection) else { return true };
        let confirmed = gauge.confirmed();
        let Ok(Ok(mut stream)) = timeout(patience, self.connection.open_uni()).await else {
            return false;
        };
        let arrived = async {
            let filling = Bytes::from(vec![0; bytes]);
            stream.write_all_chunks(&mut [kind_byte(StreamKind::Trial), filling]).await.is_ok()
                && stream.finish().is_ok()
                && stream.stopped().await.is_ok()
        };
        // A peer that does not know the kind stops the stream, which tells that it came.
        let arrived = timeout(patience, arrived).await.unwrap_or(false);
        if !arrived {
            take_back(&mut stream);
        }
        arrived || (bytes > SMALL_BYTES_MAX && gauge.confirmed() > confirmed)
    }

    fn packets_heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }
}

impl Pool {
    /// Sees to it that somebody looks after what is large and on its way to a peer, if there is any.
    pub(super) fn look_at_bulk(self: &Arc<Self>, peer: &Arc<Peer>) {
        let waits = Gauge::of(&peer.connection).is_some_and(|gauge| gauge.waits_since().is_some());
        if waits && !peer.bulk.looked_at.swap(true, Ordering::AcqRel) {
            tokio::spawn(look_after(self.clone(), peer.clone()));
        }
    }

    /// How long nothing large may be confirmed: as long as it takes to doubt the path as a whole, since
    /// the failure detector would take a peer for dead in little more than twice the time.
    fn bulk_patience(&self, peer: &Peer) -> Duration {
        self.patience_with(peer.connection.rtt())
    }
}

async fn look_after(pool: Arc<Pool>, peer: Arc<Peer>) {
    if let Some(since) = stands_still(&pool, &peer).await {
        hold_back(&pool, &peer, since).await;
    }
    peer.bulk.looked_at.store(false, Ordering::Release);
}

/// Looks until what is large and on its way arrives, or stands still: then since when.
async fn stands_still(pool: &Pool, peer: &Peer) -> Option<Instant> {
    let waits_since = || Some(Instant::from_std(Gauge::of(&peer.connection)?.waits_since()?));
    let (mut watch, start) = (Watch::default(), waits_since()?);
    loop {
        let since = waits_since()?;
        let wait = Wait { since: since.saturating_duration_since(start) };
        let (now, heard) = (start.elapsed(), peer.packets_heard());
        if watch.look(now, Some(wait), heard, pool.bulk_patience(peer)) {
            return Some(since);
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            _ = peer.connection.closed() => return None,
        }
    }
}

/// Holds back all that is large until a trial arrives, or the connection ends.
async fn hold_back(pool: &Arc<Pool>, peer: &Arc<Peer>, since: Instant) {
    let bulk = &peer.bulk;
    let small_only = |small_only| {
        if let Some(gauge) = Gauge::of(&peer.connection) {
            gauge.send_small_only(small_only);
            gauge.forget();
        }
    };
    small_only(true);
    bulk.held.send_replace(true);
    pool.counters.stalls.add(1);
    tracing::debug!(peer = %peer.id.short(), path = %peer.path(), "nothing large gets through");
    let mut trials = Trials::new(Duration::ZERO);
    let mut closed = pin!(peer.connection.closed());
    loop {
        let patience = pool.bulk_patience(peer);
        let (mut small, mut large) = (false, false);
        let trial = async {
            small = peer.try_out(1, patience * 2).await;
            large = small && peer.try_out(LARGE_TRIAL_BYTES, patience).await;
        };
        tokio::select! {
            () = trial => {}
            _ = &mut closed => return,
        }
        small_only(!large);
        if large {
            break;
        }
        if trials.failed(since.elapsed(), small) {
            bulk.told.send_replace(Some(since));
            // Nobody may be listening.
            let _ = pool.events.send(Event::Stalled { peer: peer.id });
            pool.tend(peer.id);
        }
        tokio::select! {
            () = sleep(trials.wait()) => {}
            _ = &mut closed => return,
        }
    }
    if trials.is_first() {
        // It did all the time.
        pool.patience.widen();
    }
    tracing::debug!(peer = %peer.id.short(), "what is large gets through again");
    bulk.told.send_replace(None);
    bulk.held.send_replace(false);
    let _ = pool.events.send(Event::Released { peer: peer.id });
}
