//! The desk serves a replica: it decides requests in memory as they come, has them committed in
//! groups, and lets nothing of them out before their commit is on disk.
//!
//! One commit runs at a time. What is decided meanwhile gathers for the next one, so that one fsync
//! serves all requests that waited for it. Nothing that follows from a decision leaves the desk
//! before it is on disk: no push, no acknowledgement, no view, not even the answer to a read that
//! saw a write of this node. When a commit fails, all that was decided since the last good one is
//! void: every caller that waits is told so, and the desk goes on from what the disk holds.
//!
//! One exception is left: a view is read from [`Desk::replica`], in which a document that was just
//! committed may already be written again. The view then shows that second write one commit early.
//!
//! The desk has no clock, no disk and no channels. Its owner hands requests in, asks for
//! [`Desk::proceed`], commits what that says, reports how the commit ended, and carries out the
//! [`Speech`] that it gets. `R` is the owner's type of an answer to a caller.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Actor, Commit, Dot, Edit, Field, Outputs, Path, Replica, SignedChange, StoreOp, Vector,
    WriteError, Written,
};
use crate::time::Now;

/// How many answers may wait for one commit before further callers must wait.
pub const GROUP_MAX: usize = 512;

/// One process's replica, and the decisions that are not on disk yet.
#[derive(Debug)]
pub struct Desk<R> {
    replica: Replica,
    /// What was decided and waits for the next commit.
    gathering: Group<R>,
    /// The commit that runs, and its group. Invariant: the commit is not empty, and the group's own
    /// `commit` is, because it was moved here.
    committing: Option<(Arc<Commit>, Group<R>)>,
    /// Set after a failed commit, until the replica is loaded from the disk again: the changes that
    /// were about to be told.
    lost: Option<BTreeSet<Dot>>,
}

/// What comes next at the desk.
#[derive(Debug)]
#[must_use = "those who asked wait for it"]
pub enum Next<R> {
    /// To be put on disk, all of it or nothing. The owner then calls [`Desk::committed`] or
    /// [`Desk::failed`].
    Commit(Arc<Commit>),
    /// Nothing had to be put on disk: the owner carries this out at once.
    Speak(Speech<R>),
}

/// What may leave the desk, because all changes that it names are on disk. The fields stand in the
/// order in which they take effect: a caller that is answered finds the views as of its commit, and
/// a watcher that is told of a change finds it acknowledged.
#[derive(Debug)]
#[must_use = "those who asked wait for it"]
pub struct Speech<R> {
    /// The changes that are new in the documents. The owner updates the views by them first, and
    /// tells them to the watchers on this node after all else.
    pub news: Vec<SignedChange>,
    /// To be pushed to other nodes.
    pub push: Vec<SignedChange>,
    /// To be pushed to other nodes, which are to say when they have it on disk.
    pub ask: Vec<SignedChange>,
    /// The answers to be given to the callers.
    pub replies: Vec<R>,
    /// Whether the disk holds something else than before.
    pub stored: bool,
}

/// What became of a write that was decided. It is not on disk yet.
#[derive(Debug)]
pub struct Accepted {
    /// What became of each document, in the order of the edits.
    pub written: Vec<Written>,
    /// The changes of which the other nodes are asked for receipts, where that was wanted.
    pub asked: BTreeSet<Dot>,
}

/// What was decided together.
#[derive(Debug)]
struct Group<R> {
    outputs: Outputs,
    /// The changes to be pushed for which receipts are wanted.
    asked: BTreeSet<Dot>,
    /// Whether a write of this node is in it, which no read may show before it is on disk.
    writes: bool,
    replies: Vec<R>,
}

impl<R> Default for Group<R> {
    fn default() -> Self {
        let (outputs, asked) = (Outputs::default(), BTreeSet::new());
        Self { outputs, asked, writes: false, replies: Vec::new() }
    }
}

impl<R> Group<R> {
    fn is_empty(&self) -> bool {
        let Outputs { commit, send, notify, .. } = &self.outputs;
        self.replies.is_empty() && commit.is_empty() && send.is_empty() && notify.is_empty()
    }
}

impl<R> Desk<R> {
    /// The desk of a replica that is wholly on disk.
    pub fn new(replica: Replica) -> Self {
        Self { replica, gathering: Group::default(), committing: None, lost: None }
    }

