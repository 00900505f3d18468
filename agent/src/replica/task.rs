//! The task that owns the replica: it hands what is asked to the [`Desk`], which decides, and carries
//! out what the desk answers: commits first, and only then publishes, pushes, acknowledges and tells.
//!
//! The task waits for the disk and for nothing else: what it sends goes into queues that never block.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::replica::desk::{Accepted, Desk, GROUP_MAX, Next, Speech};
use peerage_proto::replica::{Actor, Commit, Replica, SignedChange, WriteError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, error, warn};

use crate::host::clock::Clock;
use crate::replica::receipts::Receipts;

use super::handle::{
    Acknowledged, Decision, Deferred, Progress, ReplicaHandle, Request, WriteFailure,
};
use super::views::Views;

/// How many requests may wait for the replica before callers are held up.
const REQUESTS_MAX: usize = 1024;

/// What keeps the replica's commits.
pub trait Disk: Send + Sync + 'static {
    /// Puts a commit on disk, all of it or nothing.
    fn commit(&self, commit: &Commit) -> impl Future<Output = Result<(), Arc<str>>> + Send;

    /// The replica that the disk holds: what the task goes on from after a failed commit.
    fn reload(&self) -> impl Future<Output = Result<Replica, Arc<str>>> + Send;
}

/// Where the task sends what was committed.
pub trait Outlet: Send + 'static {
    /// Pushes changes to other nodes; with `receipt` they say when they have them on disk. Never
    /// blocks.
    fn push(&mut self, changes: &[SignedChange], receipt: bool);

    /// Tells the watchers on this node.
    fn tell(&mut self, changes: &[SignedChange]);
}

