//! The owner of the disk, and the handle to it.
//!
//! Group commit: while one commit runs, the callers of further commits queue up; the next commit
//! takes all of them, in order, with one sync. So the disk's latency bounds the delay, not the
//! rate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peerage_proto::id::NodeId;
use tokio::sync::{mpsc, oneshot, watch};

use super::archive::archive;
use super::record::{self, VALUE_BYTES_MAX};
use super::{Disk, Image, Label, Report, StoreError, Write};

/// The meta name under which [`Store::try_out`] writes its trial values.
const TRIED: &str = "tried";

/// How many requests may wait; the next one waits for room.
const QUEUE_MAX: usize = 1024;

/// How many bytes of values go into one commit before the rest waits for the next.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A handle to the store; clones are handles to the same. The [`DiskOwner`] behind it ends, and lets
/// go of the data folder, after [`Store::close`] or when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    health: watch::Receiver<Health>,
    /// What the disk takes, as its owner last saw it.
    size_bytes: Arc<AtomicU64>,
}

/// Whether the disk takes what is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the last commit failed; `None` where it did not.
    pub failing: Option<StoreError>,
    /// How many commits failed since the start.
    pub failures: u64,
    /// The size in bytes of the largest group among the commits that failed in a row, at most
    /// [`VALUE_BYTES_MAX`]. The disk counts as healthy again after a commit of at least this size
    /// succeeded.
    pub wanted: usize,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
enum Job {
    Commit(Vec<Write>, Answer<()>),
    Load(Answer<Image>),
    Check(Answer<Report>),
    Archive(String, Answer<PathBuf>),
    Label(Label, Answer<()>),
    Rebind(NodeId, Answer<()>),
    Compact(Answer<()>),
    Close(oneshot::Sender<()>),
}

