//! Frames that wait for a peer's push stream, in a bounded number of bytes, and how they leave.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, SendStream, WriteError};
use tokio::sync::Notify;

use peerage_proto::wire::{CloseCode, StreamKind};

use super::bulk::{ALONE_BYTES_MAX, ALONE_WAITING_MAX, Bulk, send_alone, take_back};
use super::frames::{OpenError, PREFIX_BYTES, kind_byte, put_frame};
use super::report::Counters;

/// What may wait in the outbox of one peer. A peer that is further behind is better served by
/// anti-entropy, so its connection is closed.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How much of an outbox goes into one write.
const BATCH_BYTES: usize = 256 * 1024;

/// The push stream goes before messages and sessions, whose priority is 0.
const PUSH_PRIORITY: i32 = 1;

/// Frames that wait for the push stream.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// The bytes of `frames` and of a write that has not ended, each frame with its prefix; at most
    /// [`OUTBOX_BYTES_MAX`].
    bytes: usize,
    has_writer: bool,
}

pub(super) enum Put {
    /// Queued; the writer is there.
    Queued,
    /// Queued; the writer is to be started.
    First,
    /// No room.
    Full,
}

impl Outbox {
    /// Takes a frame in, if there is room.
    pub(super) fn put(&self, frame: Bytes) -> Put {
        let mut queue = self.lock();
        let size = PREFIX_BYTES + frame.len();
        if queue.bytes + size > OUTBOX_BYTES_MAX {
            return Put::Full;
        }
        queue.bytes += size;
        queue.frames.push_back(frame);
        if std::mem::replace(&mut queue.has_writer, true) { Put::Queued } else { Put::First }
    }

    /// Whether a frame may wait to be sent while large data is held back: it is small, and there is
    /// room for it.
    pub(super) fn has_room_for_small(&self, frame: &Bytes) -> bool {
        let size = PREFIX_BYTES + frame.len();
        size <= ALONE_BYTES_MAX && self.bytes() + size <= ALONE_WAITING_MAX
    }

    /// Moves frames that wait into `buffer`: at least one, and more up to `most` bytes. Answers how
    /// many frames that were.
    fn batch(&self, buffer: &mut BytesMut, most: usize) -> u64 {
        let mut queue = self.lock();
        let mut count = 0;
        while let Some(frame) = queue.frames.pop_front() {
            put_frame(buffer, &frame);
            count += 1;
            let next = queue.frames.front().map_or(0, Bytes::len);
            if buffer.len() + PREFIX_BYTES + next > most {
                break;
            }
        }
        count
    }

    fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Returns when there may be more frames, or with the error when the connection ends.
    async fn comes(&self, connection: &Connection) -> Result<(), ConnectionError> {
        tokio::select! {
            () = self.more.notified() => Ok(()),
            error = connection.closed() => Err(error),
        }
    }

    /// There is more for the writer.
    pub(super) fn wake(&self) {
        self.more.notify_one();
    }

    fn written(&self, count: usize) {
        self.lock().bytes -= count;
    }

    /// Forgets a write that has not ended, and the frames that wait, except as many small ones as
    /// may wait while large data is held back. Answers how many waiting frames were forgotten.
    fn keep_small(&self) -> u64 {
        let mut queue = self.lock();
        let (before, mut kept) = (queue.frames.len(), 0);
        queue.frames.retain(|frame| {
            let size = PREFIX_BYTES + frame.len();
            let keeps = size <= ALONE_BYTES_MAX && kept + size <= ALONE_WAITING_MAX;
            kept += if keeps { size } else { 0 };
            keeps
        });
        queue.bytes = kept;
        (before - queue.frames.len()) as u64
    }

    /// Bytes that wait, or are being written.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the frames of the outbox to a push stream, until that fails.
async fn write(
    connection: &Connection,
    outbox: &Outbox,
    stream: &mut SendStream,
) -> Result<Infallible, OpenError> {
    stream.write_chunk(kind_byte(StreamKind::Push)).await?;
    let mut buffer = BytesMut::new();
    loop {
        outbox.batch(&mut buffer, BATCH_BYTES);
        if buffer.is_empty() {
            outbox.comes(connection).await?;
            continue;
        }
        let batch = buffer.split().freeze();
        let size = batch.len();
        stream.write_chunk(batch).await?;
        outbox.written(size);
    }
}

/// While large data is held back, sends small frames, a few at a time on a stream of their own. The
/// frames stay in order, since one such stream ends before the next begins. Frames that do not
/// arrive are dropped.
async fn write_small(
    connection: &Connection,
    outbox: &Outbox,
    bulk: &Bulk,
    counters: &Counters,
) -> Result<(), OpenError> {
    let mut buffer = BytesMut::new();
    while bulk.is_held() {
        if outbox.is_empty() {
            tokio::select! {
                () = bulk.released() => {}
                come = outbox.comes(connection) => come?,
            }
            continue;
        }
        let _turn = bulk.turn().await;
        let count = outbox.batch(&mut buffer, ALONE_BYTES_MAX);
        let batch = buffer.split().freeze();
        let size = batch.len();
        if !send_alone(connection, bulk, StreamKind::Push, batch).await {
            counters.frames_dropped.add(count);
        }
        outbox.written(size);
        if let Some(error) = connection.close_reason() {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Writes the outbox to the push stream until the connection ends. When large data is held back,
/// the stream is reset, and what has not arrived on it is lost. Small frames then leave on streams
/// of their own, until large data gets through again and another push stream begins.
pub(super) async fn write_frames(
    connection: Connection,
    outbox: Arc<Outbox>,
    bulk: Arc<Bulk>,
    counters: Arc<Counters>,
) {
    let written: Result<Infallible, OpenError> = async {
        loop {
            write_small(&connection, &outbox, &bulk, &counters).await?;
            let mut stream = connection.open_uni().await?;
            let _ = stream.set_priority(PUSH_PRIORITY);
            let held = tokio::select! {
                biased;
                () = bulk.held() => Ok(()),
                Err(error) = write(&connection, &outbox, &mut stream) => Err(error),
            };
            held?;
            take_back(&mut stream);
            counters.frames_dropped.add(outbox.keep_small());
        }
    }
    .await;
    let lost = outbox.lock().frames.drain(..).count();
    counters.frames_dropped.add(lost as u64);
    if let Err(OpenError::Stream(WriteError::Stopped(code))) = written {
        // The peer serves no frames: what is pushed to it would pile up unseen.
        let message = format!("the push stream was stopped with code {code}");
        connection.close(CloseCode::Protocol.number().into(), message.as_bytes());
    }
}
