//! A document: what its changes say together, whatever the order in which they came.
//!
//! The state is a function of the *set* of changes merged, which makes the merge commutative,
//! associative and idempotent (Shapiro et al., "Conflict-free Replicated Data Types", 2011). For
//! each field, the changes that touched it and that no other change had seen are its *siblings*.
//! The field shows the latest sibling; the other siblings were written without knowledge of it, and
//! stay as conflicts until a change has seen them. A removal hides the writes that did not know of
//! it and are not later. So stamps decide between concurrent changes only: a write supersedes every
//! change that it saw, and no removal that it saw hides it, whatever the clocks said.
//!
//! For each field, a change names all changes that its writer had seen there, not only the last
//! (dotted version vector sets: Almeida et al., "Scalable and Accurate Causality Tracking for
//! Eventually Consistent Stores", 2014). So the siblings alone name everything that was superseded.
//! A node may forget the changes in between, and a node that comes late or restarts still sees no
//! false conflict.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Change, SignedChange, Stamp};
use super::path::{Field, Path};
use super::register::{Kept, Register};
use super::sizes::{Role, Sizes};
use super::vector::{Dot, digest};

/// How two writes to one field are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Law {
    /// The later stamp wins; of concurrent writes the earlier stays as a conflict.
    LastWriterWins,
    /// Once set, set for ever, with the earliest value known: no clock and no restart undoes it.
    Terminal,
}

/// The fields of the Data Center's own records that are terminal.
const TERMINAL_FIELDS: [&str; 2] = ["removed", "revoked"];

/// Whether a field of the Data Center's own records is terminal.
pub(super) fn is_terminal(field: &Field) -> bool {
    TERMINAL_FIELDS.contains(&field.as_str())
}

fn law(path: &Path, field: &Field) -> Law {
    if path.is_reserved() && is_terminal(field) { Law::Terminal } else { Law::LastWriterWins }
}

/// One side of a conflict: a change, and what it says of the field in question.
#[derive(Debug, Clone)]
pub struct Side {
    /// The whole change, for the part shown may make sense only beside the rest.
    pub change: SignedChange,
    /// The value that the change gives the field; `None` where it takes the field away.
    pub value: Option<Value>,
}

/// Writes to one field that did not know of each other.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The field.
    pub field: Field,
    /// What the field shows everywhere.
    pub winner: Side,
    /// The sides that the field does not show, latest first.
    pub losers: Vec<Side>,
}

/// What a document can forget when room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yield {
    /// A change that is wholly superseded.
    Whole(Stamp, Dot),
    /// The superseded values of a change that is not wholly superseded.
    Part(Stamp, Dot),
}

impl Yield {
    fn of(kept: &Kept) -> Option<Self> {
        let (stamp, dot) = (kept.change.stamp(), kept.change.dot);
        match kept.role() {
            Role::History => Some(Self::Whole(stamp, dot)),
            _ => kept.can_be_abridged().then_some(Self::Part(stamp, dot)),
        }
    }
}

/// What the changes to one path say together.
#[derive(Debug, Clone, Default)]
pub struct Document {
    fields: BTreeMap<Field, Register>,
    /// The removals that no other change had seen: they are in conflict with what the document
    /// shows.
    removals: Register,
    /// The removals that no other removal has taken over. Only they name what they superseded,
    /// whatever was written since; and they hide concurrent writes that are not later.
    tombs: Register,
    /// All changes that are kept, in the order of their stamps.
    history: BTreeMap<Stamp, Kept>,
    /// How many changes in `history` are wholly superseded.
    superseded: usize,
    /// How many bytes the changes take. Invariant: the sum over `history`.
    sizes: Sizes,
}

