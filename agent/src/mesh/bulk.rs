//! Tells whether large data is held back on a connection, and sends small data meanwhile: one
//! message at a time, on a stream of its own. So QUIC cannot put several small messages that were
//! lost into one large packet. `stall` decides when large data is held back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};

use peerage_proto::wire::{StreamCode, StreamKind};

use super::frames::kind_byte;

/// A message up to this size leaves in a packet that is not full.
pub(super) const SMALL_BYTES_MAX: usize = 1000;

/// While large data is held back, a message or frame up to this size is sent nevertheless. QUIC may
/// put it into one packet with another that is as small, and the packet is not full.
pub(super) const ALONE_BYTES_MAX: usize = 500;

/// How many bytes of small frames may wait while large data is held back.
pub(super) const ALONE_WAITING_MAX: usize = 64 * 1024;

/// What is known of the large data of one connection.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Whether a task looks after large data already.
    looked_at: AtomicBool,
    /// Whether large data is held back.
    held: watch::Sender<bool>,
    /// Since when nothing large gets through, once that was told.
    told: watch::Sender<Option<Instant>>,
    /// Held by whoever sends something while large data is held back, so that one thing is sent at
    /// a time.
    turn: Arc<Mutex<()>>,
    /// How long such a thing may take to arrive, in milliseconds.
    alone_ms: AtomicU64,
}

impl Bulk {
    /// Whether large data is held back.
    pub(super) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Since when nothing large gets through, if that was long enough to be told.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        *self.told.borrow()
    }

    /// Returns once large data is held back.
    pub(super) async fn held(&self) {
        self.until(true).await;
    }

    /// Returns once large data is not held back.
    pub(super) async fn released(&self) {
        self.until(false).await;
    }

    /// A turn to send something small while large data is held back, if the turn is free now.
    pub(super) fn try_turn(&self) -> Option<OwnedMutexGuard<()>> {
        self.turn.clone().try_lock_owned().ok()
    }

    /// Waits for such a turn.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Whether the caller is to look after large data; `false` if another task does already.
    pub(super) fn begin_look(&self) -> bool {
        !self.looked_at.swap(true, Ordering::AcqRel)
    }

    /// Nobody looks any more.
    pub(super) fn end_look(&self) {
        self.looked_at.store(false, Ordering::Release);
    }

    /// Holds back large data from now on.
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Notes that nothing large gets through since then, which was told now.
    pub(super) fn tell(&self, since: Instant) {
        self.told.send_replace(Some(since));
    }

    /// Large data gets through again.
    pub(super) fn release(&self) {
        self.told.send_replace(None);
        self.held.send_replace(false);
    }

    /// Sets how long something small may take to arrive while large data is held back.
    pub(super) fn allow(&self, patience: Duration) {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.alone_ms.store(ms, Ordering::Relaxed);
    }

    async fn until(&self, held: bool) {
        // The sender is in `self`.
        let _ = self.held.subscribe().wait_for(|now| *now == held).await;
    }
}

/// Takes back what was given to a stream and has not arrived.
pub(super) fn take_back(stream: &mut SendStream) {
    // A stream that has ended already has nothing to take back.
    let _ = stream.reset(StreamCode::TooSlow.number().into());
}

/// Sends something small on a stream of its own while large data is held back, and takes it back if
/// it does not arrive in time. The caller holds the turn. Answers whether it arrived.
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

/// Waits until the data of a stream has arrived, or takes it back once large data is held back.
pub(super) async fn see_through(mut stream: SendStream, bulk: &Bulk) {
    tokio::select! {
        _ = stream.stopped() => {}
        () = bulk.held() => take_back(&mut stream),
    }
}
