//! Frames that wait for a peer's push stream, in a bounded number of bytes, and how they leave.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use quinn::{Connection, SendStream, WriteError};
use tokio::sync::Notify;

use peerage_proto::wire::{CloseCode, StreamKind};

use super::bulk::{Bulk, take_back};
use super::frames::{PREFIX_BYTES, put_frame};
use super::peer::{OpenError, kind_byte};
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
    /// Those in `frames` and those in a write that has not ended, each with its prefix; at most
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

    /// All that waits, up to [`BATCH_BYTES`] and at least one frame, as one buffer.
    fn batch(&self, buffer: &mut BytesMut) {
        let mut queue = self.lock();
        while let Some(frame) = queue.frames.pop_front() {
            put_frame(buffer, &frame);
            let next = queue.frames.front().map_or(0, Bytes::len);
            if buffer.len() + PREFIX_BYTES + next > BATCH_BYTES {
                break;
            }
        }
    }

    /// There is more for the writer.
    pub(super) fn wake(&self) {
        self.more.notify_one();
    }

    fn written(&self, count: usize) {
        self.lock().bytes -= count;
    }

    /// Forgets all that waits, and a write of so many bytes; how many frames waited.
    fn forget(&self, in_write: usize) -> u64 {
        let mut queue = self.lock();
        let waiting = queue.frames.drain(..).map(|frame| PREFIX_BYTES + frame.len());
        let (count, bytes) = waiting.fold((0, in_write), |(n, sum), size| (n + 1, sum + size));
        queue.bytes -= bytes;
        count
    }

    /// Bytes that wait, or are being written.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what comes to a push stream; `in_write` tells how much is in a write that has not ended.
async fn write(
    connection: &Connection,
    outbox: &Outbox,
    stream: &mut SendStream,
    in_write: &mut usize,
) -> Result<Infallible, OpenError> {
    stream.write_chunk(kind_byte(StreamKind::Push)).await?;
    let mut buffer = BytesMut::new();
    loop {
        outbox.batch(&mut buffer);
        if buffer.is_empty() {
            tokio::select! {
                () = outbox.more.notified() => continue,
                error = connection.closed() => return Err(error.into()),
            }
        }
        let batch = buffer.split().freeze();
        *in_write = batch.len();
        stream.write_chunk(batch).await?;
        outbox.written(std::mem::take(in_write));
    }
}

/// Writes the outbox to the push stream until the connection ends. Where what is large is held back
/// the stream is reset, with all that has not arrived, and another one is begun afterwards.
pub(super) async fn write_frames(
    connection: Connection,
    outbox: Arc<Outbox>,
    bulk: Arc<Bulk>,
    counters: Arc<Counters>,
) {
    let written: Result<Infallible, OpenError> = async {
        loop {
            let mut stream = connection.open_uni().await?;
            let _ = stream.set_priority(PUSH_PRIORITY);
            let mut in_write = 0;
            let held = tokio::select! {
                biased;
                () = bulk.held() => Ok(()),
                Err(error) = write(&connection, &outbox, &mut stream, &mut in_write) => Err(error),
            };
            held?;
            take_back(&mut stream);
            counters.frames_dropped.add(outbox.forget(in_write));
            tokio::select! {
                () = bulk.released() => {}
                error = connection.closed() => return Err(error.into()),
            }
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