impl Document {
    /// Merges a change that was not merged before. Answers with the changes that can be forgotten
    /// now, wholly or in part. The merged change is among them if other changes had superseded a
    /// part of it before it came.
    pub(super) fn merge(&mut self, change: SignedChange) -> Vec<Yield> {
        let (stamp, dot) = (change.stamp(), change.dot);
        self.keep(change.clone());
        let mut touched = vec![stamp];
        for field in change.set.keys().chain(&change.unset) {
            if law(&change.path, field) == Law::Terminal {
                self.merge_terminal(field, &change, &mut touched);
            } else if self.fields.entry(field.clone()).or_default().insert(stamp, dot) {
                self.hold(stamp, Some(field));
            }
        }
        for (field, seen) in &change.based_on {
            if law(&change.path, field) == Law::LastWriterWins {
                let gone = self.fields.entry(field.clone()).or_default().supersede(seen);
                self.let_go(gone, Some(field), &mut touched);
            }
        }
        if change.remove {
            let held = [&mut self.removals, &mut self.tombs].map(|r| r.insert(stamp, dot));
            held.into_iter().filter(|held| *held).for_each(|_| self.hold(stamp, None));
            let over = change.takes_over.as_ref().unwrap_or(&change.removals_seen);
            let gone = self.tombs.supersede(over);
            self.let_go(gone, None, &mut touched);
        }
        let gone = self.removals.supersede(&change.removals_seen);
        self.let_go(gone, None, &mut touched);
        touched.sort_unstable();
        touched.dedup();
        let kept = touched.iter().filter_map(|stamp| self.history.get(stamp));
        kept.filter_map(Yield::of).collect()
    }

    /// Whether other changes have superseded all values that a change leaves out. A change that
    /// leaves out any other value must not be merged: it would take that value away.
    pub(super) fn has_superseded_what_is_left_out_of(&self, change: &SignedChange) -> bool {
        let seen = |field| self.fields.get(field).is_some_and(|r| r.has_seen(&change.dot));
        change.left_out().all(seen)
    }

    fn merge_terminal(&mut self, field: &Field, change: &SignedChange, touched: &mut Vec<Stamp>) {
        if !change.set.contains_key(field) {
            return;
        }
        let stamp = change.stamp();
        let register = self.fields.entry(field.clone()).or_default();
        let first = register.siblings.first_key_value().map(|(stamp, _)| *stamp);
        if first.is_some_and(|first| first <= stamp) {
            return;
        }
        register.siblings = BTreeMap::from([(stamp, change.dot)]);
        self.hold(stamp, Some(field));
        self.let_go(first.into_iter().collect(), Some(field), touched);
    }

    /// Adds a change that is a sibling of no register yet.
    fn keep(&mut self, change: SignedChange) {
        let kept = Kept::new(change);
        self.sizes += kept.sizes();
        self.superseded += 1;
        // No honest writer gives two changes of a document one stamp.
        if let Some(other) = self.history.insert(kept.change.stamp(), kept) {
            self.sizes -= other.sizes();
            self.superseded -= usize::from(other.role() == Role::History);
        }
    }

    /// A change is a sibling now: of a field, or of the removals.
    fn hold(&mut self, stamp: Stamp, field: Option<&Field>) {
        self.adjust(stamp, |kept| kept.hold(field));
    }

    /// These changes are siblings no more: of a field, or of the removals.
    fn let_go(&mut self, gone: Vec<Stamp>, field: Option<&Field>, touched: &mut Vec<Stamp>) {
        for stamp in &gone {
            self.adjust(*stamp, |kept| kept.let_go(field));
        }
        touched.extend(gone);
    }

    fn adjust(&mut self, stamp: Stamp, step: impl FnOnce(&mut Kept)) {
        let Some(kept) = self.history.get_mut(&stamp) else { return };
        self.sizes -= kept.sizes();
        self.superseded -= usize::from(kept.role() == Role::History);
        step(kept);
        self.sizes += kept.sizes();
        self.superseded += usize::from(kept.role() == Role::History);
    }

    /// How many bytes the changes to this document take.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How many live bytes of this document would stop being live after a write that has seen all
    /// changes to the fields that it touches.
    pub(super) fn freed_by(&self, change: &Change) -> usize {
        let also = change.unset.iter().filter(|field| !change.set.contains_key(*field));
        let mut gone: BTreeMap<Stamp, Vec<&Field>> = BTreeMap::new();
        for field in change.set.keys().chain(also) {
            if law(&change.path, field) == Law::LastWriterWins
                && let Some(register) = self.fields.get(field)
            {
                register.siblings.keys().for_each(|s| gone.entry(*s).or_default().push(field));
            }
        }
        let freed = |(stamp, fields): (&Stamp, &Vec<_>)| {
            self.history.get(stamp).map_or(0, |kept| kept.freed_without(fields))
        };
        gone.iter().map(freed).sum()
    }

