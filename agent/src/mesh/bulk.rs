//! Whether what is large is held back on a connection, and how what is small leaves meanwhile: one at a
//! time, on a stream of its own, so that no packet becomes large of several small ones that were lost
//! before. When it is held back `stall` tells.

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

/// While what is large is held back, a message or frame up to this size is sent nevertheless: QUIC
/// may put it into one packet with others that are as small, and the packet is not full.
pub(super) const ALONE_BYTES_MAX: usize = 500;

/// How many bytes of frames may wait to be sent so.
pub(super) const ALONE_WAITING_MAX: usize = 64 * 1024;

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

    /// Whether the caller is to look after what is large: `false` where somebody does already.
    pub(super) fn begin_look(&self) -> bool {
        !self.looked_at.swap(true, Ordering::AcqRel)
    }

    /// Nobody looks any more.
    pub(super) fn end_look(&self) {
        self.looked_at.store(false, Ordering::Release);
    }

    /// Holds back what is large, from now on.
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// It was told that nothing large gets through, since then.
    pub(super) fn tell(&self, since: Instant) {
        self.told.send_replace(Some(since));
    }

    /// What is large gets through again.
    pub(super) fn release(&self) {
        self.told.send_replace(None);
        self.held.send_replace(false);
    }

    /// How long something small may take to arrive while what is large is held back.
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
