//! The task that owns the replica: what is asked of it is decided in memory, committed in groups,
//! and only then acknowledged, sent and told.
//!
//! While one commit runs, the next group gathers; so one fsync serves all that waited for it. The
//! task waits for the disk and for nothing else: what it sends goes into queues that never block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerage_proto::replica::{
    Actor, Commit, Dot, Edit, FORGOTTEN_MAX, Field, Outputs, Path, Replica, Room, SignedChange,
    StoreOp, Vector, WriteError, Written,
};
use peerage_proto::roster::Roster;
use peerage_proto::skew::ClockOff;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error};

use crate::clock::Clock;
use crate::receipts::{Expected, Receipts};

/// How many requests wait for the replica before those who ask are held up.
const REQUESTS_MAX: usize = 1024;

/// How many requests one group commit takes in.
const GROUP_MAX: usize = 512;

/// What keeps the replica's commits.
pub trait Disk: Send + Sync + 'static {
    /// Puts a commit on disk, all of it or nothing.
    fn commit(&self, commit: &Commit) -> impl Future<Output = Result<(), Arc<str>>> + Send;

    /// The replica that the disk holds: what the task goes on from after a failed commit.
    fn reload(&self) -> impl Future<Output = Result<Replica, Arc<str>>> + Send;
}

/// Where what was committed goes out to.
pub trait Outlet: Send + 'static {
    /// Pushes changes to other nodes; with `receipt` they say when they have them on disk. Never
    /// blocks.
    fn push(&mut self, changes: &[SignedChange], receipt: bool);

    /// Tells those on this node who watch.
    fn tell(&mut self, changes: &[SignedChange]);
}

/// Why a write did not take place.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteFailure {
    /// A rule said no.
    #[error(transparent)]
    Rule(#[from] WriteError),
    /// The clock that would stamp it is wrong.
    #[error("{0}, and nothing is written with a clock that is so wrong")]
    Clock(ClockOff),
    /// The disk did not take it.
    #[error("it could not be put on disk: {0}")]
    Disk(Arc<str>),
    /// The node is on its way out of the Data Center, or the agent stops; whether it was written
    /// before that, nobody can say.
    #[error("this node is just leaving the Data Center, or its agent stops")]
    Stopping,
}

/// How far the replica is: what the other nodes are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The digest of what is on disk.
    pub digest: String,
    /// What is taken, and what may be.
    pub room: Room,
}

type Deferred = Box<dyn FnOnce(&Result<(), Arc<str>>) + Send>;
type Query = Box<dyn FnOnce(&Replica) -> Deferred + Send>;

/// A write that is on this node's disk.
#[derive(Debug)]
pub struct Acknowledged {
    /// What became of it.
    pub written: Written,
    /// The receipts of the other nodes, where they were asked for.
    pub receipts: Option<Expected>,
}

enum Request {
    Write {
        path: Path,
        edit: Edit,
        actor: Actor,
        receipt: bool,
        reply: oneshot::Sender<Result<Acknowledged, WriteFailure>>,
    },
    Merge {
        changes: Vec<SignedChange>,
        relay: bool,
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
    requests: mpsc::Sender<Request>,
    roster: watch::Receiver<Arc<Roster>>,
    progress: watch::Receiver<Progress>,
    /// Why nothing is to be written, while that is so.
    refusing: watch::Sender<Option<ClockOff>>,
    /// Whether the node is on its way out, so that nothing more is to be written.
    closed: watch::Sender<bool>,
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
    /// Writes to a document; returns when it is on this node's disk. With `receipt` the other nodes
    /// are asked to say when they have it; also where the document says it already.
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
        if self.is_closed() {
            return Err(WriteFailure::Stopping);
        }
        let refusing = *self.refusing.borrow();
        match refusing {
            Some(off) => Err(WriteFailure::Clock(off)),
            None => self.write_by_any_clock(path, edit, actor, receipt).await,
        }
    }

