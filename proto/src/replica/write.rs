//! Writing: this node checks the edits that a caller asks for against every bound, and signs them
//! as one commit.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::change::{Actor, Change, SignedChange, Stamp};
use super::commit::{COMMIT_BYTES_MAX, COMMIT_CHANGES_MAX, CommitRange};
use super::document::Document;
use super::full::Full;
use super::path::{Field, Path};
use super::vector::{Dot, Writer};
use super::{DOCUMENT_BYTES_MAX, FIELDS_MAX, Outputs, Replica};
use crate::codec;
use crate::time::{HybridClock, Now};

/// What someone asks to be written to one document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    /// Fields to set.
    pub set: BTreeMap<Field, Value>,
    /// Fields to take away.
    pub unset: BTreeSet<Field>,
    /// Whether to remove the whole document; then the other two are empty.
    pub remove: bool,
    /// Where set, the write is refused unless this is the document's tag ([`Document::tag`]).
    pub if_tag: Option<String>,
}

impl Edit {
    /// Whether it asks for nothing.
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && !self.remove
    }
}

/// What became of a write to one document.
#[derive(Debug)]
pub struct Written {
    /// The document.
    pub path: Path,
    /// The change; `None` where the document said all of it already.
    pub change: Option<SignedChange>,
    /// The stamp of the document's latest change after the write.
    pub stamp: Option<Stamp>,
    /// The document's tag after the write ([`Document::tag`]).
    pub tag: String,
}

/// Why a write was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// There is nothing of that name to take away.
    #[error("there is no document {0}")]
    NoDocument(Path),
    /// There is no such field to take away.
    #[error("the document {path} has no field {field}")]
    NoField {
        /// The document.
        path: Path,
        /// The field.
        field: Field,
    },
    /// Someone wrote since the caller looked, or a write came from elsewhere.
    #[error("{path} has changed: it is at {found}, not at {expected}")]
    Changed {
        /// The document.
        path: Path,
        /// The tag that the caller saw.
        expected: String,
        /// The document's tag; `nothing` where there is no document.
        found: String,
    },
    /// One commit is to write one document twice.
    #[error("{0} is to be written twice at once")]
    Twice(Path),
    /// Too large, too many or too deep.
    #[error("{of}: {what} would be {size}; {bound} is the most")]
    Bound {
        /// The document, or how many are written together.
        of: String,
        /// What is bounded.
        what: &'static str,
        /// What it would be.
        size: usize,
        /// What it may be.
        bound: usize,
    },
    /// The live changes leave no room for the write.
    #[error("{0}")]
    Full(Box<Full>),
}

impl Replica {
    /// Writes to one document as this node. `incarnation` is drawn at random by the caller and
    /// used if this is the process's first write.
    ///
    /// # Errors
    /// [`WriteError`], and nothing changed.
    pub fn write(
        &mut self,
        path: &Path,
        edit: Edit,
        actor: Actor,
        incarnation: u64,
        now: Now,
    ) -> Result<(Written, Outputs), WriteError> {
        let edits = vec![(path.clone(), edit)];
        let (mut written, outputs) = self.write_all(edits, actor, incarnation, now)?;
        Ok((written.pop().expect("one edit, one answer"), outputs))
    }

    /// Writes to several documents as this node, as one commit: all of it or nothing. Answers for
    /// each document, in the order of the edits. `incarnation` as for [`write`](Self::write).
    ///
    /// # Errors
    /// [`WriteError`], for the first bound or condition that fails; nothing changed.
    pub fn write_all(
        &mut self,
        edits: Vec<(Path, Edit)>,
        actor: Actor,
        incarnation: u64,
        now: Now,
    ) -> Result<(Vec<Written>, Outputs), WriteError> {
        let writer = self.writer.unwrap_or(Writer { node: self.key.node_id(), incarnation });
        let mut clock = self.clock.clone();
        let prepared = self.prepared(edits, &actor, writer, &mut clock, now)?;
        (self.clock, self.writer) = (clock, Some(writer));
        let mut outputs = Outputs::default();
        let mut written = Vec::with_capacity(prepared.len());
        for (path, change) in prepared {
            if let Some(change) = &change {
                let mut next = self.accept(change.clone(), false, now);
                next.send.push(change.clone());
                outputs.extend(next);
            }
            let document = self.documents.get(&path);
            let stamp = change.as_ref().map(|change| change.stamp());
            written.push(Written {
                stamp: stamp.or_else(|| document?.stamp()),
                tag: document.map(Document::tag).unwrap_or_default(),
                change,
                path,
            });
        }
        Ok((written, outputs))
    }

    /// What [`write_all`](Self::write_all) would do now: of each edit, whether it would change its
    /// document.
    ///
    /// # Errors
    /// Those of [`write_all`](Self::write_all).
    pub fn would_write(
        &self,
        edits: Vec<(Path, Edit)>,
        actor: &Actor,
        now: Now,
    ) -> Result<Vec<bool>, WriteError> {
        let writer = self.writer.unwrap_or(Writer { node: self.key.node_id(), incarnation: 0 });
        let prepared = self.prepared(edits, actor, writer, &mut self.clock.clone(), now)?;
        Ok(prepared.into_iter().map(|(_, change)| change.is_some()).collect())
    }