    /// Whether a write to these fields would settle a conflict: a field has several siblings, or
    /// the document shows fields although a removal is in conflict with them.
    pub(super) fn is_contested<'a>(&self, mut fields: impl Iterator<Item = &'a Field>) -> bool {
        (!self.removals.siblings.is_empty() && self.exists())
            || fields.any(|f| self.fields.get(f).is_some_and(|r| r.siblings.len() > 1))
    }

    /// Takes a superseded change out; `false` where the document has no such change.
    pub(super) fn forget(&mut self, stamp: Stamp, dot: Dot) -> bool {
        let is_it = |kept: &Kept| kept.change.dot == dot && kept.role() == Role::History;
        if !self.history.get(&stamp).is_some_and(is_it) {
            return false;
        }
        if let Some(kept) = self.history.remove(&stamp) {
            self.sizes -= kept.sizes();
            self.superseded -= 1;
        }
        true
    }

    /// Leaves the superseded values out of a change that is not wholly superseded. Answers with the
    /// abridged change, if anything was left out.
    pub(super) fn abridge(&mut self, stamp: Stamp, dot: Dot) -> Option<SignedChange> {
        let kept = self.history.get(&stamp)?;
        if kept.change.dot != dot || !kept.can_be_abridged() {
            return None;
        }
        self.adjust(stamp, Kept::abridge);
        Some(self.history.get(&stamp)?.change.clone())
    }

    /// The fields that the document shows, each with its value and the change that set it.
    pub fn fields(&self) -> impl Iterator<Item = (&Field, &Value, &SignedChange)> {
        self.fields.keys().filter_map(|field| {
            let (value, change) = self.shown(field)?;
            Some((field, value, change))
        })
    }

    /// The value that a field shows.
    pub fn value(&self, field: &str) -> Option<&Value> {
        let (field, _) = self.fields.get_key_value(field)?;
        Some(self.shown(field)?.0)
    }

    fn shown(&self, field: &Field) -> Option<(&Value, &SignedChange)> {
        let change = self.speaker(field, self.fields.get(field)?)?;
        Some((change.set.get(field)?, change))
    }

    /// The change that decides a field: the latest of its siblings that no removal hides.
    fn speaker(&self, field: &Field, register: &Register) -> Option<&SignedChange> {
        let stamps = register.siblings.keys().rev();
        let mut siblings = stamps.filter_map(|stamp| Some(&self.history.get(stamp)?.change));
        siblings.find(|change| {
            law(&change.path, field) == Law::Terminal || self.hidden_by(change).is_none()
        })
    }

    /// The latest of the removals that hide a change: the change did not know of them, and is not
    /// later.
    fn hidden_by(&self, change: &SignedChange) -> Option<Stamp> {
        let later = self.tombs.siblings.range(change.stamp()..).rev();
        let knew = |dot: &Dot| {
            let seen = &change.removals_seen;
            let found = seen.binary_search_by_key(&dot.writer, |seen| seen.writer);
            found.is_ok_and(|at| seen[at].stands_for(dot))
        };
        later.filter(|(_, dot)| !knew(dot)).map(|(stamp, _)| *stamp).next()
    }

    /// The changes that touched a field and that no other change to it had seen, earliest first.
    /// The field shows the last, unless a removal hides it; the others were written without
    /// knowledge of the last.
    pub fn siblings(&self, field: &str) -> impl Iterator<Item = &SignedChange> {
        let stamps = self.fields.get_key_value(field).map(|(_, register)| register.siblings.keys());
        stamps.into_iter().flatten().filter_map(|stamp| Some(&self.history.get(stamp)?.change))
    }

    /// Whether any field shows.
    pub fn exists(&self) -> bool {
        self.fields().next().is_some()
    }

    /// Sixteen hex digits that are the same where the same changes decide the document, those in a
    /// conflict included. A writer sends the tag that it saw, so that its write is refused if the
    /// document has changed since.
    pub fn tag(&self) -> String {
        let fields = self.fields.values().map(|register| &register.siblings);
        let registers = fields.chain([&self.removals.siblings, &self.tombs.siblings]);
        let live: BTreeSet<&Dot> = registers.flat_map(BTreeMap::values).collect();
        digest(&live)
    }

    /// The stamp of the [`latest`](Self::latest) change.
    pub fn stamp(&self) -> Option<Stamp> {
        self.latest().map(|change| change.stamp())
    }

    /// The latest change that is not wholly superseded; where all are, the latest of all.
    pub fn latest(&self) -> Option<&SignedChange> {
        let mut kept = self.history.values().rev();
        let held = kept.find(|kept| kept.role() != Role::History);
        held.or_else(|| self.history.values().next_back()).map(|kept| &kept.change)
    }

    /// The latest stamp of all changes that are kept.
    pub(super) fn latest_stamp(&self) -> Option<Stamp> {
        self.history.last_key_value().map(|(stamp, _)| *stamp)
    }

    /// The changes that are kept, earliest first, each with `true` unless it is wholly superseded.
    pub fn history(&self) -> impl Iterator<Item = (&SignedChange, bool)> {
        self.history.values().map(|kept| (&kept.change, kept.role() != Role::History))
    }

    /// For each of these fields, the changes that a write to it must name as seen.
    pub(super) fn seen<'a>(
        &self,
        fields: impl Iterator<Item = &'a Field>,
    ) -> BTreeMap<Field, Vec<Dot>> {
        let held = fields.filter_map(|field| {
            let dots = self.fields.get(field)?.dots();
            (!dots.is_empty()).then(|| (field.clone(), dots))
        });
        held.collect()
    }

    /// The fields that a removal supersedes: all that were ever touched.
    pub(super) fn touched_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.keys()
    }

    /// The removals that a write must name as seen.
    pub(super) fn removals_seen(&self) -> Vec<Dot> {
        self.removals.dots()
    }

    /// The removals that a new removal takes over: those that were merged here, and those that
    /// these took over.
    pub(super) fn removals_met(&self) -> Vec<Dot> {
        self.tombs.dots()
    }

    /// Whether a write of this value to this field would change nothing and settle nothing.
    pub(super) fn says_already(&self, field: &Field, value: Option<&Value>) -> bool {
        let siblings = self.fields.get(field).map_or(0, |r| r.siblings.len());
        match value {
            None => siblings == 0 || (siblings == 1 && self.is_unset(field)),
            Some(_) => siblings == 1 && self.shown(field).map(|(v, _)| v) == value,
        }
    }

    fn is_unset(&self, field: &Field) -> bool {
        let latest = self.fields.get(field).and_then(Register::latest);
        latest
            .and_then(|stamp| self.history.get(&stamp))
            .is_some_and(|kept| kept.change.unset.contains(field))
    }

    /// The fields whose writers did not know of each other and did not say the same.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.fields.iter().filter_map(|(field, register)| self.conflict(field, register)).collect()
    }

    fn conflict(&self, field: &Field, register: &Register) -> Option<Conflict> {
        let change = |stamp: &Stamp| Some(self.history.get(stamp)?.change.clone());
        let latest = change(&register.latest()?)?;
        if law(&latest.path, field) == Law::Terminal {
            return None;
        }
        let hidden = self.hidden_by(&latest);
        if register.siblings.len() == 1 && hidden.is_none() && self.removals.siblings.is_empty() {
            return None;
        }
        let side = |change: SignedChange| Side { value: change.set.get(field).cloned(), change };
        let removal = |change| Side { value: None, change };
        let winner = match self.speaker(field, register) {
            Some(speaker) => side(speaker.clone()),
            // The removal did not know of these writes; it hides them all.
            None => removal(change(&hidden?)?),
        };
        let others = register.siblings.keys().rev().filter_map(change).map(side);
        let others = others.filter(|other| other.change.dot != winner.change.dot);
        let removals = self.removals.siblings.keys().rev().filter_map(change).map(removal);
        let losers: Vec<Side> =
            others.chain(removals).filter(|side| side.value != winner.value).collect();
        (!losers.is_empty()).then(|| Conflict { field: field.clone(), winner, losers })
    }

    /// A field whose value just after a change is not known any more: the value is left out, or a
    /// later change had seen a change to the field that was forgotten. `None` where every field is
    /// known, or no change prints that stamp.
    pub fn forgotten_as_of(&self, stamp_text: &str) -> Option<&Field> {
        let until = self.stamped(stamp_text)?;
        let known: BTreeSet<Dot> = self.history.values().map(|kept| kept.change.dot).collect();
        let (past, later) = self.parted_at(until);
        let mut left_out = BTreeSet::new();
        for change in &past {
            if change.remove {
                left_out.clear();
            }
            left_out
                .retain(|field| !change.set.contains_key(*field) && !change.unset.contains(*field));
            left_out.extend(change.left_out());
        }
        if let Some(field) = left_out.first() {
            return Some(field);
        }
        let told: BTreeSet<&Field> = past.iter().flat_map(|change| change.touched()).collect();
        let mut seen = later.iter().flat_map(|change| &change.based_on);
        let lost = seen.find(|(field, dots)| {
            !told.contains(field) && dots.iter().any(|dot| !known.contains(dot))
        });
        lost.map(|(field, _)| field)
    }

    /// The fields with their values just after a change, which `revert` writes again. It is made of
    /// the changes that are still kept: see [`forgotten_as_of`](Self::forgotten_as_of). `None`
    /// where no change prints that stamp.
    pub fn as_of(&self, stamp_text: &str) -> Option<BTreeMap<Field, Value>> {
        let (past, _) = self.parted_at(self.stamped(stamp_text)?);
        let mut then = Self::default();
        for change in past {
            then.merge(change.clone());
        }
        Some(then.fields().map(|(field, value, _)| (field.clone(), value.clone())).collect())
    }

    /// The change whose stamp prints as this text.
    fn stamped(&self, stamp_text: &str) -> Option<&SignedChange> {
        let kept = self.history.iter().find(|(stamp, _)| stamp.to_string() == stamp_text);
        kept.map(|(_, kept)| &kept.change)
    }

    /// Splits the changes into `until` with all before it, and all after it. The changes that a
    /// change saw come before it; of two changes that did not see each other, the one with the
    /// earlier stamp comes first.
    fn parted_at(&self, until: &SignedChange) -> (Vec<&SignedChange>, Vec<&SignedChange>) {
        let changes = self.history.values().map(|kept| &kept.change);
        changes.partition(|change| {
            let is_it = change.dot == until.dot;
            let in_time = change.stamp() <= until.stamp() && !saw(change, &until.dot);
            is_it || saw(until, &change.dot) || in_time
        })
    }

    /// Takes out superseded changes, oldest first, but for the `keep` latest. A change goes where
    /// it is older than `before_ms`, or where the document's changes take more than `bytes`, if
    /// `forgettable` allows it. Answers with the changes that went.
    pub(super) fn prune(
        &mut self,
        keep: usize,
        before_ms: u64,
        bytes: usize,
        forgettable: impl Fn(&Dot) -> bool,
    ) -> Vec<SignedChange> {
        let mut excess = self.superseded.saturating_sub(keep);
        let mut size = self.sizes.total();
        let mut forgotten = Vec::new();
        for (stamp, kept) in &self.history {
            if excess == 0 || (stamp.at.wall_ms() >= before_ms && size <= bytes) {
                break;
            }
            if kept.role() == Role::History && forgettable(&kept.change.dot) {
                excess -= 1;
                size -= kept.sizes().total();
                forgotten.push(kept.change.clone());
            }
        }
        forgotten.retain(|change| self.forget(change.stamp(), change.dot));
        forgotten
    }

    /// The JSON size of the fields that would show with an edit applied, names included.
    pub(super) fn size_with<'a>(
        &'a self,
        set: &'a BTreeMap<Field, Value>,
        unset: &BTreeSet<Field>,
    ) -> usize {
        let kept = self
            .fields()
            .filter(|(field, _, _)| !set.contains_key(*field) && !unset.contains(*field))
            .map(|(field, value, _)| (field, value));
        kept.chain(set).map(|(f, v)| f.as_str().len() + json_bytes(v)).sum()
    }
}

/// Whether a change says that its writer had seen another one of the document.
fn saw(change: &Change, other: &Dot) -> bool {
    let of_fields = change.based_on.values().flatten();
    of_fields.chain(&change.removals_seen).any(|seen| seen.stands_for(other))
}

fn json_bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 2, |json| json.len())
}