impl Store {
    /// Puts a disk on a thread of its own; backups go into the folder `backups`.
    ///
    /// # Errors
    /// [`StoreError`] where the operating system gives no thread.
    pub fn start(disk: impl Disk, backups: PathBuf) -> Result<Self, StoreError> {
        let path = backups.clone();
        let (store, owner) = Self::over(disk, backups);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || owner.run())
            .map_err(|e| StoreError::io("start a thread for", &path, &e))?;
        Ok(store)
    }

    /// A store over a disk, and the disk's owner, which has to run for anything to happen; backups
    /// go into the folder `backups`.
    pub fn over<D: Disk>(disk: D, backups: PathBuf) -> (Self, DiskOwner<D>) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (told, health) = watch::channel(Health::default());
        let size_bytes = Arc::new(AtomicU64::new(disk.size_bytes()));
        let store = Self { jobs, health, size_bytes: size_bytes.clone() };
        (store, DiskOwner { disk, backups, queue, next: None, health: told, size_bytes })
    }

    /// Whether the disk takes what is written, as a value to read or to wait on. It is closed when
    /// the store is.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Returns when the writes are on disk, with those of all others who waited meanwhile. They
    /// take effect together and after those of every earlier call. If this future is dropped the
    /// writes may still happen.
    ///
    /// # Errors
    /// [`StoreError`], the same for all in one group. Whether the writes are there after the next
    /// start is then unknown: all of the group are, or none.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        // A write that no disk would take must not fail the other commits in its group.
        for write in &writes {
            record::parts(write)?;
        }
        self.ask(|answer| Job::Commit(writes, answer)).await
    }

    /// All that was committed and acknowledged. A caller goes on from this after a failed commit.
    ///
    /// # Errors
    /// [`StoreError`] where the disk cannot be read.
    pub async fn load(&self) -> Result<Image, StoreError> {
        self.ask(Job::Load).await
    }

    /// Reads everything back and verifies every checksum. It writes nothing. It reads the
    /// whole file, and commits wait while it runs.
    ///
    /// # Errors
    /// [`StoreError`] where the disk cannot be read.
    pub async fn self_check(&self) -> Result<Report, StoreError> {
        self.ask(Job::Check).await
    }

    /// Rewrites the journal without the records that no longer count. Commits wait while it runs.
    ///
    /// # Errors
    /// [`StoreError`]; what was committed stays as it was.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.ask(Job::Compact).await
    }

    /// Writes so many bytes to the disk, and removes them again. The result also shows in the
    /// health.
    ///
    /// # Errors
    /// [`StoreError`]: commits of that size would fail now.
    pub async fn try_out(&self, bytes: usize) -> Result<(), StoreError> {
        let trial = |bytes| Write::Meta { name: TRIED, value: vec![0; bytes] };
        let over = || Write::MetaDelete { name: TRIED };
        if bytes <= VALUE_BYTES_MAX {
            return self.commit(vec![trial(bytes), over()]).await;
        }
        // The journal grows by each trial value until it is rewritten.
        let mut left = bytes;
        let mut taken = Ok(());
        while left > 0 && taken.is_ok() {
            let part = left.min(VALUE_BYTES_MAX);
            taken = self.commit(vec![trial(part)]).await;
            left -= part;
        }
        let cleared = self.commit(vec![over()]).await;
        let rewritten = self.compact().await;
        taken.and(cleared).and(rewritten)
    }

    /// How many bytes the disk takes, as of the last job done. Waits for nobody.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Sets the replica aside: copies all that is held into a backup of that name, then forgets
    /// the replica in one commit. A crash leaves the old state or the new one, and a whole backup
    /// or none. Returns the backup's folder; where the name is taken it has a number behind it.
    /// The newest [`super::BACKUPS_MAX`] backups stay.
    ///
    /// # Errors
    /// [`StoreError`]. The replica is then as it was, except that where the last commit failed it
    /// may be gone after the next start; the whole backup is there then.
    pub async fn archive(&self, name: &str) -> Result<PathBuf, StoreError> {
        let name = name.to_owned();
        self.ask(|answer| Job::Archive(name, answer)).await
    }

    /// Writes beside the journal whose it is: the node's name and its Data Center.
    ///
    /// # Errors
    /// [`StoreError`]; what was kept before may still be there.
    pub async fn label(&self, label: Label) -> Result<(), StoreError> {
        self.ask(|answer| Job::Label(label, answer)).await
    }

    /// Makes the journal another node's, for a host that takes a new identity.
    ///
    /// # Errors
    /// [`StoreError`]; the journal's owner after the next start is then unknown.
    pub async fn rebind(&self, node: NodeId) -> Result<(), StoreError> {
        self.ask(|answer| Job::Rebind(node, answer)).await
    }

    /// Finishes what was asked for, and lets go of the data folder: once this returns another
    /// agent can open it. Later calls on any handle fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(answer)).await.is_ok() {
            // An error also means that the thread has ended.
            let _ = closed.await;
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// The only one who touches the disk: one job after the other, commits in groups.
#[derive(Debug)]
pub struct DiskOwner<D> {
    disk: D,
    backups: PathBuf,
    queue: mpsc::Receiver<Job>,
    /// A job that was taken out of the queue already and is done next.
    next: Option<Job>,
    health: watch::Sender<Health>,
    size_bytes: Arc<AtomicU64>,
}

/// Sends the result to the callers. A caller may have gone, so an answer that nobody takes is no
/// error.
type Reply = Box<dyn FnOnce() + Send>;

impl<D: Disk> DiskOwner<D> {
    /// Serves on a thread of its own, which waits for the disk.
    fn run(self) {
        let mut owner = Some(self);
        while let Some(mut this) = owner.take() {
            let Some(job) = this.next.take().or_else(|| this.queue.blocking_recv()) else { return };
            let (rest, reply) = this.perform(job);
            reply();
            owner = rest.map(Self::tidied);
        }
    }

