//! Commits: changes that were written together, and are shown together elsewhere.
//!
//! A writer numbers its changes without gaps, and each change names the range of numbers of its
//! commit. Changes travel and are kept one by one, so one may overtake another, and each is merged
//! into its document as it comes. A node *tells* of them (to watchers, and to the views that are
//! read out of documents) once its vector covers the last change of the commit. Where the rest does
//! not come for [`HOLD_MAX`], such as when the writer is gone for good, the node tells what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::vector::{Dot, SEQ_MAX, Writer};

/// How many changes one commit may have.
pub const COMMIT_CHANGES_MAX: usize = 16_384;

/// How many bytes the changes of one commit may have together, as they are signed.
pub const COMMIT_BYTES_MAX: usize = 48 * 1024 * 1024;

/// How long changes wait for the others of their commit, from the last change that came.
pub const HOLD_MAX: Duration = Duration::from_secs(60);

/// How long changes wait at most, from the first of their commit that came.
pub(super) const HOLD_ALL_MAX: Duration = Duration::from_secs(600);

/// Which of a writer's changes were written together: the first and the last, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct CommitRange {
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

impl CommitRange {
    /// The range of `count` changes from the number `first`; none for a single change.
    pub(super) fn of(first: u64, count: usize) -> Option<Self> {
        (count > 1).then(|| Self { first, last: first + count as u64 - 1 })
    }

    /// Whether a writer's change of this number can belong to a commit of this range.
    pub(super) fn fits(&self, seq: u64) -> bool {
        let Self { first, last } = *self;
        first > 0
            && first < last
            && last <= SEQ_MAX
            && last - first < COMMIT_CHANGES_MAX as u64
            && (first..=last).contains(&seq)
    }
}

impl From<(u64, u64)> for CommitRange {
    fn from((first, last): (u64, u64)) -> Self {
        Self { first, last }
    }
}

impl From<CommitRange> for (u64, u64) {
    fn from(range: CommitRange) -> Self {
        (range.first, range.last)
    }
}

/// The changes whose commits are not complete here, by the last number of each commit.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<Writer, BTreeMap<u64, Waiting>>);

/// The changes of one commit that came so far.
#[derive(Debug)]
struct Waiting {
    /// When the first of them came (monotonic).
    first: Duration,
    /// When the latest of them came.
    since: Duration,
    seqs: BTreeSet<u64>,
}

impl Waiting {
    /// When these changes have waited too long (monotonic).
    fn due(&self) -> Duration {
        (self.since + HOLD_MAX).min(self.first + HOLD_ALL_MAX)
    }
}

impl Held {
    /// Holds back a change of the commit that ends with the number `last`.
    pub(super) fn hold(&mut self, dot: Dot, last: u64, now: Duration) {
        let commits = self.0.entry(dot.writer).or_default();
        let new = || Waiting { first: now, since: now, seqs: BTreeSet::new() };
        let waiting = commits.entry(last).or_insert_with(new);
        waiting.since = now;
        waiting.seqs.insert(dot.seq);
    }

    /// All changes of a writer up to the number `seen` are here: releases those whose commits are
    /// complete now.
    pub(super) fn complete(&mut self, writer: Writer, seen: u64) -> Vec<Dot> {
        let Some(commits) = self.0.get_mut(&writer) else { return Vec::new() };
        let mut complete = Vec::new();
        while let Some(first) = commits.first_entry().filter(|first| *first.key() <= seen) {
            complete.extend(first.remove().seqs);
        }
        if commits.is_empty() {
            self.0.remove(&writer);
        }
        complete.into_iter().map(|seq| Dot { writer, seq }).collect()
    }

    /// Releases one change, also where its commit is not complete. Answers whether it was held.
    pub(super) fn release(&mut self, dot: &Dot) -> bool {
        let Some(commits) = self.0.get_mut(&dot.writer) else { return false };
        commits.values_mut().any(|waiting| waiting.seqs.remove(&dot.seq))
    }

