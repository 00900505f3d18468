//! Brings replicas together: pushes what is new at once, takes in what others push, and runs the
//! sessions of anti-entropy that repair what pushes missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_proto::codec::DecodeError;
use peerage_proto::id::NodeId;
use peerage_proto::replica::sync::{
    FRAME_BYTES_MAX, PushFrame, SyncFrame, chunks, targets, verified,
};
use peerage_proto::replica::{ChangeError, Dot, SignedChange, Vector};
use peerage_proto::roster::Roster;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::mesh::{FrameError, read_frame, write_frame};
use crate::receipts::Receipts;
use crate::replica::{ReplicaHandle, WriteFailure};

/// How long a session waits for the peer's next frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);

/// Where frames for peers are queued.
pub trait Outbox: Send + Sync + 'static {
    /// Queues a frame for a peer, dialling it if need be. Never blocks; what a peer that cannot be
    /// reached is not sent, a session repairs.
    fn enqueue(&self, peer: NodeId, frame: Bytes);
}

/// Pushes what this node committed.
pub struct Pusher<B> {
    me: NodeId,
    outbox: Arc<B>,
    others: Vec<NodeId>,
    roster: watch::Receiver<Arc<Roster>>,
    rng: StdRng,
}

impl<B: Outbox> Pusher<B> {
    /// A pusher of this node, to the members of a roster.
    pub fn new(
        me: NodeId,
        outbox: Arc<B>,
        mut roster: watch::Receiver<Arc<Roster>>,
        seed: u64,
    ) -> Self {
        let others = others(me, &roster.borrow_and_update());
        Self { me, outbox, others, roster, rng: StdRng::seed_from_u64(seed) }
    }

    /// Queues changes for those who are to have them.
    pub fn push(&mut self, changes: &[SignedChange], receipt: bool) {
        let before = std::mem::take(&mut self.others);
        self.others = if self.roster.has_changed().unwrap_or(false) {
            others(self.me, &self.roster.borrow_and_update())
        } else {
            before.clone()
        };
        // Who was just put out is told so, with the rest.
        let gone = before.into_iter().filter(|node| !self.others.contains(node));
        let (mut told, relay) = targets(&self.others, &mut self.rng);
        told.extend(gone);
        for changes in chunks(changes) {
            let frame = Bytes::from(PushFrame::Changes { changes, relay, receipt }.encode());
            for node in &told {
                self.outbox.enqueue(*node, frame.clone());
            }
        }
    }
}

fn others(me: NodeId, roster: &Roster) -> Vec<NodeId> {
    roster.current().map(|member| member.id).filter(|id| *id != me).collect()
}