    /// Serves as a task over a disk in memory, for agents in a simulation, which waits for no
    /// thread. `pause` says how long the disk takes: once before the job is done, and again before
    /// the callers get their answers. A crash in the first pause loses the job; a crash in the
    /// second keeps writes that no caller was told of.
    pub async fn serve(self, mut pause: impl FnMut() -> Duration + Send) {
        let mut owner = Some(self);
        while let Some(mut this) = owner.take() {
            let next = match this.next.take() {
                Some(job) => Some(job),
                None => this.queue.recv().await,
            };
            let Some(job) = next else { return };
            tokio::time::sleep(pause()).await;
            let (rest, reply) = this.perform(job);
            tokio::time::sleep(pause()).await;
            reply();
            owner = rest.map(Self::tidied);
        }
    }

    /// Does a job, and all commits that wait behind a commit. The owner is gone after the last.
    fn perform(mut self, job: Job) -> (Option<Self>, Reply) {
        let reply: Reply = match job {
            Job::Commit(writes, answer) => {
                let mut group = Group::default();
                group.add(writes, answer);
                while group.bytes < GROUP_BYTES_MAX {
                    match self.queue.try_recv() {
                        Ok(Job::Commit(writes, answer)) => group.add(writes, answer),
                        Ok(other) => {
                            self.next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                group.commit(&mut self.disk, &self.health)
            }
            Job::Load(answer) => replying(answer, self.disk.load()),
            Job::Check(answer) => replying(answer, self.disk.check()),
            Job::Archive(name, answer) => {
                replying(answer, archive(&mut self.disk, &self.backups, &name))
            }
            Job::Label(label, answer) => replying(answer, self.disk.label(&label)),
            Job::Rebind(node, answer) => replying(answer, self.disk.rebind(&node)),
            Job::Compact(answer) => replying(answer, self.disk.compact()),
            Job::Close(answer) => {
                if let Err(error) = self.disk.close() {
                    tracing::warn!(%error, "the journal was closed without a mark");
                }
                drop(self);
                let reply = move || {
                    let _ = answer.send(());
                };
                return (None, Box::new(reply));
            }
        };
        self.size_bytes.store(self.disk.size_bytes(), Ordering::Relaxed);
        (Some(self), reply)
    }

    /// Gives back space, now that nobody waits for an answer.
    fn tidied(mut self) -> Self {
        if let Err(error) = self.disk.tidy() {
            tracing::error!(%error, "the journal could not be compacted");
        }
        self.size_bytes.store(self.disk.size_bytes(), Ordering::Relaxed);
        self
    }
}

fn replying<T: Send + 'static>(answer: Answer<T>, result: Result<T, StoreError>) -> Reply {
    Box::new(move || drop(answer.send(result)))
}

/// The commits that share a sync.
#[derive(Default)]
struct Group {
    writes: Vec<Write>,
    answers: Vec<Answer<()>>,
    bytes: usize,
}

impl Group {
    fn add(&mut self, writes: Vec<Write>, answer: Answer<()>) {
        for write in &writes {
            self.bytes += record::parts(write).map_or(0, |(_, value)| value.len());
            self.bytes += record::HEAD_AND_KEY_MAX;
        }
        self.writes.extend(writes);
        self.answers.push(answer);
    }

    fn commit(self, disk: &mut impl Disk, health: &watch::Sender<Health>) -> Reply {
        let result = disk.commit(&self.writes);
        if let Err(error) = &result {
            tracing::debug!(%error, waiting = self.answers.len(), "a commit failed");
        }
        health.send_if_modified(|health| {
            match &result {
                Err(error) => {
                    health.failing = Some(error.clone());
                    health.failures += 1;
                    health.wanted = health.wanted.max(self.bytes.min(VALUE_BYTES_MAX));
                    true
                }
                // A small commit finds room where a larger one did not.
                Ok(()) if self.bytes < health.wanted => false,
                Ok(()) => {
                    health.wanted = 0;
                    health.failing.take().is_some()
                }
            }
        });
        Box::new(move || {
            for answer in self.answers {
                drop(answer.send(result.clone()));
            }
        })
    }
}
