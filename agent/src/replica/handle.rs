//! How the rest of the agent speaks with the replica.

use std::sync::Arc;

use peerage_proto::replica::{
    Actor, Edit, FORGOTTEN_MAX, Path, Replica, Room, SignedChange, Vector, WriteError, Written,
};
use peerage_proto::skew::ClockOff;
use tokio::sync::{mpsc, oneshot, watch};

use super::receipts::Expected;
use super::views::Views;

/// Why a write did not take place.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteFailure {
    /// A rule forbids the write.
    #[error(transparent)]
    Rule(#[from] WriteError),
    /// The clock that would stamp it is wrong.
    #[error("{0}, and nothing is written with a clock that is so wrong")]
    Clock(ClockOff),
    /// The disk did not take it.
    #[error("it could not be put on disk: {0}")]
    Disk(Arc<str>),
    /// The node is leaving the Data Center, or its agent stops. Whether the write took place before
    /// that is not known.
    #[error("this node is just leaving the Data Center, or its agent stops")]
    Stopping,
}

/// The state of the replica that other nodes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The digest of what is on disk.
    pub digest: String,
    /// How much space is taken, and how much may be.
    pub room: Room,
}

pub(super) type Deferred = Box<dyn FnOnce(&Result<(), Arc<str>>) + Send>;
pub(super) type Query = Box<dyn FnOnce(&Replica) -> Deferred + Send>;

/// Edits that are written together, each document at most once.
pub type Edits = Vec<(Path, Edit)>;

/// Decides what to write; `None` if nothing is to be written.
pub(super) type Decision = Box<dyn FnOnce(&Replica, &Views) -> Option<Edits> + Send>;

/// Writes that are on this node's disk.
#[derive(Debug)]
pub struct Acknowledged {
    /// The result of each edit, in their order.
    pub written: Vec<Written>,
    /// The receipts of the other nodes, where they were asked for.
    pub receipts: Option<Expected>,
}

/// Why a transaction did not take place. Nothing was written.
#[derive(Debug)]
pub enum Untransacted<E> {
    /// The decision was not to write.
    Decided(E),
    /// It could not be written.
    Failed(WriteFailure),
}

impl<E> From<WriteFailure> for Untransacted<E> {
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(failure)
    }
}

/// A request to the task.
pub(super) enum Request {
    Transact {
        decision: Decision,
        actor: Actor,
        receipt: bool,
        /// Gets `None` if the decision was not to write.
        reply: oneshot::Sender<Result<Option<Acknowledged>, WriteFailure>>,
    },
    Merge {
        changes: Vec<SignedChange>,
        relay: bool,
        /// Whether each of the changes is a proof by itself, which counts even if other changes of
        /// its commit are missing here.
        proof: bool,
        reply: oneshot::Sender<Result<bool, WriteFailure>>,
    },
    Absorb {
        vector: Vector,
        reply: oneshot::Sender<Result<(), WriteFailure>>,
    },
    Compact {
        reply: oneshot::Sender<Result<u64, WriteFailure>>,
    },
    Query(Query),
}

/// How the rest of the agent speaks with the replica. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) views: watch::Receiver<Views>,
    pub(super) progress: watch::Receiver<Progress>,
    /// Why this node may not write now, if it may not.
    pub(super) refusing: watch::Sender<Option<ClockOff>>,
    /// Whether the node is leaving, so that it may write nothing more.
    pub(super) closed: watch::Sender<bool>,
}