    /// Refuses all further writes by this node because of its clock, or, with `None`, takes them
    /// again. What comes from elsewhere is merged as ever.
    pub fn refuse_writes(&self, clock: Option<ClockOff>) {
        self.refusing.send_replace(clock);
    }

    /// Refuses all further writes by this node but its leaving, until the guard is dropped: what is
    /// acknowledged from here on would be lost with it. What comes from elsewhere is merged as ever.
    #[must_use]
    pub fn close(&self) -> Closed {
        self.closed.send_replace(true);
        Closed(self.closed.clone())
    }

    /// Whether the node is on its way out.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// As [`ReplicaHandle::write`], for what must be possible with a wrong clock too: to leave.
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
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Write { path, edit, actor, receipt, reply }).await?;
        outcome.await.map_err(|_| WriteFailure::Stopping)?
    }

    /// Merges changes from elsewhere; returns when they are on this node's disk, with whether all
    /// were taken ([`Outputs::untaken`]).
    ///
    /// # Errors
    /// [`WriteFailure`]; they will come again by anti-entropy.
    pub async fn merge(
        &self,
        changes: Vec<SignedChange>,
        relay: bool,
    ) -> Result<bool, WriteFailure> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Merge { changes, relay, reply }).await?;
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
            // What others supersede meanwhile is not waited for.
            if step < FORGOTTEN_MAX as u64 {
                return Ok(forgotten);
            }
        }
    }

    /// Looks at the replica. What a read shows of this node's own writes is on its disk.
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

    /// The members, as of the last commit.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.clone()
    }

    /// How far the replica is, as of the last commit.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    async fn ask(&self, request: Request) -> Result<(), WriteFailure> {
        self.requests.send(request).await.map_err(|_| WriteFailure::Stopping)
    }
}

/// What was decided and waits for its commit.
#[derive(Default)]
struct Group {
    outputs: Outputs,
    /// The changes to be pushed for which receipts are wanted.
    asked: BTreeSet<Dot>,
    /// Whether a write of this node is in it, which no read may show before it is on disk.
    writes: bool,
    replies: Vec<Deferred>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.outputs.commit.is_empty()
    }
}

/// The task's state.
pub struct ReplicaTask<D, O> {
    replica: Replica,
    disk: Arc<D>,
    outlet: O,
    receipts: Arc<Receipts>,
    clock: Clock,
    requests: mpsc::Receiver<Request>,
    roster: watch::Sender<Arc<Roster>>,
    progress: watch::Sender<Progress>,
}

impl<D: Disk, O: Outlet> ReplicaTask<D, O> {
    /// The task over a replica that the disk holds, and the handle to it. The outlet is made with a
    /// view of the members.
    pub fn new(
        replica: Replica,
        disk: Arc<D>,
        outlet: impl FnOnce(watch::Receiver<Arc<Roster>>) -> O,
        receipts: Arc<Receipts>,
        clock: Clock,
    ) -> (Self, ReplicaHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (roster, roster_watch) = watch::channel(Arc::new(Roster::of(&replica)));
        let (progress, progress_watch) = watch::channel(progress(&replica));
        let outlet = outlet(roster_watch.clone());
        let handle = ReplicaHandle {
            requests: sender,
            roster: roster_watch,
            progress: progress_watch,
            refusing: watch::Sender::new(None),
            closed: watch::Sender::new(false),
        };
        let task = Self { replica, disk, outlet, receipts, clock, requests, roster, progress };
        (task, handle)
    }

