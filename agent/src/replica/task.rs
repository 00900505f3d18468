//! The task that owns the replica: what is asked of it is decided in memory, committed in groups,
//! and only then acknowledged, sent and told.
//!
//! While one commit runs, the next group gathers; so one fsync serves all that waited for it. The
//! task waits for the disk and for nothing else: what it sends goes into queues that never block.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::replica::{
    Actor, Commit, Dot, Field, Outputs, Path, Replica, SignedChange, StoreOp, WriteError,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, error, warn};

use crate::host::clock::Clock;
use crate::replica::receipts::Receipts;

use super::handle::{
    Acknowledged, Decision, Deferred, Progress, ReplicaHandle, Request, WriteFailure,
};
use super::views::Views;

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
        let Outputs { commit, send, notify, .. } = &self.outputs;
        self.replies.is_empty() && commit.is_empty() && send.is_empty() && notify.is_empty()
    }

    /// Answers what was seen once that is on disk, if it is not: while a write of this node is being
    /// committed (`writing`), or is to be.
    fn answer(&mut self, reply: Deferred, writing: bool) {
        if writing || self.writes { self.replies.push(reply) } else { reply(&Ok(())) }
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
    views: watch::Sender<Views>,
    progress: watch::Sender<Progress>,
}

impl<D: Disk, O: Outlet> ReplicaTask<D, O> {
    /// The task over a replica that the disk holds, and the handle to it. The outlet is made with
    /// the views.
    pub fn new(
        replica: Replica,
        disk: Arc<D>,
        outlet: impl FnOnce(watch::Receiver<Views>) -> O,
        receipts: Arc<Receipts>,
        clock: Clock,
    ) -> (Self, ReplicaHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (views, views_watch) = watch::channel(Views::of(&replica));
        let (progress, progress_watch) = watch::channel(progress(&replica));
        let outlet = outlet(views_watch.clone());
        let handle = ReplicaHandle {
            requests: sender,
            views: views_watch,
            progress: progress_watch,
            refusing: watch::Sender::new(None),
            closed: watch::Sender::new(false),
        };
        let task = Self { replica, disk, outlet, receipts, clock, requests, views, progress };
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
                self.tell_overdue(&mut next);
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
        let overdue = self.replica.overdue_at();
        let wait = overdue.map(|due| due.saturating_sub(self.clock.now().mono));
        tokio::select! {
            some = self.requests.recv_many(gathered, GROUP_MAX) => {
                self.decide(gathered, false, next);
                some > 0
            }
            () = after(wait) => {
                self.tell_overdue(next);
                true
            }
        }
    }