    /// The changes of one commit, signed and checked against every bound; none for an edit that its
    /// document says already.
    fn prepared(
        &self,
        edits: Vec<(Path, Edit)>,
        actor: &Actor,
        writer: Writer,
        clock: &mut HybridClock,
        now: Now,
    ) -> Result<Vec<(Path, Option<SignedChange>)>, WriteError> {
        let mut paths = BTreeSet::new();
        let mut said = Vec::with_capacity(edits.len());
        for (path, edit) in edits {
            if !paths.insert(path.clone()) {
                return Err(WriteError::Twice(path));
            }
            let edit = self.effective(&path, edit)?;
            said.push((path, edit));
        }
        let count = said.iter().filter(|(_, edit)| !edit.is_empty()).count();
        let together = || format!("what is written together ({count} documents)");
        bounded(together, "the number of changes", count, COMMIT_CHANGES_MAX)?;
        let first = self.vector.seen(&writer) + 1;
        let commit = CommitRange::of(first, count);
        let mut dots = (first..).map(|seq| Dot { writer, seq });
        let mut sign = |path: Path, edit: Edit| {
            let dot = if edit.is_empty() { None } else { dots.next() };
            let change = dot.map(|dot| self.signed(&path, edit, dot, commit, actor, clock, now));
            (path, change)
        };
        let prepared: Vec<_> = said.into_iter().map(|(path, edit)| sign(path, edit)).collect();
        let changes = || prepared.iter().filter_map(|(_, change)| change.as_ref());
        let size = changes().map(|change| change.bytes().len()).sum();
        bounded(together, "the size in bytes", size, COMMIT_BYTES_MAX)?;
        self.room_for(changes())?;
        Ok(prepared)
    }

    /// Signs an edit as a change of this node. Its stamp is later than all that the document keeps,
    /// also where such a change came from a clock far ahead, which the local clock does not follow.
    /// So history reads in order, and no two changes of a document share a stamp.
    #[expect(clippy::too_many_arguments, reason = "what a change is made of")]
    fn signed(
        &self,
        path: &Path,
        edit: Edit,
        dot: Dot,
        commit: Option<CommitRange>,
        actor: &Actor,
        clock: &mut HybridClock,
        now: Now,
    ) -> SignedChange {
        let empty = Document::default();
        let document = self.documents.get(path).unwrap_or(&empty);
        let at = clock.tick(now);
        let at = document.latest_stamp().map_or(at, |latest| at.max(latest.at.next()));
        let based_on = if edit.remove {
            document.seen(document.touched_fields())
        } else {
            document.seen(edit.set.keys().chain(&edit.unset))
        };
        let removals_seen = document.removals_seen();
        let met = edit.remove.then(|| document.removals_met());
        let takes_over = met.filter(|met| *met != removals_seen);
        let change = Change {
            datacenter: self.datacenter,
            dot,
            at,
            path: path.clone(),
            set: edit.set,
            apart: BTreeMap::new(),
            unset: edit.unset,
            remove: edit.remove,
            based_on,
            removals_seen,
            takes_over,
            commit,
            actor: actor.clone(),
        };
        SignedChange::sign(change, &self.key)
    }

    /// The part of an edit that the document does not say already, checked against the bounds of a
    /// document.
    fn effective(&self, path: &Path, mut edit: Edit) -> Result<Edit, WriteError> {
        let empty = Document::default();
        let document = self.documents.get(path).unwrap_or(&empty);
        if let Some(expected) = edit.if_tag.take() {
            let found = self.documents.get(path).map_or("nothing".to_owned(), Document::tag);
            if found != expected {
                return Err(WriteError::Changed { path: path.clone(), expected, found });
            }
        }
        if edit.remove && !document.exists() && document.conflicts().is_empty() {
            return Err(WriteError::NoDocument(path.clone()));
        }
        if let Some(field) = edit.unset.iter().find(|f| document.says_already(f, None)) {
            return Err(match document.exists() {
                true => WriteError::NoField { path: path.clone(), field: field.clone() },
                false => WriteError::NoDocument(path.clone()),
            });
        }
        edit.set.retain(|field, value| !document.says_already(field, Some(value)));
        let depth = edit.set.values().map(codec::json_depth).max().unwrap_or(0);
        let of = || path.to_string();
        bounded(of, "the nesting of a value", depth, codec::JSON_DEPTH_MAX)?;
        let shown = document.fields().filter(|(field, _, _)| !edit.set.contains_key(*field));
        let fields = shown.count() + edit.set.len();
        bounded(of, "the number of its fields", fields, FIELDS_MAX)?;
        let size = document.size_with(&edit.set, &edit.unset);
        bounded(of, "its size in bytes", size, DOCUMENT_BYTES_MAX)?;
        Ok(edit)
    }
}

fn bounded(
    of: impl FnOnce() -> String,
    what: &'static str,
    size: usize,
    bound: usize,
) -> Result<(), WriteError> {
    if size > bound { Err(WriteError::Bound { of: of(), what, size, bound }) } else { Ok(()) }
}
