//! What was decided in the Data Center: documents of fields, written on any node, the same on all.
//!
//! [`Replica`] is one node's copy. A write or a merge takes effect in memory at once and returns
//! [`Outputs`]: what to commit, and what to send and to tell *after* the commit. The replica never
//! shows another node what is not on this node's disk: [`Replica::durable_vector`] and
//! [`Replica::delta`] speak of what was [`Replica::committed`] only.

pub mod change;
mod commit;
pub mod desk;
pub mod document;
#[cfg(test)]
mod forgetting;
mod full;
#[cfg(test)]
mod laws;
pub mod path;
#[cfg(test)]
mod pressure;
mod register;
pub mod room;
mod sizes;
pub mod sync;
#[cfg(test)]
mod together;
pub mod vector;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use change::{Actor, Change, ChangeError, SignedChange, Stamp};
use commit::Held;
pub use commit::{COMMIT_BYTES_MAX, COMMIT_CHANGES_MAX, CommitRange, HOLD_MAX};
pub use document::{Conflict, Document, Side};
pub use full::Full;
pub use path::{Field, NameError, Path, composed};
use room::Pool;
pub use room::{FORGOTTEN_MAX, RESERVE_BYTES, Room};
pub use sizes::Sizes;
use vector::digest;
pub use vector::{Dot, Vector, Writer};
pub use write::{Edit, WriteError, Written};

use crate::id::{DataCenterId, NodeId};
use crate::identity::Keypair;
use crate::time::{HybridClock, Now};

/// How large a document may be: the JSON of its fields with their names.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// How many fields a document may have.
pub const FIELDS_MAX: usize = 4096;

/// What a replica keeps, and how much.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many bytes the settings may take. A write that would make the live changes exceed this
    /// is refused. Where live changes and history together would exceed it, the oldest history is
    /// forgotten.
    pub total_bytes: usize,
    /// How many bytes the Data Center's own records may take, whatever the settings take; and how
    /// many bytes beyond `total_bytes` the settings may take for repairs.
    pub reserve_bytes: usize,
    /// How many superseded changes of a document are kept whatever their age and size, while there
    /// is room.
    pub history_changes: usize,
    /// How long superseded changes beyond those are kept.
    pub history_age: Duration,
    /// How many bytes a document's changes may take before the changes beyond `history_changes` go
    /// early, oldest first.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total_bytes: 100_000_000,
            reserve_bytes: RESERVE_BYTES,
            history_changes: 32,
            history_age: Duration::from_secs(30 * 24 * 3600),
            history_bytes: 64 * 1024,
        }
    }
}

/// One step of what must be on disk before anything of it is acknowledged or sent. The steps of
/// one commit take effect together or not at all.
#[derive(Debug, Clone)]
pub enum StoreOp {
    /// Keep a change.
    Put {
        /// Its key.
        dot: Dot,
        /// The change as it was signed.
        bytes: Arc<[u8]>,
    },
    /// Keep this copy in place of the change that is kept: it leaves superseded values out.
    Abridge(SignedChange),
    /// A superseded change is not kept any more: it grew too old, or its room was needed.
    Forget(Dot),
    /// All of a writer's changes up to this number were seen, though not all are kept.
    Seen(Writer, u64),
}

/// What one step of the replica must put on disk, and what its success makes true.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// What to store, together or not at all. Empty where nothing changed.
    pub ops: Vec<StoreOp>,
    /// How far the vector rises once it is stored.
    rises: Vec<(Writer, u64)>,
}

