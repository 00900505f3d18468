//! Delivers what peers send to the tasks that serve each kind of stream.
//!
//! Each kind has one bounded queue, made before the mesh starts. A full queue never holds up the
//! others: datagrams and messages are dropped and counted, sessions are refused with a code, and
//! frames of a push stream wait, each peer's on its own stream, until QUIC's flow control tells
//! that peer to wait as well.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use peerage_proto::id::NodeId;
use peerage_proto::wire::{CloseCode, StreamCode, StreamKind};

use super::door::JoinDoor;
use super::frames::{FrameError, read_frame};
use super::report::Counters;

/// How long a message may take from its first byte to its last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A datagram of a peer; it may be lost, doubled or overtaken.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: NodeId,
    /// What it says.
    pub bytes: Bytes,
}

/// A message of a peer: it came whole, or not at all.
#[derive(Debug)]
pub struct Message {
    /// Who sent it.
    pub from: NodeId,
    /// What it says; within the kind's bound.
    pub bytes: Bytes,
}

/// A session that a peer opened.
#[derive(Debug)]
pub struct Session {
    /// Who opened it.
    pub from: NodeId,
    /// The way to the peer.
    pub send: SendStream,
    /// The way from the peer; the kind was read off it.
    pub recv: RecvStream,
}

/// A frame of a peer's push stream. The frames of one stream come in order and without gaps. After
/// the peer has taken a stream back, it begins another one.
#[derive(Debug)]
pub struct Frame {
    /// Who sent it.
    pub from: NodeId,
    /// What it says; within the kind's bound.
    pub bytes: Bytes,
}

/// A connection on the join protocol: of a node that asks to be admitted, or of a seed that dials
/// back. Whoever takes it closes it. It never reaches the streams of members.
#[derive(Debug)]
pub struct IncomingJoin {
    /// The connection, its handshake done; closed by the mesh after a bounded time.
    pub connection: Connection,
    /// The node at the other end, proved by its key and by nothing else.
    pub peer: NodeId,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Its place at the door.
    pub at_door: JoinDoor,
}

/// Which task serves which kind of stream. The router is made before the mesh, and complete when
/// the mesh starts.
#[derive(Debug, Default)]
pub struct Router {
    datagrams: Option<mpsc::Sender<Datagram>>,
    messages: HashMap<StreamKind, mpsc::Sender<Message>>,
    frames: HashMap<StreamKind, mpsc::Sender<Frame>>,
    sessions: HashMap<StreamKind, mpsc::Sender<Session>>,
    joins: Option<mpsc::Sender<IncomingJoin>>,
}

impl Router {
    /// A router that serves nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes datagrams; at most `capacity` wait.
    pub fn datagrams(&mut self, capacity: usize) -> mpsc::Receiver<Datagram> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.datagrams = Some(sender);
        receiver
    }

    /// Takes messages of a kind; at most `capacity` wait.
    pub fn messages(&mut self, kind: StreamKind, capacity: usize) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.messages.insert(kind, sender);
        receiver
    }

    /// Takes frames of the push streams of all peers, in turn; at most `capacity` wait here, and
    /// one for each peer besides.
    pub fn frames(&mut self, capacity: usize) -> mpsc::Receiver<Frame> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.frames.insert(StreamKind::Push, sender);
        receiver
    }

    /// Takes sessions of a kind; at most `capacity` wait.
    pub fn sessions(&mut self, kind: StreamKind, capacity: usize) -> mpsc::Receiver<Session> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.sessions.insert(kind, sender);
        receiver
    }

    /// Takes connections on the join protocol; at most `capacity` wait.
    pub fn joins(&mut self, capacity: usize) -> mpsc::Receiver<IncomingJoin> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.joins = Some(sender);
        receiver
    }

    /// Hands a join connection over; gives it back where nobody has room for it.
    pub(super) fn join(&self, join: IncomingJoin) -> Result<(), IncomingJoin> {
        match &self.joins {
            Some(joins) => joins.try_send(join).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(join),
        }
    }
}

/// Delivers all that a peer sends, until the connection ends; answers why it did.
pub(super) async fn deliver(
    connection: Connection,
    from: NodeId,
    router: Arc<Router>,
    counters: Arc<Counters>,
) -> ConnectionError {
    let inbound = Inbound { connection: connection.clone(), from, router, counters };
    loop {
        tokio::select! {
            biased;
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => inbound.datagram(bytes),
                Err(error) => return error,
            },
            stream = connection.accept_uni() => match stream {
                Ok(recv) => detach(inbound.clone().uni(recv)),
                Err(error) => return error,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => detach(inbound.clone().bi(send, recv)),
                Err(error) => return error,
            },
        }
    }
}

/// Runs a future here as far as it goes without waiting, and as a task from there on: most
/// messages are whole when they are looked at, and need no task.
pub(super) fn detach(future: impl Future<Output = ()> + Send + 'static) {
    let mut future = Box::pin(future);
    if future.as_mut().now_or_never().is_none() {
        tokio::spawn(future);
    }
}

