//! One connection with a member that passed the hello, and all that this node sends on it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use peerage_proto::id::NodeId;
use peerage_proto::wire::{CloseCode, Hello, StreamKind, cut};

use super::bulk::{ALONE_BYTES_MAX, Bulk, SMALL_BYTES_MAX, see_through, send_alone};
use super::detour::Detours;
use super::frames::{OpenError, kind_byte};
use super::gauge::Gauge;
use super::hello::Greeted;
use super::outbox::{OUTBOX_BYTES_MAX, Outbox, Put, write_frames};
use super::path::Path;
use super::report::{Counters, DisconnectReason, PeerStatus};
use super::router::detach;
use super::tls::connection_name;
use super::watch::Watch;

/// Messages that may be under way to one peer; more are dropped.
pub(super) const MESSAGES_OUT_MAX: usize = 32;

/// Packets of detours that may be under way to one peer, each until the peer has confirmed it; more
/// are dropped.
pub(super) const PACKETS_OUT_MAX: usize = 64;

/// Packets of detours have the lowest priority; messages and sessions have the priority 0.
const CARRIED_PRIORITY: i32 = -1;

pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) connection: Connection,
    pub(super) hello: Arc<Hello>,
    /// Whether this node dialled.
    pub(super) dialled: bool,
    pub(super) since: Instant,
    /// The name of this connection, which both ends derive and nobody else can.
    pub(super) name: u64,
    /// The connection that the dialler gave up for this one.
    pub(super) supersedes: Option<u64>,
    /// Whether the peer answers on this connection.
    pub(super) watch: Watch,
    /// Whether large data gets through to the peer.
    pub(super) bulk: Arc<Bulk>,
    clock_ahead_ms: Option<i64>,
    counters: Arc<Counters>,
    detours: Arc<Detours>,
    messages: Arc<Semaphore>,
    packets: Arc<Semaphore>,
    outbox: Arc<Outbox>,
    /// The code and words with which this node closed the connection, if it did.
    closed_with: OnceLock<(CloseCode, String)>,
}

impl Peer {
    pub(super) fn new(
        id: NodeId,
        connection: Connection,
        greeted: Greeted,
        dialled: bool,
        counters: Arc<Counters>,
        detours: Arc<Detours>,
    ) -> Self {
        if let Some(gauge) = Gauge::of(&connection) {
            gauge.forget();
        }
        Self {
            id,
            name: connection_name(&connection),
            watch: Watch::of(&connection),
            connection,
            hello: greeted.hello,
            dialled,
            since: Instant::now(),
            supersedes: greeted.supersedes,
            bulk: Arc::default(),
            clock_ahead_ms: greeted.clock_ahead_ms,
            counters,
            detours,
            messages: Arc::new(Semaphore::new(MESSAGES_OUT_MAX)),
            packets: Arc::new(Semaphore::new(PACKETS_OUT_MAX)),
            outbox: Arc::default(),
            closed_with: OnceLock::new(),
        }
    }

    /// Sends a datagram now; QUIC drops the oldest where too many wait.
    pub(super) fn send_datagram(&self, bytes: Bytes) {
        match self.connection.send_datagram(bytes) {
            Ok(()) => self.counters.datagrams_out.add(1),
            Err(error) => {
                tracing::debug!(peer = %self.id.short(), %error, "a datagram was not sent");
                self.counters.datagrams_dropped.add(1);
            }
        }
    }

    /// Sends something small on a stream of its own while large data is held back. Answers `false`
    /// if it is not small, or if something else is on its way.
    fn send_alone(&self, kind: StreamKind, bytes: Bytes) -> bool {
        if bytes.len() > ALONE_BYTES_MAX {
            return false;
        }
        let Some(turn) = self.bulk.try_turn() else { return false };
        let (connection, bulk) = (self.connection.clone(), self.bulk.clone());
        detach(async move {
            let _turn = turn;
            if !send_alone(&connection, &bulk, kind, bytes).await {
                tracing::debug!(?kind, "something small did not arrive");
            }
        });
        true
    }