impl Commit {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What follows from one input: first commit, then send and notify.
#[derive(Debug, Default)]
#[must_use = "a change that is not committed is lost, one that is not sent arrives late"]
pub struct Outputs {
    /// To be on disk before the rest. Hand it back with [`Replica::committed`].
    pub commit: Commit,
    /// To be pushed to other nodes.
    pub send: Vec<SignedChange>,
    /// The changes that are new here, for watchers and for the views that are read out of
    /// documents. A change whose commit is not complete here is told together with the last change
    /// that was missing.
    pub notify: Vec<SignedChange>,
    /// Whether a change was not taken, because it leaves out a value that no change known here has
    /// superseded. An honest node sends the change that superseded the value first.
    pub untaken: bool,
}

impl Outputs {
    /// Puts what follows from a later input behind this.
    pub fn extend(&mut self, later: Self) {
        self.commit.ops.extend(later.commit.ops);
        self.commit.rises.extend(later.commit.rises);
        self.send.extend(later.send);
        self.notify.extend(later.notify);
        self.untaken |= later.untaken;
    }
}

/// One node's copy of all that was decided in one Data Center.
#[derive(Debug)]
pub struct Replica {
    datacenter: DataCenterId,
    key: Keypair,
    limits: Limits,
    clock: HybridClock,
    /// Node and incarnation under which this process writes; none before its first write.
    writer: Option<Writer>,
    /// All changes that are kept, by writer and number.
    log: BTreeMap<Writer, BTreeMap<u64, SignedChange>>,
    documents: BTreeMap<Path, Document>,
    conflicted: BTreeSet<Path>,
    /// The bytes of all changes in the log.
    bytes: usize,
    /// What the settings take.
    settings: Pool,
    /// What the Data Center's own records take.
    records: Pool,
    /// All that was merged. Invariant: every change at or below it is in the log, or superseded.
    vector: Vector,
    /// The part of the vector that is on disk. Invariant: `vector` dominates it.
    durable: Vector,
    /// The part of the vector that the disk states as numbers; the rest follows from the changes on
    /// disk.
    stored_seen: Vector,
    /// The changes that are merged and not yet on disk.
    undurable: BTreeSet<Dot>,
    /// The changes in `undurable` that are of the Data Center's own records.
    undurable_records: BTreeSet<Dot>,
    /// The changes that are merged and not yet told, because their commits are not complete here.
    held: Held,
    /// The changes in `held` that are of the Data Center's own records.
    held_records: BTreeSet<Dot>,
}

impl Replica {
    /// The empty copy that a founder or a joiner starts from.
    pub fn new(datacenter: DataCenterId, key: Keypair, limits: Limits) -> Self {
        Self {
            datacenter,
            key,
            limits,
            clock: HybridClock::default(),
            writer: None,
            log: BTreeMap::new(),
            documents: BTreeMap::new(),
            conflicted: BTreeSet::new(),
            bytes: 0,
            settings: Pool::default(),
            records: Pool::default(),
            vector: Vector::default(),
            durable: Vector::default(),
            stored_seen: Vector::default(),
            undurable: BTreeSet::new(),
            undurable_records: BTreeSet::new(),
            held: Held::default(),
            held_records: BTreeSet::new(),
        }
    }

    /// The copy that a disk holds: its changes in any order, and how far it says that each writer
    /// was seen. Changes of another Data Center are left out.
    pub fn load(
        datacenter: DataCenterId,
        key: Keypair,
        limits: Limits,
        changes: impl IntoIterator<Item = SignedChange>,
        seen: Vector,
        now: Now,
    ) -> Self {
        let mut replica = Self::new(datacenter, key, limits);
        for change in changes.into_iter().filter(|c| c.datacenter == datacenter) {
            replica.clock.observe(change.at, now);
            replica.insert(change);
        }
        let stated = seen.iter().map(|(w, seq)| (*w, *seq)).collect::<Vec<_>>();
        let logged = replica.log.keys().map(|writer| (*writer, 0)).collect::<Vec<_>>();
        for (writer, seq) in stated.into_iter().chain(logged) {
            replica.rise(writer, seq);
        }
        replica.stored_seen = seen;
        replica.durable = replica.vector.clone();
        replica.hold_again(now);
        replica
    }

    /// Holds back every change whose commit is not complete here, to tell it once the rest comes:
    /// nobody knows which changes were told before the restart.
    fn hold_again(&mut self, now: Now) {
        for (writer, log) in &self.log {
            // If the vector covers a change but not all of its commit, the change is among the last
            // of its writer.
            let seen = self.vector.seen(writer);
            let from = seen.saturating_sub(COMMIT_CHANGES_MAX as u64);
            for (seq, change) in log.range(from..) {
                let dot = Dot { writer: *writer, seq: *seq };
                if let Some(commit) = waits_for(change).filter(|commit| commit.last > seen) {
                    self.held.hold(dot, commit.last, now.mono);
                    if change.path.is_reserved() {
                        self.held_records.insert(dot);
                    }
                }
            }
        }
    }

    /// Merges a change from another node. A change that is known, or is of another Data Center,
    /// changes nothing. A change that leaves out a value which nothing else superseded here is not
    /// taken: then [`Outputs::untaken`] is set, and the sender's vector must not be absorbed. With
    /// `relay`, a change that is seen here for the first time is to be pushed on.
    pub fn merge(&mut self, change: SignedChange, relay: bool, now: Now) -> Outputs {
        self.merge_change(change, relay, false, now)
    }

