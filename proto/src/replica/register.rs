//! `Register`: the writes that decide one field of a document. `Kept`: a change, and how many
//! registers need it.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{SignedChange, Stamp};
use super::path::Field;
use super::sizes::{Role, Sizes};
use super::vector::{Dot, Vector};

/// The writes to one field (or the removals of the document) that no known change supersedes.
#[derive(Debug, Clone, Default)]
pub(super) struct Register {
    pub(super) siblings: BTreeMap<Stamp, Dot>,
    /// What the merged changes had seen of this register: for each writer, the number of its latest
    /// change. A writer has seen its own earlier changes, so the number stands for these, too.
    /// Invariant: `seen` covers no sibling.
    seen: Vector,
}

impl Register {
    /// Takes a change in, unless a merged change had seen it. Answers whether the change became a
    /// sibling.
    pub(super) fn insert(&mut self, stamp: Stamp, dot: Dot) -> bool {
        !self.seen.covers(&dot) && self.siblings.insert(stamp, dot).is_none()
    }

    /// Whether a merged change had seen this change to the register.
    pub(super) fn has_seen(&self, dot: &Dot) -> bool {
        self.seen.covers(dot)
    }

    /// Notes that a merged change had seen these changes. Answers with the siblings that it
    /// supersedes.
    pub(super) fn supersede(&mut self, seen: &[Dot]) -> Vec<Stamp> {
        for dot in seen {
            self.seen.raise(dot.writer, dot.seq);
        }
        let mut gone = Vec::new();
        self.siblings.retain(|stamp, sibling| {
            let superseded = self.seen.covers(sibling);
            if superseded {
                gone.push(*stamp);
            }
            !superseded
        });
        gone
    }

    pub(super) fn latest(&self) -> Option<Stamp> {
        self.siblings.last_key_value().map(|(stamp, _)| *stamp)
    }

    /// What a write says that it saw: for each writer, the latest change to this register.
    pub(super) fn dots(&self) -> Vec<Dot> {
        let mut seen = self.seen.clone();
        for dot in self.siblings.values() {
            seen.raise(dot.writer, dot.seq);
        }
        seen.iter().map(|(writer, seq)| Dot { writer: *writer, seq: *seq }).collect()
    }
}

/// A change that is kept, and how many registers need it. Invariant: `values` and `marks` together
/// count the registers in which the change is a sibling.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) change: SignedChange,
    /// In how many fields the change is a sibling that sets a value, which shows or is in a
    /// conflict.
    pub(super) values: usize,
    /// In how many registers it is a sibling that takes the field or the document away.
    pub(super) marks: usize,
    /// The fields whose values can be left out, because no register needs them.
    idle: BTreeSet<Field>,
    /// How many bytes the values of `idle` take.
    idle_bytes: usize,
}

impl Kept {
    /// A change that nothing holds yet.
    pub(super) fn new(change: SignedChange) -> Self {
        let idle = change.set.keys().filter(|field| change.weight(field) > 0);
        let idle: BTreeSet<Field> = idle.cloned().collect();
        let idle_bytes = idle.iter().map(|field| change.weight(field)).sum();
        Self { change, values: 0, marks: 0, idle, idle_bytes }
    }

    pub(super) fn role(&self) -> Role {
        match (self.values, self.marks) {
            (0, 0) => Role::History,
            (0, _) => Role::Marker,
            _ => Role::Live,
        }
    }

    /// How many bytes the change takes. Values that can be left out count as history, whatever the
    /// rest is.
    pub(super) fn sizes(&self) -> Sizes {
        let mut sizes = Sizes { history: self.idle_bytes, ..Sizes::default() };
        *sizes.of(self.role()) += self.change.bytes().len() - self.idle_bytes;
        sizes
    }

    /// Whether a register needs the change, but not all of its values.
    pub(super) fn can_be_abridged(&self) -> bool {
        self.role() != Role::History && !self.idle.is_empty()
    }

    /// Leaves out the values that can be left out.
    pub(super) fn abridge(&mut self) {
        self.change = self.change.without(&std::mem::take(&mut self.idle));
        self.idle_bytes = 0;
    }

    /// The change is a sibling of this field's register now; `None` means a register of removals.
    pub(super) fn hold(&mut self, field: Option<&Field>) {
        *self.count(field) += 1;
        if let Some(field) = field
            && self.idle.remove(field)
        {
            self.idle_bytes -= self.change.weight(field);
        }
    }

    /// The change is no sibling of that register any more.
    pub(super) fn let_go(&mut self, field: Option<&Field>) {
        let count = self.count(field);
        *count = count.saturating_sub(1);
        let weight = field.map_or(0, |field| self.change.weight(field));
        if let Some(field) = field
            && weight > 0
            && self.idle.insert(field.clone())
        {
            self.idle_bytes += weight;
        }
    }

    /// How many live bytes of the change would stop being live if these fields, in which it is a
    /// sibling, were written anew.
    pub(super) fn freed_without(&self, fields: &[&Field]) -> usize {
        let values = || fields.iter().filter(|field| self.change.set.contains_key(**field));
        match self.role() {
            Role::Live if self.values <= values().count() => self.sizes().live,
            Role::Live => values().map(|field| self.change.weight(field)).sum(),
            Role::Marker | Role::History => 0,
        }
    }

    /// The count for this field's register: `values` or `marks`. `None` means a register of
    /// removals.
    fn count(&mut self, field: Option<&Field>) -> &mut usize {
        match field.is_some_and(|field| self.change.set.contains_key(field)) {
            true => &mut self.values,
            false => &mut self.marks,
        }
    }
}