    /// Sends a message on a stream of its own, or drops it where too many are under way. While
    /// large data is held back, one small message is sent at a time, and all others are dropped.
    pub(super) fn send_message(&self, kind: StreamKind, bytes: Bytes) {
        if self.bulk.is_held() {
            let is_sent = self.send_alone(kind, bytes);
            let count =
                if is_sent { &self.counters.messages_out } else { &self.counters.messages_dropped };
            return count.add(1);
        }
        let is_large = bytes.len() > SMALL_BYTES_MAX;
        let Ok(permit) = self.messages.clone().try_acquire_owned() else {
            return self.counters.messages_dropped.add(1);
        };
        self.counters.messages_out.add(1);
        let (connection, bulk) = (self.connection.clone(), self.bulk.clone());
        detach(async move {
            let mut permit = Some(permit);
            let sent: Result<(), OpenError> = async {
                let mut stream = connection.open_uni().await?;
                stream.write_all_chunks(&mut [kind_byte(kind), bytes]).await?;
                // The stream is ours and open, so this only marks its end.
                let _ = stream.finish();
                if !is_large {
                    permit.take();
                }
                see_through(stream, &bulk).await;
                Ok(())
            }
            .await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a message was not sent");
            }
        });
    }

    /// Sends a message about a detour, or drops it where too many are under way, and answers
    /// `false`.
    pub(super) fn send_detour(&self, message: Vec<u8>) -> bool {
        if self.bulk.is_held() {
            let is_sent = self.send_alone(StreamKind::Detour, message.into());
            if !is_sent {
                self.counters.carried_dropped.add(1);
            }
            return is_sent;
        }
        let Ok(permit) = self.packets.clone().try_acquire_owned() else {
            self.counters.carried_dropped.add(1);
            return false;
        };
        let (connection, bulk) = (self.connection.clone(), self.bulk.clone());
        detach(async move {
            let _permit = permit;
            let Ok(mut stream) = connection.open_uni().await else { return };
            let _ = stream.set_priority(CARRIED_PRIORITY);
            let mut chunks = [kind_byte(StreamKind::Detour), message.into()];
            if stream.write_all_chunks(&mut chunks).await.is_ok() {
                let _ = stream.finish();
            }
            // The permit is held until the peer has confirmed the packet, so that few are under way
            // to a slow peer.
            see_through(stream, &bulk).await;
        });
        true
    }

    /// How the peer is reached now. The path of a connection that the peer began changes when the
    /// peer's address changes.
    pub(super) fn path(&self) -> Path {
        self.detours.path(self.connection.remote_address())
    }

    /// Whether packets of detours may be sent to the peer: its version knows detours, it is reached
    /// directly, it answers, and large data gets through to it.
    pub(super) fn may_carry(&self) -> bool {
        let is_sound = !self.is_doubted() && !self.bulk.is_held();
        self.hello.carries && self.path().is_direct() && is_sound
    }

    /// Whether the connection fell into doubt, and no answer has come since.
    pub(super) fn is_doubted(&self) -> bool {
        self.watch.is_in_doubt()
    }

    /// How many bytes of frames wait in the outbox or are being written.
    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Queues a frame for the push stream. While large data is held back, the frame is dropped
    /// unless it is small and few bytes wait. If the outbox is full, the frame is dropped and the
    /// connection is closed. Answers `false` if the frame was dropped.
    pub(super) fn push(&self, frame: Bytes) -> bool {
        if self.bulk.is_held() && !self.outbox.has_room_for_small(&frame) {
            self.counters.frames_dropped.add(1);
            return false;
        }
        match self.outbox.put(frame) {
            Put::Queued => self.outbox.wake(),
            Put::First => {
                tokio::spawn(write_frames(
                    self.connection.clone(),
                    self.outbox.clone(),
                    self.bulk.clone(),
                    self.counters.clone(),
                ));
            }
            Put::Full => {
                self.counters.overruns.add(1);
                self.counters.frames_dropped.add(1);
                let message = format!("{OUTBOX_BYTES_MAX} bytes wait to be taken");
                self.close(CloseCode::Overrun, &message);
                return false;
            }
        }
        self.counters.frames_out.add(1);
        true
    }

    /// Opens a session; the peer hears of it with the first byte, which is sent here.
    pub(super) async fn open(
        &self,
        kind: StreamKind,
    ) -> Result<(SendStream, RecvStream), OpenError> {
        let (mut send, recv) = self.connection.open_bi().await?;
        send.write_all_chunks(&mut [kind_byte(kind)]).await?;
        self.counters.sessions_out.add(1);
        Ok((send, recv))
    }

    /// Closes the connection with a code and as many words as [`cut`] leaves; what was not
    /// sent yet is lost.
    pub(super) fn close(&self, code: CloseCode, message: &str) {
        let message = cut(message);
        // The first reason is the one that counts.
        let _ = self.closed_with.set((code, message.to_owned()));
        self.connection.close(VarInt::from_u32(code.number()), message.as_bytes());
    }

    /// Why the connection ended.
    pub(super) fn reason(&self, error: &ConnectionError) -> DisconnectReason {
        match error {
            ConnectionError::ApplicationClosed(close) => DisconnectReason::ByPeer {
                code: CloseCode::from(close.error_code.into_inner()),
                message: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::LocallyClosed => {
                let (code, message) =
                    self.closed_with.get().cloned().unwrap_or((CloseCode::Dropped, String::new()));
                DisconnectReason::Here { code, message }
            }
            ConnectionError::TimedOut => DisconnectReason::Silent,
            ConnectionError::Reset => DisconnectReason::Reset,
            other => DisconnectReason::Failed(other.to_string()),
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            peer: self.id,
            path: self.path(),
            doubted: self.is_doubted(),
            local: self.connection.local_ip().map(|ip| ip.to_canonical()),
            rtt: self.connection.rtt(),
            age: self.since.elapsed(),
            boot: self.hello.boot,
            hello: self.hello.clone(),
            clock_ahead_ms: self.clock_ahead_ms,
            dialled: self.dialled,
            outbox_bytes: self.outbox.bytes(),
            stalled: self.bulk.stalled_since().map(|since| since.elapsed()),
        }
    }
}
