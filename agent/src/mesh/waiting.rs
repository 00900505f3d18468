//! What waits for a dial: callers that asked for the connection, and what is to leave by it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use peerage_proto::wire::StreamKind;

use super::dial::DialError;
use super::frames::PREFIX_BYTES;
use super::outbox::OUTBOX_BYTES_MAX;
use super::peer::Peer;
use super::report::Counters;

/// Datagrams and messages that wait for a dial; the oldest is dropped first. Frames are bounded by
/// [`OUTBOX_BYTES_MAX`] instead, as in the outbox that they move to: a gap in them costs a repair.
const WAITING_MAX: usize = 16;

/// What is to be sent once there is a connection.
pub(super) enum Outgoing {
    Datagram(Bytes),
    Message(StreamKind, Bytes),
    Frame(Bytes),
}

type Waiter = oneshot::Sender<Result<Arc<Peer>, DialError>>;

/// A dial under way, and the callers that wait for it.
#[derive(Default)]
pub(super) struct Dial {
    /// Tells this dial from a later one of the same node.
    pub(super) mark: Arc<()>,
    pub(super) waiters: Vec<Waiter>,
    short: VecDeque<Outgoing>,
    frames: Vec<Bytes>,
    frames_bytes: usize,
}

impl Outgoing {
    pub(super) fn leave(self, peer: &Peer) -> bool {
        match self {
            Self::Datagram(bytes) => peer.send_datagram(bytes),
            Self::Message(kind, bytes) => peer.send_message(kind, bytes),
            Self::Frame(bytes) => return peer.push(bytes),
        }
        true
    }

    /// The length and the bound, if this is longer than its bound: the peer would stop the stream
    /// of such a message, and close the connection over such a frame.
    pub(super) fn excess(&self) -> Option<(usize, usize)> {
        let (found, bound) = match self {
            // QUIC knows the bound of datagrams, which depends on the path.
            Self::Datagram(_) => return None,
            Self::Message(kind, bytes) => (bytes.len(), kind.frame_bytes_max()),
            Self::Frame(bytes) => (bytes.len(), StreamKind::Push.frame_bytes_max()),
        };
        (found > bound).then_some((found, bound))
    }

    pub(super) fn drop_counted(self, counters: &Counters) {
        match self {
            Self::Datagram(_) => counters.datagrams_dropped.add(1),
            Self::Message(..) => counters.messages_dropped.add(1),
            Self::Frame(_) => counters.frames_dropped.add(1),
        }
    }
}

impl Dial {
    pub(super) fn queue(&mut self, outgoing: Outgoing, counters: &Counters) -> bool {
        if let Outgoing::Frame(frame) = outgoing {
            let size = PREFIX_BYTES + frame.len();
            if self.frames_bytes + size > OUTBOX_BYTES_MAX {
                counters.frames_dropped.add(1);
                return false;
            }
            self.frames_bytes += size;
            self.frames.push(frame);
            return true;
        }
        if self.short.len() >= WAITING_MAX
            && let Some(oldest) = self.short.pop_front()
        {
            oldest.drop_counted(counters);
        }
        self.short.push_back(outgoing);
        true
    }

    pub(super) fn deliver(self, peer: &Arc<Peer>) {
        for frame in self.frames {
            peer.push(frame);
        }
        for outgoing in self.short {
            outgoing.leave(peer);
        }
        for waiter in self.waiters {
            // A caller that gave up waiting needs no answer.
            let _ = waiter.send(Ok(peer.clone()));
        }
    }

    pub(super) fn fail(self, error: &DialError, counters: &Counters) {
        counters.frames_dropped.add(self.frames.len() as u64);
        for outgoing in self.short {
            outgoing.drop_counted(counters);
        }
        for waiter in self.waiters {
            let _ = waiter.send(Err(error.clone()));
        }
    }
}
