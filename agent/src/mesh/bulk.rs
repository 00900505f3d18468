//! Peers to which nothing large gets through. The rule is `peerage_proto::bulk`.
//!
//! Where something large stands still, all that is on its way is taken back: streams are reset. From
//! then on nothing large is sent, and what is small leaves one at a time, on a stream of its own, so
//! that no packet becomes large of several small ones that were lost before. Thus the peer is not held
//! to be dead, and it gets receipts and small changes. A trial now and then shows when something large
//! arrives again. What was taken back or not sent is repaired by a session then, as after a
//! connection that was lost.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
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

/// While what is large is held back, a message or frame up to this size is sent nevertheless: QUIC
/// may put it into one packet with others that are as small, and the packet is not full.
pub(super) const ALONE_BYTES_MAX: usize = 500;

/// How many bytes of frames may wait to be sent so.
pub(super) const ALONE_WAITING_MAX: usize = 64 * 1024;

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
    /// Who sends something while what is large is held back: one at a time.
    turn: Arc<Mutex<()>>,
    /// How long that may take to arrive, in milliseconds.
    alone_ms: AtomicU64,
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

    /// A turn to send something small while what is large is held back, if it is free now.
    pub(super) fn try_turn(&self) -> Option<OwnedMutexGuard<()>> {
        self.turn.clone().try_lock_owned().ok()
    }

    /// Waits for such a turn.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
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

/// Sends something small on a stream of its own while what is large is held back, for which the
/// caller has a turn, and takes it back where it does not arrive in time. Whether it arrived.
pub(super) async fn send_alone(
    connection: &Connection,
    bulk: &Bulk,
    kind: StreamKind,
    bytes: Bytes,
) -> bool {
    let patience = Duration::from_millis(bulk.alone_ms.load(Ordering::Relaxed));
    let Ok(Ok(mut stream)) = timeout(patience, connection.open_uni()).await else { return false };
    let sent = async {
        stream.write_all_chunks(&mut [kind_byte(kind), bytes]).await.is_ok()
            && stream.finish().is_ok()
            && stream.stopped().await.is_ok()
    };
    let arrived = timeout(patience, sent).await.unwrap_or(false);
    if !arrived {
        take_back(&mut stream);
    }
    arrived
}

/// Waits until what a stream was given has arrived, or takes it back when what is large is held back.
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
    let allow = |patience: Duration| {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        bulk.alone_ms.store(ms, Ordering::Relaxed);
    };
    small_only(true);
    allow(pool.bulk_patience(peer) * 2);
    bulk.held.send_replace(true);
    pool.counters.stalls.add(1);
    tracing::debug!(peer = %peer.id.short(), path = %peer.path(), "nothing large gets through");
    let mut trials = Trials::new(Duration::ZERO);
    let mut closed = pin!(peer.connection.closed());
    loop {
        let patience = pool.bulk_patience(peer);
        allow(patience * 2);
        let (mut small, mut large) = (false, false);
        let trial = async {
            let _turn = bulk.turn().await;
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