/// Keeps a replica closed to writes while it lives.
#[derive(Debug)]
pub struct Closed(watch::Sender<bool>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl ReplicaHandle {
    /// Writes to a document; returns when the change is on this node's disk. With `receipt`, the
    /// other nodes are asked to say when they have it on theirs, even if the document had this
    /// content before.
    ///
    /// # Errors
    /// [`WriteFailure`], and nothing was written.
    pub async fn write(
        &self,
        path: Path,
        edit: Edit,
        actor: Actor,
        receipt: bool,
    ) -> Result<Acknowledged, WriteFailure> {
        self.check_open()?;
        self.write_by_any_clock(path, edit, actor, receipt).await
    }

    /// Decides what to write and writes it as one commit, all of it or nothing, with no other write
    /// in between. The decision sees all that was decided before it, on disk or not yet, and its
    /// answer is given once all of that is on disk. `receipt` is as for [`write`](Self::write).
    ///
    /// # Errors
    /// [`Untransacted`], and nothing was written.
    pub async fn transact<T: Send + 'static, E: Send + 'static>(
        &self,
        actor: Actor,
        receipt: bool,
        decide: impl FnOnce(&Replica, &Views) -> Result<(T, Edits), E> + Send + 'static,
    ) -> Result<(T, Acknowledged), Untransacted<E>> {
        self.check_open()?;
        let (tell, told) = oneshot::channel();
        let decision: Decision = Box::new(move |replica, views| {
            let (answer, edits) = match decide(replica, views) {
                Ok((answer, edits)) => (Ok(answer), Some(edits)),
                Err(refusal) => (Err(refusal), None),
            };
            // The caller may have hung up; the edits are written all the same.
            let _ = tell.send(answer);
            edits
        });
        let acknowledged = self.perform(decision, actor, receipt).await?;
        match (told.await, acknowledged) {
            (Ok(Ok(answer)), Some(acknowledged)) => Ok((answer, acknowledged)),
            (Ok(Err(refusal)), _) => Err(Untransacted::Decided(refusal)),
            _ => Err(WriteFailure::Stopping.into()),
        }
    }

    async fn perform(
        &self,
        decision: Decision,
        actor: Actor,
        receipt: bool,
    ) -> Result<Option<Acknowledged>, WriteFailure> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Transact { decision, actor, receipt, reply }).await?;
        outcome.await.map_err(|_| WriteFailure::Stopping)?
    }

    /// Whether this node may write now.
    fn check_open(&self) -> Result<(), WriteFailure> {
        if self.is_closed() {
            return Err(WriteFailure::Stopping);
        }
        let refusing = *self.refusing.borrow();
        refusing.map_or(Ok(()), |off| Err(WriteFailure::Clock(off)))
    }

    /// Refuses all further writes by this node because of its clock, or, with `None`, takes them
    /// again. Changes from other nodes are merged as ever.
    pub fn refuse_writes(&self, clock: Option<ClockOff>) {
        self.refusing.send_replace(clock);
    }

    /// Refuses all further writes by this node except the one by which it leaves, until the guard
    /// is dropped. A write that was acknowledged from here on would be lost with the node. Changes
    /// from other nodes are merged as ever.
    #[must_use]
    pub fn close(&self) -> Closed {
        self.closed.send_replace(true);
        Closed(self.closed.clone())
    }

    /// Whether the node is leaving.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// As [`ReplicaHandle::write`], but also with a wrong clock and on a closed replica: this is
    /// how a node leaves.
    ///
    /// # Errors
    /// [`WriteFailure`], and nothing was written.
    pub async fn write_by_any_clock(
        &self,
        path: Path,
        edit: Edit,
        actor: Actor,
        receipt: bool,
    ) -> Result<Acknowledged, WriteFailure> {
        let decision: Decision = Box::new(move |_, _| Some(vec![(path, edit)]));
        let acknowledged = self.perform(decision, actor, receipt).await?;
        acknowledged.ok_or(WriteFailure::Stopping)
    }

    /// Merges changes from other nodes; returns when they are on this node's disk, and answers
    /// whether all were taken ([`untaken`](peerage_proto::replica::Outputs::untaken)).
    ///
    /// # Errors
    /// [`WriteFailure`]; anti-entropy brings the changes again.
    pub async fn merge(
        &self,
        changes: Vec<SignedChange>,
        relay: bool,
    ) -> Result<bool, WriteFailure> {
        self.bring(changes, relay, false).await
    }

    /// As [`ReplicaHandle::merge`], for changes that are each a proof by itself. The roster takes
    /// them in at once, even if other changes of their commits never come.
    ///
    /// # Errors
    /// [`WriteFailure`].
    pub async fn merge_proof(
        &self,
        changes: Vec<SignedChange>,
        relay: bool,
    ) -> Result<bool, WriteFailure> {
        self.bring(changes, relay, true).await
    }

    async fn bring(
        &self,
        changes: Vec<SignedChange>,
        relay: bool,
        proof: bool,
    ) -> Result<bool, WriteFailure> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Merge { changes, relay, proof, reply }).await?;
        outcome.await.map_err(|_| WriteFailure::Stopping)?
    }

    /// Takes over a peer's vector at the end of a session; returns when it is on disk.
    ///
    /// # Errors
    /// [`WriteFailure`].
    pub async fn absorb(&self, vector: Vector) -> Result<(), WriteFailure> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Absorb { vector, reply }).await?;
        outcome.await.map_err(|_| WriteFailure::Stopping)?
    }

    /// Forgets the history of the settings; returns how many changes that were, once they are
    /// forgotten on this node's disk.
    ///
    /// # Errors
    /// [`WriteFailure`]; what was forgotten before stays so.
    pub async fn compact(&self) -> Result<u64, WriteFailure> {
        let mut forgotten = 0;
        loop {
            let (reply, outcome) = oneshot::channel();
            self.ask(Request::Compact { reply }).await?;
            let step = outcome.await.map_err(|_| WriteFailure::Stopping)??;
            forgotten += step;
            // Changes that others supersede meanwhile are not waited for.
            if step < FORGOTTEN_MAX as u64 {
                return Ok(forgotten);
            }
        }
    }

    /// Looks at the replica. The writes of this node that the answer shows are on its disk when it
    /// is given.
    ///
    /// # Errors
    /// [`WriteFailure::Stopping`], or [`WriteFailure::Disk`] where a write that it had seen failed.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> Result<T, WriteFailure> {
        let (reply, outcome) = oneshot::channel();
        let query: Query = Box::new(move |replica| {
            let answer = query(replica);
            Box::new(move |committed| {
                let _ = reply.send(committed.clone().map(|()| answer));
            })
        });
        self.ask(Request::Query(query)).await?;
        outcome.await.map_err(|_| WriteFailure::Stopping)?.map_err(WriteFailure::Disk)
    }

    /// The views, as of the last commit.
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    /// The state of the replica, as of the last commit.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    async fn ask(&self, request: Request) -> Result<(), WriteFailure> {
        self.requests.send(request).await.map_err(|_| WriteFailure::Stopping)
    }
}
