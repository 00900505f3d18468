//! Brings replicas together: pushes what is new at once, takes in what others push, and runs the
//! sessions of anti-entropy that repair what pushes missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_proto::codec::DecodeError;
use peerage_proto::id::NodeId;
use peerage_proto::replica::sync::{
    FRAME_BYTES_MAX, PushFrame, SyncFrame, chunks, targets, verified,
};
use peerage_proto::replica::{ChangeError, Dot, SignedChange, Vector};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::mesh::{FrameError, read_frame, write_frame};
use crate::replica::receipts::Receipts;
use crate::replica::{ReplicaHandle, Views, WriteFailure};

/// How long a session waits for the peer's next frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);

/// Where frames for peers are queued.
pub trait Outbox: Send + Sync + 'static {
    /// Queues a frame for a peer, dialling it if need be. Never blocks. If the peer cannot be
    /// reached, the frame is lost, and a session repairs that.
    fn enqueue(&self, peer: NodeId, frame: Bytes);
}

/// Pushes what this node committed.
pub struct Pusher<B> {
    me: NodeId,
    outbox: Arc<B>,
    others: Vec<NodeId>,
    views: watch::Receiver<Views>,
    rng: StdRng,
}

impl<B: Outbox> Pusher<B> {
    /// A pusher of this node, to the members of a roster.
    pub fn new(me: NodeId, outbox: Arc<B>, mut views: watch::Receiver<Views>, seed: u64) -> Self {
        let others = views.borrow_and_update().roster.others(me).collect();
        Self { me, outbox, others, views, rng: StdRng::seed_from_u64(seed) }
    }

