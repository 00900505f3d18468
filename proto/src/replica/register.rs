//! What speaks for one field of a document, and what a change is held by.

use std::collections::BTreeMap;

use super::change::{SignedChange, Stamp};
use super::path::Field;
use super::room::Role;
use super::vector::{Dot, Vector};

/// The writes to one field (or the removals of the document) that nothing known supersedes.
#[derive(Debug, Clone, Default)]
pub(super) struct Register {
    pub(super) siblings: BTreeMap<Stamp, Dot>,
    /// Up to which of each writer's changes any change merged had seen this register. A writer sees
    /// what it wrote before, so one number names them all. Invariant: covers no sibling.
    seen: Vector,
}

impl Register {
    /// Takes a change in, unless one that was merged had seen it. Answers whether it is a sibling
    /// now that was none before.
    pub(super) fn insert(&mut self, stamp: Stamp, dot: Dot) -> bool {
        !self.seen.covers(&dot) && self.siblings.insert(stamp, dot).is_none()
    }

    /// Answers with the siblings that are none any more.
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

/// A change that is kept, and how often something holds it. Invariant: the counts are those of the
/// registers in which it is a sibling.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) change: SignedChange,
    /// In how many fields the value that it sets shows, or is in a conflict.
    pub(super) values: usize,
    /// In how many registers it says that something is gone.
    pub(super) marks: usize,
}

impl Kept {
    pub(super) fn role(&self) -> Role {
        match (self.values, self.marks) {
            (0, 0) => Role::History,
            (0, _) => Role::Marker,
            _ => Role::Live,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.change.bytes().len()
    }

    /// The count that a sibling of this field's register adds to; `None` is one of removals.
    pub(super) fn count(&mut self, field: Option<&Field>) -> &mut usize {
        match field.is_some_and(|field| self.change.set.contains_key(field)) {
            true => &mut self.values,
            false => &mut self.marks,
        }
    }
}
