//! Peers to which nothing large gets through. The rule is `peerage_proto::bulk`.
//!
//! When large data stands still, this node takes back all data that is on its way, by a reset of
//! the streams. From then on it sends nothing large, and small data one message at a time. So other
//! nodes do not take the peer for dead, and the peer gets receipts and small changes. A trial now
//! and then shows when something large arrives again. A session then repairs what was taken back or
//! not sent, as after a connection that was lost.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use peerage_proto::bulk::{Trials, Wait, Watch};
use peerage_proto::wire::StreamKind;

use super::bulk::{SMALL_BYTES_MAX, take_back};
use super::frames::kind_byte;
use super::gauge::Gauge;
use super::peer::Peer;
use super::pool::Pool;
use super::report::Event;

/// How often this node checks whether large data on its way stands still.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much a trial of something large sends: several full packets, of whatever size.
const LARGE_TRIAL_BYTES: usize = 4 * 1024;

impl Peer {
    /// Sends so many bytes that nobody needs. Answers whether they arrived within `patience`, or,
    /// for a large trial, whether a full packet was confirmed.
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
    /// Makes sure that a task looks after large data that is on its way to a peer, if there is any.
    pub(super) fn look_at_bulk(self: &Arc<Self>, peer: &Arc<Peer>) {
        let waits = Gauge::of(&peer.connection).is_some_and(|gauge| gauge.waits_since().is_some());
        if waits && peer.bulk.begin_look() {
            tokio::spawn(look_after(self.clone(), peer.clone()));
        }
    }

    /// How long large data may stay unconfirmed: as long as it takes to doubt the path as a whole,
    /// since the failure detector would take a peer for dead in little more than twice the time.
    fn bulk_patience(&self, peer: &Peer) -> Duration {
        self.patience_with(peer.connection.rtt())
    }
}

async fn look_after(pool: Arc<Pool>, peer: Arc<Peer>) {
    if let Some(since) = stands_still(&pool, &peer).await {
        hold_back(&pool, &peer, since).await;
    }
    peer.bulk.end_look();
}

/// Looks until large data on its way arrives or stands still. Answers since when it stands still;
/// `None` if it arrived, or if the connection ended.
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

/// Holds back all large data until a large trial arrives, or the connection ends.
async fn hold_back(pool: &Arc<Pool>, peer: &Arc<Peer>, since: Instant) {
    let bulk = &peer.bulk;
    let small_only = |small_only| {
        if let Some(gauge) = Gauge::of(&peer.connection) {
            gauge.send_small_only(small_only);
            gauge.forget();
        }
    };
    small_only(true);
    bulk.allow(pool.bulk_patience(peer) * 2);
    bulk.hold();
    pool.counters.stalls.add(1);
    tracing::debug!(peer = %peer.id.short(), path = %peer.path(), "nothing large gets through");
    let mut trials = Trials::new(Duration::ZERO);
    let mut closed = pin!(peer.connection.closed());
    loop {
        let patience = pool.bulk_patience(peer);
        bulk.allow(patience * 2);
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
            bulk.tell(since);
            // It may be that nobody listens to events.
            let _ = pool.events.send(Event::Stalled { peer: peer.id });
            pool.tend(peer.id);
        }
        tokio::select! {
            () = sleep(trials.wait()) => {}
            _ = &mut closed => return,
        }
    }
    if trials.is_first() {
        // The first trial arrived, so large data got through all the time.
        pool.patience.widen();
    }
    tracing::debug!(peer = %peer.id.short(), "what is large gets through again");
    bulk.release();
    let _ = pool.events.send(Event::Released { peer: peer.id });
}