    /// As [`merge`](Self::merge), for a change that proves something, such as the admission of a
    /// member: it is told at once, for the rest of its commit may never come.
    pub fn merge_proof(&mut self, change: SignedChange, relay: bool, now: Now) -> Outputs {
        self.merge_change(change, relay, true, now)
    }

    fn merge_change(
        &mut self,
        change: SignedChange,
        relay: bool,
        alone: bool,
        now: Now,
    ) -> Outputs {
        if change.datacenter != self.datacenter {
            return Outputs::default();
        }
        if self.arrived(&change.dot) {
            let shown = (alone && self.held.release(&change.dot)).then_some(change.dot);
            let notify = self.told(&shown.into_iter().collect::<Vec<_>>());
            return Outputs { notify, ..Outputs::default() };
        }
        let document = self.documents.get(&change.path);
        let has_superseded = |d: &Document| d.has_superseded_what_is_left_out_of(&change);
        // The Data Center's own records are evidence: they come whole.
        let is_abridged = change.left_out().next().is_some();
        if is_abridged && (change.path.is_reserved() || !document.is_some_and(has_superseded)) {
            return Outputs { untaken: true, ..Outputs::default() };
        }
        let passed_on = relay.then(|| change.clone());
        let mut outputs = self.accept(change, alone, now);
        outputs.send.extend(passed_on);
        outputs
    }

    /// Takes over, at the end of an anti-entropy session, how far the peer has seen each writer:
    /// what it did not send up to there is superseded.
    pub fn absorb(&mut self, vector: &Vector) -> Outputs {
        let mut outputs = Outputs::default();
        for (writer, seq) in vector.iter() {
            if *seq > self.vector.seen(writer) {
                self.stored_seen.raise(*writer, *seq);
                outputs.commit.ops.push(StoreOp::Seen(*writer, *seq));
                self.rise(*writer, *seq);
                outputs.commit.rises.push((*writer, self.vector.seen(writer)));
                outputs.notify.extend(self.completed(*writer));
            }
        }
        // Superseded changes above the vector could not be forgotten before.
        self.yield_history(&mut outputs.commit);
        outputs
    }

    /// Releases the changes of a writer whose commits are complete here by now, to tell them.
    fn completed(&mut self, writer: Writer) -> Vec<SignedChange> {
        let dots = self.held.complete(writer, self.vector.seen(&writer));
        self.told(&dots)
    }

    /// The changes of these dots, which are held no more, to tell them. A change that was forgotten
    /// meanwhile is left out, for other changes have superseded it.
    fn told(&mut self, dots: &[Dot]) -> Vec<SignedChange> {
        for dot in dots {
            self.held_records.remove(dot);
        }
        dots.iter().filter_map(|dot| self.change(dot).cloned()).collect()
    }

    /// Tells the changes that have waited for others of their commits for [`HOLD_MAX`].
    pub fn tell_overdue(&mut self, now: Now) -> Outputs {
        let overdue = self.held.overdue(now.mono);
        Outputs { notify: self.told(&overdue), ..Outputs::default() }
    }

    /// When [`tell_overdue`](Self::tell_overdue) has something to tell (monotonic); none where
    /// nothing waits.
    pub fn overdue_at(&self) -> Option<Duration> {
        self.held.due()
    }

    /// Notes that a commit is on disk. Commits are handed back in the order in which they came.
    pub fn committed(&mut self, commit: &Commit) {
        for op in &commit.ops {
            match op {
                StoreOp::Put { dot, .. } => {
                    self.undurable.remove(dot);
                    self.undurable_records.remove(dot);
                }
                StoreOp::Abridge(change) => self.replace(change),
                StoreOp::Forget(dot) => self.forget(dot),
                StoreOp::Seen(..) => {}
            }
        }
        for (writer, seq) in &commit.rises {
            self.durable.raise(*writer, *seq);
        }
        debug_assert!(self.vector.dominates(&self.durable));
    }

    /// The changes that a peer with that vector lacks, and the vector that holds once it has them:
    /// one side of an anti-entropy session. Both are of what is on disk.
    pub fn delta(&self, since: &Vector) -> (Vec<SignedChange>, Vector) {
        let mut changes = Vec::new();
        for (writer, log) in &self.log {
            let above = since.seen(writer).saturating_add(1)..;
            changes.extend(log.range(above).map(|(_, change)| change.clone()));
        }
        if !self.undurable.is_empty() {
            changes.retain(|change| !self.undurable.contains(&change.dot));
        }
        // A peer takes an abridged change only once it knows the changes that superseded the values
        // which are left out. Those are later, so abridged changes go last, and the latest of them
        // first.
        changes.sort_by_key(|change| {
            let is_abridged = change.left_out().next().is_some();
            is_abridged.then_some(std::cmp::Reverse(change.stamp()))
        });
        (changes, self.durable.clone())
    }