    /// Serves until every handle is gone.
    ///
    /// # Errors
    /// When the disk fails and cannot even be read again.
    pub async fn run(mut self) -> Result<(), Arc<str>> {
        let mut gathered = Vec::with_capacity(GROUP_MAX);
        let mut next = Group::default();
        while self.gather(&mut gathered, &mut next).await {
            while !next.is_empty() {
                let group = std::mem::take(&mut next);
                let (writes, commit) = (group.writes, group.outputs.commit.clone());
                let outcome = self.commit(&commit, writes, &mut gathered, &mut next).await;
                let failed = outcome.is_err();
                self.finish(group, &outcome);
                if failed {
                    // What gathered meanwhile was decided upon what is now gone.
                    let lost = std::mem::take(&mut next);
                    lost.replies.into_iter().for_each(|reply| reply(&outcome));
                    self.reload().await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for requests and decides on them. `false` when nobody is left to ask.
    async fn gather(&mut self, gathered: &mut Vec<Request>, next: &mut Group) -> bool {
        let some = self.requests.recv_many(gathered, GROUP_MAX).await > 0;
        for request in gathered.drain(..) {
            decide(&mut self.replica, request, self.clock, &self.receipts, false, next);
        }
        some
    }

    /// Commits a group, and decides meanwhile on what comes in.
    async fn commit(
        &mut self,
        commit: &Commit,
        writes: bool,
        gathered: &mut Vec<Request>,
        next: &mut Group,
    ) -> Result<(), Arc<str>> {
        if commit.is_empty() {
            return Ok(());
        }
        let disk = self.disk.clone();
        let mut committing = std::pin::pin!(disk.commit(commit));
        loop {
            let room = GROUP_MAX.saturating_sub(next.replies.len());
            tokio::select! {
                biased;
                outcome = &mut committing => return outcome,
                some = self.requests.recv_many(gathered, room), if room > 0 => {
                    for request in gathered.drain(..) {
                        let (clock, receipts) = (self.clock, &self.receipts);
                        decide(&mut self.replica, request, clock, receipts, writes, next);
                    }
                    if some == 0 {
                        return committing.await;
                    }
                }
            }
        }
    }

    /// Speaks of what was committed, in the one order that is safe.
    fn finish(&mut self, group: Group, outcome: &Result<(), Arc<str>>) {
        if let Err(cause) = outcome {
            // That the disk fails is told as a notice, and to each who waited.
            debug!(%cause, "a commit failed; nothing of it holds");
            group.replies.into_iter().for_each(|reply| reply(outcome));
            return;
        }
        let Group { outputs, asked, replies, .. } = group;
        self.replica.committed(&outputs.commit);
        let reserved = outputs.notify.iter().map(|change| &change.path).filter(|p| p.is_reserved());
        let mut reserved = reserved.peekable();
        if reserved.peek().is_some() {
            let roster = self.roster.borrow().after(&self.replica, reserved);
            self.publish_roster(roster);
        }
        let (asked, plain): (Vec<_>, Vec<_>) =
            outputs.send.into_iter().partition(|change| asked.contains(&change.dot));
        for (changes, receipt) in [(plain, false), (asked, true)] {
            if !changes.is_empty() {
                self.outlet.push(&changes, receipt);
            }
        }
        replies.into_iter().for_each(|reply| reply(outcome));
        if !outputs.notify.is_empty() {
            self.outlet.tell(&outputs.notify);
        }
        if !outputs.commit.is_empty() {
            self.progress.send_replace(progress(&self.replica));
        }
    }

    fn publish_roster(&self, roster: Roster) {
        self.roster.send_if_modified(|current| {
            let changed = **current != roster;
            if changed {
                *current = Arc::new(roster);
            }
            changed
        });
    }

    /// Goes on from what the disk holds. What this process writes from here on is written under a
    /// new incarnation: whether the failed commit is on disk after all, nobody can say.
    async fn reload(&mut self) -> Result<(), Arc<str>> {
        let reloaded = self.disk.reload().await;
        self.replica = reloaded.inspect_err(|cause| error!(%cause, "the disk cannot be read"))?;
        self.publish_roster(Roster::of(&self.replica));
        self.progress.send_replace(progress(&self.replica));
        Ok(())
    }
}

/// Decides on one request, into the group that is committed next. `writing` tells whether a write
/// of this node is being committed just now.
fn decide(
    replica: &mut Replica,
    request: Request,
    clock: Clock,
    receipts: &Arc<Receipts>,
    writing: bool,
    next: &mut Group,
) {
    match request {
        Request::Write { path, edit, actor, receipt, reply } => {
            let touched: BTreeSet<_> = edit.set.keys().cloned().collect();
            match replica.write(&path, edit, actor, rand::random(), clock.now()) {
                Err(error) => drop(reply.send(Err(error.into()))),
                Ok((written, outputs)) => {
                    next.writes |= written.change.is_some();
                    next.outputs.extend(outputs);
                    let receipts = receipt.then(|| {
                        let dots = match &written.change {
                            Some(change) => BTreeSet::from([change.dot]),
                            // The others may lack what stands there already: it goes out again.
                            None => {
                                let standing = saying(replica, &path, &touched);
                                let dots = standing.keys().copied().collect();
                                next.outputs.send.extend(standing.into_values());
                                dots
                            }
                        };
                        next.asked.extend(&dots);
                        receipts.expect(dots)
                    });
                    let acknowledged = Acknowledged { written, receipts };
                    next.replies.push(Box::new(move |committed| {
                        let outcome = committed.clone().map(|()| acknowledged);
                        let _ = reply.send(outcome.map_err(WriteFailure::Disk));
                    }));
                }
            }
        }
        Request::Merge { changes, relay, reply } => {
            let mut all = true;
            for change in changes {
                let outputs = replica.merge(change, relay, clock.now());
                all &= !outputs.untaken;
                next.outputs.extend(outputs);
            }
            next.replies.push(acknowledgement(reply, all));
        }
        Request::Absorb { vector, reply } => {
            next.outputs.extend(replica.absorb(&vector));
            next.replies.push(acknowledgement(reply, ()));
        }
        Request::Compact { reply } => {
            let outputs = replica.compact();
            let forgets = |op: &&StoreOp| matches!(op, StoreOp::Forget(_) | StoreOp::Abridge(_));
            let forgotten = outputs.commit.ops.iter().filter(forgets).count() as u64;
            next.outputs.extend(outputs);
            next.replies.push(Box::new(move |committed| {
                let outcome = committed.clone().map(|()| forgotten);
                let _ = reply.send(outcome.map_err(WriteFailure::Disk));
            }));
        }
        Request::Query(query) => {
            let reply = query(replica);
            if writing || next.writes { next.replies.push(reply) } else { reply(&Ok(())) }
        }
    }
}

/// The changes that say what these fields of a document show.
fn saying(replica: &Replica, path: &Path, fields: &BTreeSet<Field>) -> BTreeMap<Dot, SignedChange> {
    let shown = replica.document(path).into_iter().flat_map(|document| document.fields());
    let shown = shown.filter(|(field, _, _)| fields.contains(*field));
    shown.map(|(_, _, change)| (change.dot, change.clone())).collect()
}

fn acknowledgement<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, WriteFailure>>,
    outcome: T,
) -> Deferred {
    Box::new(move |committed| {
        let _ = reply.send(committed.clone().map(|()| outcome).map_err(WriteFailure::Disk));
    })
}

fn progress(replica: &Replica) -> Progress {
    Progress { digest: replica.digest(), room: replica.room() }
}

/// Replicas that tests run without a disk.
#[cfg(test)]
pub(crate) mod memory {
    use super::*;

    struct NoDisk;

    impl Disk for NoDisk {
        async fn commit(&self, _: &Commit) -> Result<(), Arc<str>> {
            Ok(())
        }

        async fn reload(&self) -> Result<Replica, Arc<str>> {
            Err("nothing was kept".into())
        }
    }

    struct Nobody;

    impl Outlet for Nobody {
        fn push(&mut self, _: &[SignedChange], _: bool) {}

        fn tell(&mut self, _: &[SignedChange]) {}
    }

    /// The handle to a task over a replica of which everything was committed.
    pub(crate) fn serve(replica: Replica, clock: Clock) -> ReplicaHandle {
        let receipts = Arc::new(Receipts::default());
        let (task, handle) =
            ReplicaTask::new(replica, Arc::new(NoDisk), |_| Nobody, receipts, clock);
        tokio::spawn(task.run());
        handle
    }
}