    /// The replica with all that was decided, on disk or not.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What is being committed now.
    pub fn committing(&self) -> Option<&Commit> {
        self.committing.as_ref().map(|(commit, _)| &**commit)
    }

    /// How many answers the next commit still has room for: while there is none, callers wait.
    pub fn room(&self) -> usize {
        GROUP_MAX.saturating_sub(self.gathering.replies.len())
    }

    /// Writes as one commit, as [`Replica::write_all`]. With `receipt`, the other nodes are asked
    /// to say when they have the changes. Where a document says already what an edit sets, the
    /// changes that say it are pushed again.
    ///
    /// # Errors
    /// [`WriteError`], and nothing changed.
    pub fn write(
        &mut self,
        edits: Vec<(Path, Edit)>,
        actor: Actor,
        incarnation: u64,
        receipt: bool,
        now: Now,
    ) -> Result<Accepted, WriteError> {
        let fields_of = |edit: &Edit| edit.set.keys().cloned().collect::<BTreeSet<_>>();
        let touched = receipt.then(|| edits.iter().map(|(_, edit)| fields_of(edit)).collect());
        let touched: Vec<BTreeSet<Field>> = touched.unwrap_or_default();
        let (written, outputs) = self.replica.write_all(edits, actor, incarnation, now)?;
        self.gathering.writes |= !outputs.commit.is_empty();
        self.gather(outputs);
        let mut asked = BTreeSet::new();
        for (written, fields) in written.iter().zip(&touched) {
            match &written.change {
                Some(change) => drop(asked.insert(change.dot)),
                // Other nodes may lack the earlier changes that say the same.
                None => {
                    let standing = saying(&self.replica, &written.path, fields);
                    asked.extend(standing.keys());
                    self.gathering.outputs.send.extend(standing.into_values());
                }
            }
        }
        self.gathering.asked.extend(&asked);
        Ok(Accepted { written, asked })
    }

    /// Merges changes from elsewhere, as [`Replica::merge`]. Answers with whether all were taken.
    pub fn merge(
        &mut self,
        changes: impl IntoIterator<Item = SignedChange>,
        relay: bool,
        now: Now,
    ) -> bool {
        self.bring(changes, |replica, change| replica.merge(change, relay, now))
    }

    /// As [`merge`](Self::merge), for changes that each prove something, such as an admission, as
    /// [`Replica::merge_proof`].
    pub fn merge_proof(
        &mut self,
        changes: impl IntoIterator<Item = SignedChange>,
        relay: bool,
        now: Now,
    ) -> bool {
        self.bring(changes, |replica, change| replica.merge_proof(change, relay, now))
    }

    fn bring(
        &mut self,
        changes: impl IntoIterator<Item = SignedChange>,
        merge: impl Fn(&mut Replica, SignedChange) -> Outputs,
    ) -> bool {
        let mut all = true;
        for change in changes {
            let outputs = merge(&mut self.replica, change);
            all &= !outputs.untaken;
            self.gather(outputs);
        }
        all
    }

    /// Takes over a peer's vector at the end of a session, as [`Replica::absorb`].
    pub fn absorb(&mut self, vector: &Vector) {
        let outputs = self.replica.absorb(vector);
        self.gather(outputs);
    }

    /// Forgets history, as [`Replica::compact`]. Answers with how many changes are forgotten or
    /// abridged.
    pub fn compact(&mut self) -> u64 {
        let outputs = self.replica.compact();
        let forgets = |op: &&StoreOp| matches!(op, StoreOp::Forget(_) | StoreOp::Abridge(_));
        let forgotten = outputs.commit.ops.iter().filter(forgets).count();
        self.gather(outputs);
        forgotten as u64
    }

    /// Keeps the answer to a decided request until all that was decided so far is on disk. This
    /// holds also where the request changed nothing, for what it found may not be on disk yet.
    pub fn answer_after_commit(&mut self, reply: R) {
        debug_assert!(self.lost.is_none(), "nothing is decided upon what is lost");
        self.gathering.replies.push(reply);
    }