    /// Takes a new change into log and document. With `alone`, it is told at once, also where its
    /// commit is not complete here.
    fn accept(&mut self, change: SignedChange, alone: bool, now: Now) -> Outputs {
        self.clock.observe(change.at, now);
        let (dot, path) = (change.dot, change.path.clone());
        let put = StoreOp::Put { dot, bytes: change.bytes().clone() };
        let mut outputs = Outputs::default();
        outputs.commit.ops.push(put);
        self.undurable.insert(dot);
        if path.is_reserved() {
            self.undurable_records.insert(dot);
        }

        match waits_for(&change).filter(|_| !alone) {
            Some(commit) => {
                self.held.hold(dot, commit.last, now.mono);
                if path.is_reserved() {
                    self.held_records.insert(dot);
                }
            }
            None => outputs.notify.push(change.clone()),
        }
        self.keep(change);
        if self.rise(dot.writer, 0) {
            outputs.commit.rises.push((dot.writer, self.vector.seen(&dot.writer)));
        }
        outputs.notify.extend(self.completed(dot.writer));
        self.prune(&path, now, &mut outputs.commit);
        self.yield_history(&mut outputs.commit);
        self.note_conflicts(&path);
        outputs
    }

    fn insert(&mut self, change: SignedChange) {
        let path = change.path.clone();
        self.keep(change);
        self.note_conflicts(&path);
    }

    /// Takes a change into its document and into the log.
    fn keep(&mut self, change: SignedChange) {
        let pool = if change.path.is_reserved() { &mut self.records } else { &mut self.settings };
        let document = self.documents.entry(change.path.clone()).or_default();
        let before = document.sizes();
        let yields = document.merge(change.clone());
        pool.moved(before, document.sizes());
        pool.can_yield(yields);
        self.bytes += change.bytes().len();
        self.log.entry(change.dot.writer).or_default().insert(change.dot.seq, change);
    }

    fn note_conflicts(&mut self, path: &Path) {
        let conflicted = self.documents.get(path).is_some_and(|d| !d.conflicts().is_empty());
        if conflicted {
            self.conflicted.insert(path.clone());
        } else {
            self.conflicted.remove(path);
        }
    }

    /// Raises a writer's entry in the vector to `seq`, and further over each next change that is
    /// already here. Answers whether the entry rose.
    fn rise(&mut self, writer: Writer, seq: u64) -> bool {
        let mut seen = self.vector.seen(&writer).max(seq);
        if let Some(log) = self.log.get(&writer) {
            while log.contains_key(&(seen + 1)) {
                seen += 1;
            }
        }
        self.vector.raise(writer, seen)
    }

    fn prune(&mut self, path: &Path, now: Now, commit: &mut Commit) {
        let Some(document) = self.documents.get_mut(path) else { return };
        let before_ms = now.wall_ms.saturating_sub(self.limits.history_age.as_millis() as u64);
        let Limits { history_changes, history_bytes, .. } = self.limits;
        // A change above the vector must stay: it would be taken for a new one if it came again.
        let forgettable = |dot: &Dot| self.vector.covers(dot);
        let before = document.sizes();
        let forgotten = document.prune(history_changes, before_ms, history_bytes, forgettable);
        let after = document.sizes();
        self.forget_all(path.is_reserved(), before, after, &forgotten, commit);
    }

    /// Takes a change out of the log once the disk has forgotten it. Until then other nodes get the
    /// old change, for they cannot get the new one yet.
    fn forget(&mut self, dot: &Dot) {
        let log = self.log.get_mut(&dot.writer);
        if let Some(change) = log.and_then(|log| log.remove(&dot.seq)) {
            self.bytes -= change.bytes().len();
        }
    }

    /// As for [`forget`](Self::forget): other nodes get the whole change until what superseded a
    /// part of it is on disk.
    fn replace(&mut self, abridged: &SignedChange) {
        let log = self.log.get_mut(&abridged.dot.writer);
        if let Some(change) = log.and_then(|log| log.get_mut(&abridged.dot.seq)) {
            self.bytes -= change.bytes().len();
            self.bytes += abridged.bytes().len();
            *change = abridged.clone();
        }
    }