    /// Tells what waited too long for the rest of its commit, if it is time.
    fn tell_overdue(&mut self, next: &mut Group) {
        if self.replica.overdue_at().is_none_or(|due| due > self.clock.now().mono) {
            return;
        }
        let outputs = self.replica.tell_overdue(self.clock.now());
        if let Some(change) = outputs.notify.first() {
            let (changes, node) = (outputs.notify.len(), change.dot.writer.node.short());
            warn!(changes, %node, "the rest of what was written together did not come: shown without");
        }
        next.outputs.extend(outputs);
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
                    self.decide(gathered, writes, next);
                    if some == 0 {
                        return committing.await;
                    }
                }
            }
        }
    }

    /// Decides on requests, into the group that is committed next. `writing` tells whether a write of
    /// this node is being committed just now.
    fn decide(&mut self, gathered: &mut Vec<Request>, writing: bool, next: &mut Group) {
        for request in gathered.drain(..) {
            self.decide_one(request, writing, next);
        }
    }

    fn decide_one(&mut self, request: Request, writing: bool, next: &mut Group) {
        let (replica, clock) = (&mut self.replica, self.clock);
        match request {
            Request::Transact { decision, actor, receipt, reply } => {
                match self.transact(decision, actor, receipt, next) {
                    Err(error) => drop(reply.send(Err(error.into()))),
                    Ok(acknowledged) => {
                        // Also where a document says it already: what says it may not be on disk
                        // yet, and others may have to be told.
                        next.replies.push(acknowledgement(reply, acknowledged));
                    }
                }
            }
            Request::Merge { changes, relay, proof, reply } => {
                let mut all = true;
                for change in changes {
                    let outputs = match proof {
                        true => replica.merge_proof(change, relay, clock.now()),
                        false => replica.merge(change, relay, clock.now()),
                    };
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
                let forgets =
                    |op: &&StoreOp| matches!(op, StoreOp::Forget(_) | StoreOp::Abridge(_));
                let forgotten = outputs.commit.ops.iter().filter(forgets).count() as u64;
                next.outputs.extend(outputs);
                next.replies.push(acknowledgement(reply, forgotten));
            }
            Request::Query(query) => {
                let reply = query(replica);
                next.answer(reply, writing);
            }
        }
    }

    /// Decides on what to write, and writes it.
    fn transact(
        &mut self,
        decision: Decision,
        actor: Actor,
        receipt: bool,
        next: &mut Group,
    ) -> Result<Option<Acknowledged>, WriteError> {
        let decided = self.views.borrow().after(&self.replica, self.replica.untold_records());
        let Some(edits) = decision(&self.replica, &decided) else { return Ok(None) };
        let touched: Vec<BTreeSet<Field>> = match receipt {
            true => edits.iter().map(|(_, edit)| edit.set.keys().cloned().collect()).collect(),
            false => Vec::new(),
        };
        let (written, outputs) =
            self.replica.write_all(edits, actor, rand::random(), self.clock.now())?;
        next.writes |= !outputs.commit.is_empty();
        next.outputs.extend(outputs);
        let receipts = receipt.then(|| {
            let mut dots = BTreeSet::new();
            for (written, fields) in written.iter().zip(&touched) {
                match &written.change {
                    Some(change) => drop(dots.insert(change.dot)),
                    // The others may lack what stands there already: it goes out again.
                    None => {
                        let standing = saying(&self.replica, &written.path, fields);
                        dots.extend(standing.keys());
                        next.outputs.send.extend(standing.into_values());
                    }
                }
            }
            next.asked.extend(&dots);
            self.receipts.expect(dots)
        });
        Ok(Some(Acknowledged { written, receipts }))
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
        let changed = outputs.notify.iter().map(|change| &change.path);
        let views = self.views.borrow().after(&self.replica, changed);
        self.publish(views);
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

    fn publish(&self, views: Views) {
        self.views.send_if_modified(|current| {
            let news = !views.are(current);
            *current = views;
            news
        });
    }

    /// Goes on from what the disk holds. What this process writes from here on is written under a
    /// new incarnation: whether the failed commit is on disk after all, nobody can say.
    async fn reload(&mut self) -> Result<(), Arc<str>> {
        let reloaded = self.disk.reload().await;
        let reloaded = reloaded.inspect_err(|cause| error!(%cause, "the disk cannot be read"))?;
        let before = std::mem::replace(&mut self.replica, reloaded);
        let untold = self.replica.take_over(&before);
        self.publish(Views::of(&self.replica));
        if !untold.is_empty() {
            self.outlet.tell(&untold);
        }
        self.progress.send_replace(progress(&self.replica));
        Ok(())
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

/// Returns after a while; never, where there is none.
async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => pending().await,
    }
}

fn progress(replica: &Replica) -> Progress {
    Progress { digest: replica.digest(), room: replica.room() }
}

#[cfg(test)]
mod tests {
    use peerage_proto::id::{DataCenterId, NodeId};
    use peerage_proto::identity::Keypair;
    use peerage_proto::replica::Limits;
    use peerage_proto::roster::{NodeName, Roster, member_path};

    use super::*;
    use crate::replica::handle::{Edits, Untransacted};
    use crate::replica::memory;

    fn actor() -> Actor {
        Actor { who: "root".into(), via: "test".into() }
    }

    fn serve() -> ReplicaHandle {
        let key = Keypair::from_seed([1; 32]);
        let replica = Replica::new(DataCenterId([1; 16]), key, Limits::default());
        memory::serve(replica, Clock::start())
    }

    /// Two who looked before either had written took one name; a lock kept them apart, where both
    /// thought of it.
    #[tokio::test]
    async fn of_two_that_decide_at_once_the_second_sees_what_the_first_decided() {
        let (replica, taken): (_, NodeName) = (serve(), "pve-1".parse().unwrap());
        let admit = |n: u8| {
            let (id, name) = (NodeId([n; 32]), taken.clone());
            let decide = move |_: &Replica, views: &Views| {
                let roster = &views.roster;
                if let Some(holder) = roster.holder_of(name.as_str()) {
                    return Err(holder.id);
                }
                Ok((id, vec![(member_path(&id), roster.admission(&id, &name, &[], id, None, 1))]))
            };
            replica.transact(actor(), false, decide)
        };
        let (first, second) = tokio::join!(admit(1), admit(2));
        let (first, acknowledged) = first.expect("nobody had the name");
        assert!(acknowledged.written[0].change.is_some());
        assert!(matches!(second, Err(Untransacted::Decided(holder)) if holder == first));
        assert_eq!(replica.views().borrow().roster.current().count(), 1);
    }

    #[tokio::test]
    async fn a_transaction_is_on_disk_and_in_the_views_as_a_whole_when_it_returns() {
        let replica = serve();
        let mut views = replica.views();
        views.mark_unchanged();
        let decide = |_: &Replica, _: &Views| {
            let name = |n: u8| format!("pve-{n}").parse().expect("a name");
            let admit = |n: u8| {
                let id = NodeId([n; 32]);
                (member_path(&id), Roster::default().admission(&id, &name(n), &[], id, None, 1))
            };
            Ok::<_, ()>(((), (1..=3).map(admit).collect()))
        };
        let ((), acknowledged) = replica.transact(actor(), false, decide).await.unwrap();
        assert_eq!(acknowledged.written.len(), 3);
        assert!(views.has_changed().unwrap());
        assert_eq!(views.borrow_and_update().roster.current().count(), 3);
        let nothing = replica.transact(actor(), false, |_, _| Ok::<_, ()>((7, Edits::new()))).await;
        let (answer, acknowledged) = nothing.unwrap();
        assert!(answer == 7 && acknowledged.written.is_empty() && !views.has_changed().unwrap());
    }
}