    /// Takes in the answer to a read of the replica, and gives it back where the caller may have it
    /// at once. While a write of this node is not on disk yet, the answer may show that write, so
    /// it waits for the commit.
    #[must_use = "an answer that comes back is to be given"]
    pub fn answer_read(&mut self, reply: R) -> Option<R> {
        let writing = self.committing.as_ref().is_some_and(|(_, group)| group.writes);
        if !writing && !self.gathering.writes {
            return Some(reply);
        }
        self.answer_after_commit(reply);
        None
    }

    /// When [`tell_overdue`](Self::tell_overdue) has something to tell (monotonic); none where
    /// nothing waits.
    pub fn overdue_at(&self) -> Option<Duration> {
        self.replica.overdue_at()
    }

    /// Lets the changes be told that have waited too long for the rest of their commit. Answers
    /// with these changes.
    pub fn tell_overdue(&mut self, now: Now) -> &[SignedChange] {
        let before = self.gathering.outputs.notify.len();
        if self.overdue_at().is_some_and(|due| due <= now.mono) {
            let outputs = self.replica.tell_overdue(now);
            self.gather(outputs);
        }
        &self.gathering.outputs.notify[before..]
    }

    fn gather(&mut self, outputs: Outputs) {
        debug_assert!(self.lost.is_none(), "nothing is decided upon what is lost");
        self.gathering.outputs.extend(outputs);
    }

    /// What the owner has to do next. None while a commit runs, between [`failed`](Self::failed)
    /// and [`reloaded`](Self::reloaded), and where nothing was decided.
    pub fn proceed(&mut self) -> Option<Next<R>> {
        if self.committing.is_some() || self.lost.is_some() || self.gathering.is_empty() {
            return None;
        }
        let mut group = mem::take(&mut self.gathering);
        let commit = mem::take(&mut group.outputs.commit);
        if commit.is_empty() {
            return Some(Next::Speak(speech(group, false)));
        }
        let commit = Arc::new(commit);
        self.committing = Some((commit.clone(), group));
        Some(Next::Commit(commit))
    }

    /// The commit that runs is on disk. Answers with what may leave the desk now.
    ///
    /// # Panics
    /// Where no commit runs.
    pub fn committed(&mut self) -> Speech<R> {
        let (commit, group) = self.committing.take().expect("a commit that ends has begun");
        self.replica.committed(&commit);
        speech(group, true)
    }

    /// The commit that runs has failed, and with it all that was decided meanwhile. Gives back the
    /// answers of all callers that waited: nothing that they asked for took place. Until
    /// [`reloaded`](Self::reloaded) the desk must not be asked for anything.
    ///
    /// # Panics
    /// Where no commit runs.
    pub fn failed(&mut self) -> Vec<R> {
        let (_, failed) = self.committing.take().expect("a commit that ends has begun");
        let gathered = mem::take(&mut self.gathering);
        let news = failed.outputs.notify.iter().chain(&gathered.outputs.notify);
        self.lost = Some(news.map(|change| change.dot).collect());
        failed.replies.into_iter().chain(gathered.replies).collect()
    }

    /// Goes on from what the disk holds after a failed commit. Answers with the changes on disk
    /// that were never told: the owner tells them now. From here on this process writes under a new
    /// incarnation, because nobody can know whether the failed commit is on disk after all.
    pub fn reloaded(&mut self, replica: Replica) -> Vec<SignedChange> {
        let before = mem::replace(&mut self.replica, replica);
        let unsaid = self.lost.take().unwrap_or_default();
        self.replica.take_over(&before, &unsaid)
    }
}

/// What may leave the desk of a group that is on disk.
fn speech<R>(group: Group<R>, stored: bool) -> Speech<R> {
    let Group { outputs: Outputs { send, notify, .. }, asked, replies, .. } = group;
    let (ask, push) = match asked.is_empty() {
        true => (Vec::new(), send),
        false => send.into_iter().partition(|change| asked.contains(&change.dot)),
    };
    Speech { news: notify, push, ask, replies, stored }
}

/// The changes that say what these fields of a document show.
fn saying(replica: &Replica, path: &Path, fields: &BTreeSet<Field>) -> BTreeMap<Dot, SignedChange> {
    let shown = replica.document(path).into_iter().flat_map(|document| document.fields());
    let shown = shown.filter(|(field, _, _)| fields.contains(*field));
    shown.map(|(_, _, change)| (change.dot, change.clone())).collect()
}