    fn arrived(&self, dot: &Dot) -> bool {
        self.vector.covers(dot)
            || self.log.get(&dot.writer).is_some_and(|log| log.contains_key(&dot.seq))
    }

    /// The Data Center that this is a copy of.
    pub fn datacenter(&self) -> DataCenterId {
        self.datacenter
    }

    /// The node whose copy this is.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// All that was merged.
    pub fn vector(&self) -> &Vector {
        &self.vector
    }

    /// All that was merged and is on disk: what other nodes may be told.
    pub fn durable_vector(&self) -> &Vector {
        &self.durable
    }

    /// Sixteen hex digits that are the same where the same is on disk: what two nodes compare. The
    /// vector alone would not do: a change that came without one before it lies above the vector,
    /// and stays there if the one before it is lost with its writer.
    pub fn digest(&self) -> String {
        let above = self.log.iter().flat_map(|(writer, log)| {
            let dots = log.range(self.durable.seen(writer).saturating_add(1)..);
            dots.map(|(seq, _)| Dot { writer: *writer, seq: *seq })
        });
        let above: Vec<Dot> = above.filter(|dot| !self.undurable.contains(dot)).collect();
        if above.is_empty() { self.durable.digest() } else { digest(&(&self.durable, above)) }
    }

    /// The Data Center's own records to which a change was merged and not yet told: the change is
    /// not on disk, or its commit is not complete here.
    pub fn untold_records(&self) -> impl Iterator<Item = &Path> + Clone {
        let paths = self.undurable_records.iter().chain(&self.held_records);
        paths.filter_map(|dot| Some(&self.change(dot)?.path))
    }

    /// Goes on from `before`, an earlier copy of this replica whose last commit failed: the changes
    /// that it had told are not told again. It had given out the changes in `unsaid`, but they were
    /// not told yet. Answers with the changes that were not told and can be told now.
    fn take_over(&mut self, before: &Self, unsaid: &BTreeSet<Dot>) -> Vec<SignedChange> {
        let mut untold = Vec::new();
        for (writer, log) in &before.log {
            for seq in log.keys() {
                let dot = Dot { writer: *writer, seq: *seq };
                let is_pending = before.held.holds(&dot) || before.undurable.contains(&dot);
                let was_told = !is_pending && !unsaid.contains(&dot);
                if was_told {
                    self.held.release(&dot);
                    self.held_records.remove(&dot);
                } else if !self.held.holds(&dot) {
                    untold.extend(self.change(&dot).cloned());
                }
            }
        }
        untold
    }

    /// The bytes of all changes in the log. A forgotten change counts until the disk has forgotten
    /// it, too.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The document at a path, if any change to it is kept. It may show no field.
    pub fn document(&self, path: &Path) -> Option<&Document> {
        self.documents.get(path)
    }

    /// The documents whose path begins with a prefix ([`Path::begins_with`]) and that show any
    /// field, in the order of their paths; the Data Center's own records only where the prefix names
    /// them.
    pub fn documents(&self, prefix: &str) -> impl Iterator<Item = (&Path, &Document)> {
        let reserved = prefix.starts_with('@');
        let from = composed(prefix).into_owned();
        let beginning = self.documents.range::<str, _>((
            std::ops::Bound::Included(from.as_str()),
            std::ops::Bound::Unbounded,
        ));
        let stop = from.clone();
        beginning
            .take_while(move |(path, _)| path.as_str().starts_with(&stop))
            .filter(move |(path, document)| path.is_reserved() == reserved && document.exists())
    }

    /// The settings that have a conflict, with their conflicts.
    pub fn conflicts(&self) -> impl Iterator<Item = (&Path, Vec<Conflict>)> {
        let settings = self.conflicted.iter().filter(|path| !path.is_reserved());
        settings.filter_map(|path| Some((path, self.documents.get(path)?.conflicts())))
    }

    /// The change of that key, if it is kept.
    pub fn change(&self, dot: &Dot) -> Option<&SignedChange> {
        self.log.get(&dot.writer)?.get(&dot.seq)
    }
}

/// The commit that must be complete before a change is told. None where the change was written
/// alone, or sets a terminal field, such as the removal of a member: that counts at once.
fn waits_for(change: &Change) -> Option<CommitRange> {
    let is_final = change.path.is_reserved() && change.set.keys().any(document::is_terminal);
    change.commit.filter(|_| !is_final)
}