#[derive(Clone)]
struct Inbound {
    connection: Connection,
    from: NodeId,
    router: Arc<Router>,
    counters: Arc<Counters>,
}

impl Inbound {
    fn datagram(&self, bytes: Bytes) {
        self.counters.datagrams_in.add(1);
        let datagram = Datagram { from: self.from, bytes };
        let sent = self.router.datagrams.as_ref().map(|queue| queue.try_send(datagram));
        if !matches!(sent, Some(Ok(()))) {
            self.counters.datagrams_dropped.add(1);
        }
    }

    async fn uni(self, mut recv: RecvStream) {
        let kind = match timeout(MESSAGE_TIMEOUT, recv.read_u8()).await {
            Ok(Ok(byte)) => StreamKind::from_byte(byte),
            Ok(Err(_)) => return,
            Err(_) => return stop(&mut recv, StreamCode::TooSlow),
        };
        let Some(kind) = kind else {
            return stop(&mut recv, StreamCode::UnknownKind);
        };
        if let Some(queue) = self.router.messages.get(&kind) {
            self.message(kind, queue, recv).await;
        } else if let Some(queue) = self.router.frames.get(&kind) {
            self.frames(kind, queue, recv).await;
        } else {
            stop(&mut recv, StreamCode::UnknownKind);
        }
    }

    async fn message(&self, kind: StreamKind, queue: &mpsc::Sender<Message>, mut recv: RecvStream) {
        match timeout(MESSAGE_TIMEOUT, rest(&mut recv, kind.frame_bytes_max())).await {
            Ok(Ok(Some(bytes))) => {
                self.counters.messages_in.add(1);
                if queue.try_send(Message { from: self.from, bytes }).is_err() {
                    self.counters.messages_dropped.add(1);
                }
            }
            Ok(Ok(None)) => stop(&mut recv, StreamCode::TooLong),
            Ok(Err(_)) => {}
            Err(_) => stop(&mut recv, StreamCode::TooSlow),
        }
    }

    async fn frames(&self, kind: StreamKind, queue: &mpsc::Sender<Frame>, mut recv: RecvStream) {
        loop {
            match read_frame(&mut recv, kind.frame_bytes_max()).await {
                Ok(Some(bytes)) => {
                    self.counters.frames_in.add(1);
                    if queue.send(Frame { from: self.from, bytes }).await.is_err() {
                        return stop(&mut recv, StreamCode::UnknownKind);
                    }
                }
                Ok(None) | Err(FrameError::CutShort | FrameError::Stream(_)) => return,
                // The rest of the stream cannot be split into frames. A peer that sends this breaks
                // the protocol, so its whole connection is closed.
                Err(error @ FrameError::TooLong { .. }) => {
                    tracing::warn!(peer = %self.from.short(), %error, "closing the connection");
                    let code = CloseCode::Protocol.number().into();
                    return self.connection.close(code, error.to_string().as_bytes());
                }
            }
        }
    }

    async fn bi(self, mut send: SendStream, mut recv: RecvStream) {
        let kind = match timeout(MESSAGE_TIMEOUT, recv.read_u8()).await {
            Ok(Ok(byte)) => StreamKind::from_byte(byte),
            Ok(Err(_)) => return,
            Err(_) => return refuse(send, recv, StreamCode::TooSlow),
        };
        let Some(queue) = kind.and_then(|kind| self.router.sessions.get(&kind)) else {
            return refuse(send, recv, StreamCode::UnknownKind);
        };
        self.counters.sessions_in.add(1);
        // Dropping a receiving stream stops it without a code, so room is asked for first.
        match queue.try_reserve() {
            Ok(room) => room.send(Session { from: self.from, send, recv }),
            Err(_) => {
                self.counters.sessions_refused.add(1);
                let _ = send.reset(StreamCode::Busy.number().into());
                stop(&mut recv, StreamCode::Busy);
            }
        }
    }
}

/// What is left of a stream; `None` where that is more than `bound` bytes.
///
/// This reads in order, as the stream's first byte was read. quinn's `read_to_end` reads in any
/// order, and the two must not be mixed on one stream (quinn-proto 0.11.19). If a packet had come
/// twice, `read_to_end` gave out bytes that had been read before, so the message was wrong. quinn
/// then counted more bytes as read than the stream had, and that overflowed when the stream was
/// dropped.
async fn rest(recv: &mut RecvStream, bound: usize) -> Result<Option<Bytes>, ReadError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = recv.read_chunk(bound + 1 - whole.len(), true).await? {
        whole.extend_from_slice(&chunk.bytes);
        if whole.len() > bound {
            return Ok(None);
        }
    }
    Ok(Some(whole.freeze()))
}

/// Tells the peer to send no more on a stream; it may have ended already, which is as good.
fn stop(recv: &mut RecvStream, code: StreamCode) {
    let _ = recv.stop(code.number().into());
}

fn refuse(mut send: SendStream, mut recv: RecvStream, code: StreamCode) {
    let _ = send.reset(code.number().into());
    stop(&mut recv, code);
}
