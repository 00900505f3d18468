//! From records to the state that they add up to, and what damage means for it.
//!
//! A commit counts when all of its records are there. A power cut may tear the last commit of a
//! file: that commit was not acknowledged, and is dropped whole. Damage before the last commit is
//! different, since the later commit shows that the damaged one had been acknowledged. Its readable
//! records count, and its unreadable ones are named as damage. (Damage in the very last commit
//! looks like a torn commit and is treated as one: the node then starts from a disk that is one
//! commit older.)

use std::collections::{BTreeMap, BTreeSet};

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Dot, Writer};

use super::Damage;
use super::record::{Head, Subject};

/// The state, with changes and meta values held as `V`.
#[derive(Debug, Clone)]
pub(super) struct Contents<V> {
    pub(super) changes: BTreeMap<Dot, V>,
    pub(super) meta: BTreeMap<String, V>,
    /// Whose journal this is.
    pub(super) owner: Option<NodeId>,
    /// Whether any mark was read: a journal has one from its beginning.
    pub(super) marked: bool,
    seen: BTreeMap<Writer, u64>,
    lost_changes: BTreeSet<Dot>,
    lost_meta: BTreeSet<String>,
    unnamed: usize,
}

impl<V> Default for Contents<V> {
    fn default() -> Self {
        Self {
            changes: BTreeMap::new(),
            meta: BTreeMap::new(),
            owner: None,
            marked: false,
            seen: BTreeMap::new(),
            lost_changes: BTreeSet::new(),
            lost_meta: BTreeSet::new(),
            unnamed: 0,
        }
    }
}

impl<V> Contents<V> {
    /// Applies one record; `None` for a value that no longer matches its checksum.
    pub(super) fn apply(&mut self, subject: Subject, value: Option<V>) {
        match (subject, value) {
            (Subject::Put(dot), Some(value)) => {
                self.lost_changes.remove(&dot);
                self.changes.insert(dot, value);
            }
            (Subject::Put(dot), None) => {
                self.changes.remove(&dot);
                self.lost_changes.insert(dot);
            }
            (Subject::Forget(dot), _) => {
                self.changes.remove(&dot);
                self.lost_changes.remove(&dot);
            }
            (Subject::Seen(writer, seq), _) => {
                self.seen.insert(writer, seq);
            }
            (Subject::Meta(name), Some(value)) => {
                self.lost_meta.remove(&name);
                self.meta.insert(name, value);
            }
            (Subject::Meta(name), None) => {
                self.meta.remove(&name);
                self.lost_meta.insert(name);
            }
            (Subject::MetaDelete(name), _) => {
                self.meta.remove(&name);
                self.lost_meta.remove(&name);
            }
            (Subject::ClearReplica, _) => {
                self.changes.clear();
                self.seen.clear();
                self.lost_changes.clear();
            }
            (Subject::Mark, _) => self.marked = true,
            (Subject::Owner(node), _) => self.owner = Some(node),
            (Subject::Lost(name), _) => {
                self.meta.remove(&name);
                self.lost_meta.insert(name);
            }
            (Subject::Gap, _) => self.unnamed += 1,
            (Subject::Mended, _) => {
                self.seen = self.seen().into_iter().collect();
                self.lost_changes.clear();
                self.lost_meta.clear();
                self.unnamed = 0;
                self.marked = true;
            }
        }
    }

    /// The records that carry known damage into a new file: lost names and gaps stay known until
    /// the damage is dealt with. A lost change needs no record, since no vector covers it.
    pub(super) fn scars(&self) -> impl Iterator<Item = Subject> {
        let lost = self.lost_meta.iter().cloned().map(Subject::Lost);
        lost.chain((self.unnamed > 0).then_some(Subject::Gap))
    }

    /// How far each writer was seen, but not past its first lost change. Empty where a stretch is
    /// unnamed.
    pub(super) fn seen(&self) -> Vec<(Writer, u64)> {
        if self.unnamed > 0 {
            return Vec::new();
        }
        let mut seen = self.seen.clone();
        for dot in &self.lost_changes {
            if let Some(seq) = seen.get_mut(&dot.writer) {
                *seq = (*seq).min(dot.seq.saturating_sub(1));
            }
        }
        seen.into_iter().collect()
    }

    pub(super) fn damage(&self) -> Damage {
        Damage {
            changes: self.lost_changes.iter().copied().collect(),
            meta: self.lost_meta.iter().cloned().collect(),
            unnamed: self.unnamed,
            header: false,
        }
    }
}

/// Takes the records of a file in order, and tells commits that count from what a power cut left.
#[derive(Debug)]
pub(super) struct Replay<V> {
    pub(super) contents: Contents<V>,
    /// Up to where the file counts; what lies behind is a torn commit.
    pub(super) end: u64,
    /// The number of the last commit that counts.
    pub(super) commit: u64,
    /// The commit whose records are being read. An incomplete commit stays here until a later
    /// commit shows that it had been acknowledged.
    open: Option<Open<V>>,
    /// Unreadable bytes lie between the last whole commit and the next record.
    gap: bool,
}

#[derive(Debug)]
struct Open<V> {
    commit: u64,
    records: Vec<(Subject, Option<V>)>,
    whole: bool,
    closed: bool,
    gaps: usize,
    end: u64,
}

impl<V> Replay<V> {
    /// Begins behind the file's header.
    pub(super) fn new(start: u64) -> Self {
        Self { contents: Contents::default(), end: start, commit: 0, open: None, gap: false }
    }

    /// The next record, from `at` to `end`.
    pub(super) fn record(&mut self, at: u64, end: u64, head: Head, value: Option<V>) {
        let place = head.place;
        if self.open.as_ref().is_some_and(|open| open.commit != place.commit) {
            self.settle();
        }
        let open = self.open.get_or_insert_with(|| {
            let whole = place.index == 0;
            if whole {
                // Bytes before the beginning of a commit belonged to commits that had been
                // acknowledged.
                self.contents.unnamed += usize::from(self.gap);
                self.end = at;
            }
            let gaps = usize::from(self.gap && !whole);
            self.gap = false;
            Open { commit: place.commit, records: Vec::new(), whole, closed: false, gaps, end }
        });
        open.whole &= value.is_some() && place.index as usize == open.records.len();
        open.closed = place.last;
        open.end = end;
        open.records.push((head.subject, value));
        if open.whole && open.closed {
            self.settle();
        }
    }

    /// A stretch in which no record begins.
    pub(super) fn gap(&mut self) {
        match &mut self.open {
            Some(open) => {
                open.whole = false;
                open.gaps += 1;
            }
            None => self.gap = true,
        }
    }

    /// The open commit counts, as far as it can be read.
    fn settle(&mut self) {
        let Some(open) = self.open.take() else { return };
        for (subject, value) in open.records {
            self.contents.apply(subject, value);
        }
        let missing = usize::from(!open.closed && open.gaps == 0);
        self.contents.unnamed += open.gaps + missing;
        self.end = open.end;
        self.commit = open.commit;
    }
}