/// Why a push or a session ended early. What was merged before stays.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The stream or its connection failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent what does not read.
    #[error("the peer sent a frame that does not read: {0}")]
    Decode(#[from] DecodeError),
    /// The peer sent a change that does not verify.
    #[error("the peer sent a change that does not hold: {0}")]
    Change(#[from] ChangeError),
    /// The peer said something out of turn, or nothing more.
    #[error("the peer {0}")]
    Peer(&'static str),
    /// This node could not keep what came.
    #[error(transparent)]
    Own(#[from] WriteFailure),
}

impl SyncError {
    /// Whether the peer does not follow the protocol, rather than the network or this node's disk.
    pub fn is_the_peers_fault(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Change(_) | Self::Peer(_))
    }
}

/// Takes in one frame of a peer's push stream. Returns when its changes are on this node's disk.
///
/// # Errors
/// [`SyncError`]; the frame came to nothing.
pub async fn take_push<B: Outbox>(
    from: NodeId,
    frame: &[u8],
    replica: &ReplicaHandle,
    receipts: &Receipts,
    outbox: &B,
) -> Result<(), SyncError> {
    match PushFrame::decode(frame)? {
        PushFrame::Receipt(dots) => receipts.note(from, dots),
        PushFrame::Changes { changes, relay, receipt } => {
            let changes = verified(changes)?;
            let mut owed: BTreeMap<NodeId, Vec<Dot>> = BTreeMap::new();
            for change in changes.iter().filter(|_| receipt) {
                owed.entry(change.dot.writer.node).or_default().push(change.dot);
            }
            replica.merge(changes, relay).await?;
            for (writer, dots) in owed {
                outbox.enqueue(writer, PushFrame::Receipt(dots).encode().into());
            }
        }
    }
    Ok(())
}

/// What a session did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionReport {
    /// Changes sent.
    pub sent: usize,
    /// Changes received, known or not.
    pub received: usize,
}

/// Runs one session on a stream, the same on both sides.
///
/// # Errors
/// [`SyncError`]; what was merged before stays, and the next session does the rest.
pub async fn session<S, R>(
    peer: NodeId,
    mut send: S,
    mut recv: R,
    replica: &ReplicaHandle,
    receipts: &Receipts,
) -> Result<SessionReport, SyncError>
where
    S: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let have = replica.read(|replica| replica.durable_vector().clone()).await?;
    write(&mut send, &SyncFrame::Have(have)).await?;
    let SyncFrame::Have(theirs) = read(&mut recv).await? else {
        return Err(SyncError::Peer("did not say what it has"));
    };
    let (kept_here, kept_sender) = tokio::sync::oneshot::channel::<Vector>();
    let sending = async {
        let (changes, vector) = replica.read(move |replica| replica.delta(&theirs)).await?;
        for changes in chunks(&changes) {
            write(&mut send, &SyncFrame::Changes(changes)).await?;
        }
        write(&mut send, &SyncFrame::Done(vector)).await?;
        let kept = kept_sender.await.map_err(|_| SyncError::Peer("did not end the session"))?;
        write(&mut send, &SyncFrame::Kept(kept)).await?;
        Ok::<_, SyncError>(changes.len())
    };
    let receiving = async {
        let received = receive(&mut recv, replica).await?;
        let kept = replica.read(|replica| replica.durable_vector().clone()).await?;
        let _ = kept_here.send(kept);
        match read(&mut recv).await? {
            SyncFrame::Kept(vector) => receipts.note_vector(peer, &vector),
            _ => return Err(SyncError::Peer("went on after its end")),
        }
        Ok(received)
    };
    let (sent, received) = tokio::try_join!(sending, receiving)?;
    Ok(SessionReport { sent, received })
}

async fn receive<R: AsyncRead + Unpin>(
    recv: &mut R,
    replica: &ReplicaHandle,
) -> Result<usize, SyncError> {
    let mut received = 0;
    loop {
        match read(recv).await? {
            SyncFrame::Changes(changes) => {
                received += changes.len();
                replica.merge(verified(changes)?, false).await?;
            }
            SyncFrame::Done(vector) => {
                replica.absorb(vector).await?;
                return Ok(received);
            }
            SyncFrame::Have(_) | SyncFrame::Kept(_) => {
                return Err(SyncError::Peer("said something out of turn"));
            }
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(send: &mut S, frame: &SyncFrame) -> Result<(), SyncError> {
    let bytes = frame.encode();
    let outcome = timeout(FRAME_TIMEOUT, write_frame(send, &bytes, FRAME_BYTES_MAX)).await;
    Ok(outcome.map_err(|_| SyncError::Peer("takes nothing in"))??)
}

async fn read<R: AsyncRead + Unpin>(recv: &mut R) -> Result<SyncFrame, SyncError> {
    let frame = timeout(FRAME_TIMEOUT, read_frame(recv, FRAME_BYTES_MAX)).await;
    let frame = frame.map_err(|_| SyncError::Peer("fell silent"))??;
    Ok(SyncFrame::decode(&frame.ok_or(SyncError::Peer("ended the stream too early"))?)?)
}