    /// Whether a change is held.
    pub(super) fn holds(&self, dot: &Dot) -> bool {
        let commits = self.0.get(&dot.writer);
        commits.is_some_and(|c| c.values().any(|waiting| waiting.seqs.contains(&dot.seq)))
    }

    /// Releases the changes that have waited too long.
    pub(super) fn overdue(&mut self, now: Duration) -> Vec<Dot> {
        let mut overdue = Vec::new();
        for (writer, commits) in &mut self.0 {
            commits.retain(|_, waiting| {
                let waits = now < waiting.due();
                if !waits {
                    let seqs = waiting.seqs.iter();
                    overdue.extend(seqs.map(|seq| Dot { writer: *writer, seq: *seq }));
                }
                waits
            });
        }
        self.0.retain(|_, commits| !commits.is_empty());
        overdue
    }

    /// When the first change will have waited too long (monotonic); none where no change waits.
    pub(super) fn due(&self) -> Option<Duration> {
        let waiting = self.0.values().flat_map(BTreeMap::values);
        waiting.map(Waiting::due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn dot(seq: u64) -> Dot {
        Dot { writer: Writer { node: NodeId([1; 32]), incarnation: 1 }, seq }
    }

    fn seqs(dots: &[Dot]) -> Vec<u64> {
        dots.iter().map(|dot| dot.seq).collect()
    }

    #[test]
    fn a_range_says_what_a_writer_can_have_written() {
        let fits = |first, last, seq| CommitRange { first, last }.fits(seq);
        assert!(fits(1, 2, 1) && fits(1, 2, 2) && fits(7, 9, 8));
        assert!(!fits(1, 2, 3) && !fits(2, 3, 1), "it is not of its own commit");
        assert!(!fits(0, 1, 1) && !fits(1, 1, 1) && !fits(3, 2, 2) && !fits(1, SEQ_MAX + 1, 1));
        let many = COMMIT_CHANGES_MAX as u64;
        assert!(fits(1, many, 1) && !fits(1, many + 1, 1));
        assert_eq!(CommitRange::of(5, 1), None);
        assert_eq!(CommitRange::of(5, 3), Some(CommitRange { first: 5, last: 7 }));
    }

    #[test]
    fn changes_are_held_until_the_last_of_their_commit_is_covered() {
        let (mut held, at) = (Held::default(), Duration::from_secs);
        held.hold(dot(5), 6, at(0));
        held.hold(dot(2), 3, at(1));
        held.hold(dot(3), 3, at(1));
        assert_eq!(seqs(&held.complete(dot(1).writer, 2)), [0; 0]);
        assert_eq!(seqs(&held.complete(dot(1).writer, 5)), [2, 3]);
        assert_eq!(seqs(&held.complete(dot(1).writer, 6)), [5]);
        assert_eq!(held.due(), None);
    }

    #[test]
    fn what_comes_while_others_wait_makes_them_wait_anew() {
        let mut held = Held::default();
        held.hold(dot(1), 3, Duration::ZERO);
        held.hold(dot(2), 3, HOLD_MAX / 2);
        assert_eq!(held.due(), Some(HOLD_MAX + HOLD_MAX / 2));
        assert!(held.overdue(HOLD_MAX).is_empty());
        assert_eq!(seqs(&held.overdue(HOLD_MAX + HOLD_MAX / 2)), [1, 2]);
        assert_eq!(held.due(), None);
        // Changes that come do not prolong the wait for ever.
        let every = HOLD_MAX * 59 / 60;
        let times = (0..).map(|n| every * n).take_while(|at| *at < HOLD_ALL_MAX);
        for (seq, at) in (1..).zip(times) {
            assert!(held.overdue(at).is_empty());
            held.hold(dot(seq), 1000, at);
        }
        assert!(seqs(&held.overdue(HOLD_ALL_MAX)).len() > 5);
    }
}