    /// Queues changes for the members that this node is to send them to.
    pub fn push(&mut self, changes: &[SignedChange], receipt: bool) {
        let mut gone = Vec::new();
        if self.views.has_changed().unwrap_or(false) {
            let roster = &self.views.borrow_and_update().roster;
            let now = roster.others(self.me).collect();
            // A node that has just left or was removed is sent these changes too, so that it hears
            // of its end.
            gone = std::mem::replace(&mut self.others, now);
            gone.retain(|node| !roster.is_current(node));
        }
        // A node that waits for receipts sends to every member itself: a member passes on no change
        // that it knows already, and a change that is passed on asks for no receipt.
        let (mut told, relay) = match receipt {
            true => (self.others.clone(), false),
            false => targets(&self.others, &mut self.rng),
        };
        told.extend(gone);
        for changes in chunks(changes) {
            let frame = Bytes::from(PushFrame::Changes { changes, relay, receipt }.encode());
            for node in &told {
                self.outbox.enqueue(*node, frame.clone());
            }
        }
    }
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
    /// The peer sent a change without one of its values, and no change that is known here
    /// supersedes that value.
    #[error("the peer sent a change without a value that nothing supersedes")]
    Abridged,
    /// The peer said something out of turn, or nothing more.
    #[error("the peer {0}")]
    Peer(&'static str),
    /// Nothing large gets through to the peer.
    #[error("nothing larger than a small packet arrives there")]
    Stalled,
    /// This node could not keep what came.
    #[error(transparent)]
    Own(#[from] WriteFailure),
}

impl SyncError {
    /// Whether the peer does not follow the protocol, rather than the network or this node's disk.
    pub fn is_the_peers_fault(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Change(_) | Self::Abridged | Self::Peer(_))
    }
}

/// Takes in one frame of a peer's push stream, as node `me`. Returns when its changes are on this
/// node's disk.
///
/// # Errors
/// [`SyncError`]; the frame came to nothing.
pub async fn take_push<B: Outbox>(
    me: NodeId,
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
                // The node that pushes may wait for a change that another node wrote: it wrote what
                // stood there already.
                for node in BTreeSet::from([change.dot.writer.node, from]) {
                    owed.entry(node).or_default().push(change.dot);
                }
            }
            if !replica.merge(changes, relay).await? {
                // A session brings the changes that superseded the values that were left out, so no
                // receipt is sent yet.
                return Ok(());
            }
            for (node, dots) in owed.into_iter().filter(|(node, _)| *node != me) {
                outbox.enqueue(node, PushFrame::Receipt(dots).encode().into());
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
                if !replica.merge(verified(changes)?, false).await? {
                    return Err(SyncError::Abridged);
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use peerage_proto::id::DataCenterId;
    use peerage_proto::identity::Keypair;
    use peerage_proto::replica::{Actor, Edit, Limits, Replica};
    use peerage_proto::roster::{Roster, member_path};
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::host::clock::Clock;
    use crate::replica::memory;

    #[derive(Default)]
    struct Sent(Mutex<Vec<(NodeId, PushFrame)>>);

    impl Outbox for Sent {
        fn enqueue(&self, peer: NodeId, frame: Bytes) {
            let frame = PushFrame::decode(&frame).expect("it was encoded here");
            self.0.lock().expect("no test panics with it").push((peer, frame));
        }
    }

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    fn replica(n: u8) -> Replica {
        Replica::new(DataCenterId([1; 16]), key(n), Limits::default())
    }

    fn write(replica: &mut Replica, path: &str, edit: Edit) -> SignedChange {
        let actor = Actor { who: "root".into(), via: "test".into() };
        let path = path.parse().expect("a path");
        let written = replica.write(&path, edit, actor, 1, Clock::start().now());
        let (written, outputs) = written.expect("the write is in bounds");
        replica.committed(&outputs.commit);
        written.change.expect("it says something new")
    }

    /// `settings set --wait all` with a value that another node had set before waited in vain,
    /// since the receipts all went to that other node.
    #[tokio::test]
    async fn who_waits_for_a_change_that_another_wrote_gets_the_receipts_too() {
        let [me, writer, waiting] = [1, 2, 3].map(|n| key(n).node_id());
        let set = [("f".parse().expect("a field"), 1.into())].into();
        let change = write(&mut replica(2), "x/y", Edit { set, ..Edit::default() });
        let frame = PushFrame::Changes {
            changes: vec![ByteBuf::from(change.bytes().to_vec())],
            relay: false,
            receipt: true,
        };
        let (here, sent) = (memory::serve(replica(1), Clock::start()), Sent::default());
        let receipts = Receipts::default();
        let took = take_push(me, waiting, &frame.encode(), &here, &receipts, &sent).await;
        took.expect("the frame holds");
        let mut sent = sent.0.into_inner().expect("no test panics with it");
        sent.sort_by_key(|(node, _)| *node);
        let mut expected = [writer, waiting].map(|n| (n, PushFrame::Receipt(vec![change.dot])));
        expected.sort_by_key(|(node, _)| *node);
        assert_eq!(sent, expected);
    }

    /// Above 64 members, only a few members are sent a write, and pass it on. Members that got it
    /// from those sent no receipt, so `--wait majority` was never reached.
    #[tokio::test]
    async fn where_receipts_are_wanted_every_member_is_asked_however_many_there_are() {
        let mut founder = replica(1);
        for n in 1..=80 {
            let (id, name) = (key(n).node_id(), format!("n{n}").parse().expect("a name"));
            let roster = Roster::of(&founder);
            let admission = roster.admission(&id, &name, &[], key(1).node_id(), None, 1);
            let _ = write(&mut founder, member_path(&id).as_str(), admission);
        }
        let set = [("f".parse().expect("a field"), 1.into())].into();
        let change = write(&mut founder, "x/y", Edit { set, ..Edit::default() });
        let (_, views) = watch::channel(Views::of(&founder));
        let sent = Arc::new(Sent::default());
        let mut pusher = Pusher::new(key(1).node_id(), sent.clone(), views, 1);
        let told = |sent: &Sent| std::mem::take(&mut *sent.0.lock().expect("no test panics"));
        pusher.push(std::slice::from_ref(&change), false);
        assert!(told(&sent).len() < 79);
        pusher.push(&[change], true);
        let told = told(&sent);
        assert_eq!(told.len(), 79);
        let direct = |(_, frame): &(NodeId, PushFrame)| {
            matches!(frame, PushFrame::Changes { relay: false, receipt: true, .. })
        };
        assert!(told.iter().all(direct));
    }
}