/// The task's state.
pub struct ReplicaTask<D, O> {
    desk: Desk<Deferred>,
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
        let desk = Desk::new(replica);
        let task = Self { desk, disk, outlet, receipts, clock, requests, views, progress };
        (task, handle)
    }

    /// Serves until every handle is gone.
    ///
    /// # Errors
    /// When the disk fails and cannot even be read again.
    pub async fn run(mut self) -> Result<(), Arc<str>> {
        let mut gathered = Vec::with_capacity(GROUP_MAX);
        while self.gather(&mut gathered).await {
            while let Some(next) = self.next() {
                let speech = match next {
                    Next::Speak(speech) => speech,
                    Next::Commit(commit) => match self.commit(&commit, &mut gathered).await {
                        Ok(()) => self.desk.committed(),
                        Err(cause) => {
                            self.fail(cause).await?;
                            continue;
                        }
                    },
                };
                self.speak(speech);
            }
        }
        Ok(())
    }

    /// Waits for requests and decides on them. `false` when nobody is left to ask.
    async fn gather(&mut self, gathered: &mut Vec<Request>) -> bool {
        let overdue = self.desk.overdue_at();
        let wait = overdue.map(|due| due.saturating_sub(self.clock.now().mono));
        tokio::select! {
            some = self.requests.recv_many(gathered, GROUP_MAX) => {
                self.decide(gathered);
                some > 0
            }
            // `next` asks the desk then, and tells what is overdue.
            () = after(wait) => true,
        }
    }

    /// What is to be done next. Changes that have waited too long by now for the rest of their
    /// commit are told without it.
    fn next(&mut self) -> Option<Next<Deferred>> {
        let overdue = self.desk.tell_overdue(self.clock.now());
        if let Some(change) = overdue.first() {
            let (changes, node) = (overdue.len(), change.dot.writer.node.short());
            warn!(changes, %node, "the rest of what was written together did not come: shown without");
        }
        self.desk.proceed()
    }

    /// Commits, and meanwhile decides on the requests that come in.
    async fn commit(
        &mut self,
        commit: &Commit,
        gathered: &mut Vec<Request>,
    ) -> Result<(), Arc<str>> {
        let disk = self.disk.clone();
        let mut committing = std::pin::pin!(disk.commit(commit));
        loop {
            let room = self.desk.room();
            tokio::select! {
                biased;
                outcome = &mut committing => return outcome,
                some = self.requests.recv_many(gathered, room), if room > 0 => {
                    self.decide(gathered);
                    if some == 0 {
                        return committing.await;
                    }
                }
            }
        }
    }

    /// Decides on requests, in the order in which they came.
    fn decide(&mut self, gathered: &mut Vec<Request>) {
        for request in gathered.drain(..) {
            self.decide_one(request);
        }
    }

    fn decide_one(&mut self, request: Request) {
        let (desk, now) = (&mut self.desk, self.clock.now());
        match request {
            Request::Transact { decision, actor, receipt, reply } => {
                match self.transact(decision, actor, receipt) {
                    Err(error) => drop(reply.send(Err(error.into()))),
                    Ok(acknowledged) => {
                        self.desk.answer_after_commit(acknowledgement(reply, acknowledged));
                    }
                }
            }
            Request::Merge { changes, relay, proof, reply } => {
                let all = match proof {
                    true => desk.merge_proof(changes, relay, now),
                    false => desk.merge(changes, relay, now),
                };
                desk.answer_after_commit(acknowledgement(reply, all));
            }
            Request::Absorb { vector, reply } => {
                desk.absorb(&vector);
                desk.answer_after_commit(acknowledgement(reply, ()));
            }
            Request::Compact { reply } => {
                let forgotten = desk.compact();
                desk.answer_after_commit(acknowledgement(reply, forgotten));
            }
            Request::Query(query) => {
                let reply = query(desk.replica());
                if let Some(reply) = desk.answer_read(reply) {
                    reply(&Ok(()));
                }
            }
        }
    }

    /// Decides on what to write, and writes it.
    fn transact(
        &mut self,
        decision: Decision,
        actor: Actor,
        receipt: bool,
    ) -> Result<Option<Acknowledged>, WriteError> {
        let replica = self.desk.replica();
        let decided = self.views.borrow().after(replica, replica.untold_records());
        let Some(edits) = decision(replica, &decided) else { return Ok(None) };
        let now = self.clock.now();
        let accepted = self.desk.write(edits, actor, rand::random(), receipt, now)?;
        let Accepted { written, asked } = accepted;
        let receipts = receipt.then(|| self.receipts.expect(asked));
        Ok(Some(Acknowledged { written, receipts }))
    }

    /// Publishes, pushes, acknowledges and tells what is on disk now, in this order.
    fn speak(&mut self, speech: Speech<Deferred>) {
        let Speech { news, push, ask, replies, stored } = speech;
        let changed = news.iter().map(|change| &change.path);
        let views = self.views.borrow().after(self.desk.replica(), changed);
        self.publish(views);
        for (changes, receipt) in [(push, false), (ask, true)] {
            if !changes.is_empty() {
                self.outlet.push(&changes, receipt);
            }
        }
        replies.into_iter().for_each(|reply| reply(&Ok(())));
        if !news.is_empty() {
            self.outlet.tell(&news);
        }
        if stored {
            self.progress.send_replace(progress(self.desk.replica()));
        }
    }

    fn publish(&self, views: Views) {
        self.views.send_if_modified(|current| {
            let news = !views.are(current);
            *current = views;
            news
        });
    }

    /// Tells all who waited that the disk failed, and goes on from the replica that the disk holds.
    async fn fail(&mut self, cause: Arc<str>) -> Result<(), Arc<str>> {
        // The failure is told as a notice, and to each caller that waited.
        debug!(%cause, "a commit failed; nothing of it holds");
        let outcome = Err(cause);
        self.desk.failed().into_iter().for_each(|reply| reply(&outcome));
        let reloaded = self.disk.reload().await;
        let reloaded = reloaded.inspect_err(|cause| error!(%cause, "the disk cannot be read"))?;
        let untold = self.desk.reloaded(reloaded);
        self.publish(Views::of(self.desk.replica()));
        if !untold.is_empty() {
            self.outlet.tell(&untold);
        }
        self.progress.send_replace(progress(self.desk.replica()));
        Ok(())
    }
}

fn acknowledgement<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, WriteFailure>>,
    outcome: T,
) -> Deferred {
    Box::new(move |committed| {
        let _ = reply.send(committed.clone().map(|()| outcome).map_err(WriteFailure::Disk));
    })
}

/// Returns after this time; never if there is none.
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

    /// Two admissions that had looked at the roster before either was written took the same name. A
    /// lock kept them apart, but only where both callers took it.
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
