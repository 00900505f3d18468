//! The documents as a handful of sentences define them, worked out the slow way: by looking, for
//! each change, at every other one.
//!
//! A change to a field *stands* if no other change of that field, and no removal of the document,
//! was made with knowledge of it. The field shows the latest change that stands, unless a removal
//! is later still. Every other change that stands is a conflict, if it says something else.
//! Knowledge passes on: a writer that knew a change of the field knew what that change's writer had
//! known, also where the change in between is lost.

use std::collections::{BTreeMap, BTreeSet};

use peerage_proto::replica::{self, Document, Dot, Field, Path, Stamp};
use serde_json::Value;

use super::ledger::{Entry, Ledger};

/// One side of a conflict: when, by whom, and which value (none: taken away).
type Side = (Stamp, Option<Value>);

/// What people see of one document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// The fields that show, with the stamp of the change that says each.
    pub fields: BTreeMap<Field, (Stamp, Value)>,
    /// The conflicts: what won, and what lost, latest first.
    pub conflicts: BTreeMap<Field, (Side, Vec<Side>)>,
}

impl Shown {
    /// What a replica shows.
    pub fn of(document: &Document) -> Self {
        let fields = document.fields().map(|(f, v, c)| (f.clone(), (c.stamp(), v.clone())));
        let conflicts = document.conflicts().into_iter().map(|conflict| {
            let side = |side: &replica::Side| (side.change.stamp(), side.value.clone());
            let losers = conflict.losers.iter().map(side).collect();
            (conflict.field, (side(&conflict.winner), losers))
        });
        Self { fields: fields.collect(), conflicts: conflicts.collect() }
    }

    /// What the known changes of a document say by the sentences above.
    pub fn by_definition(ledger: &Ledger, known: &BTreeSet<Dot>, path: &Path) -> Self {
        let written = ledger.entries().filter(|(_, entry)| entry.change.path == *path);
        let written: BTreeMap<Dot, &Entry> = written.map(|(dot, entry)| (*dot, entry)).collect();
        let changes = written.iter().filter(|(dot, _)| known.contains(dot));
        let changes: Vec<&Entry> = changes.map(|(_, entry)| *entry).collect();
        let fields: BTreeSet<&Field> =
            changes.iter().flat_map(|e| e.change.set.keys().chain(&e.change.unset)).collect();
        let mut shown = Self::default();
        for field in fields {
            if path.is_reserved() && ["removed", "revoked"].contains(&field.as_str()) {
                let said = changes.iter().filter(|e| e.change.set.contains_key(field));
                if let Some(first) = said.min_by_key(|e| e.change.stamp()) {
                    let value = first.change.set[field].clone();
                    shown.fields.insert(field.clone(), (first.change.stamp(), value));
                }
            } else {
                shown.settle(field, &changes, &written);
            }
        }
        shown
    }

    fn settle(&mut self, field: &Field, changes: &[&Entry], written: &BTreeMap<Dot, &Entry>) {
        let touches =
            |e: &Entry| e.change.set.contains_key(field) || e.change.unset.contains(field);
        let of_field = |e: &Entry| touches(e) || e.change.remove;
        let knows_of_field = |o: &Entry, dot| of_field(o) && knew(o, dot, written, &of_field);
        let side = |e: &Entry| (e.change.stamp(), e.change.set.get(field).cloned());
        let removal = |e: &Entry| (e.change.stamp(), None);

        let standing = changes
            .iter()
            .filter(|e| touches(e))
            .filter(|e| !changes.iter().any(|o| knows_of_field(o, &e.change.dot)));
        let mut standing: Vec<Side> = standing.map(|e| side(e)).collect();
        standing.sort_by_key(|(stamp, _)| std::cmp::Reverse(*stamp));
        let Some(latest) = standing.first().cloned() else { return };

        let removals = changes.iter().filter(|e| e.change.remove);
        let last_removal = removals.clone().map(|e| removal(e)).max_by_key(|(stamp, _)| *stamp);
        let unheeded = removals
            .filter(|r| !changes.iter().any(|o| knew(o, &r.change.dot, written, &|_| true)))
            .map(|e| removal(e));

        let (winner, losers) = match last_removal {
            Some(last) if last.0 > latest.0 => (last, standing),
            _ => {
                let mut unheeded: Vec<Side> = unheeded.collect();
                unheeded.sort_by_key(|(stamp, _)| std::cmp::Reverse(*stamp));
                (latest, standing.into_iter().skip(1).chain(unheeded).collect())
            }
        };
        if let (stamp, Some(value)) = &winner {
            self.fields.insert(field.clone(), (*stamp, value.clone()));
        }
        let losers: Vec<Side> = losers.into_iter().filter(|l| l.1 != winner.1).collect();
        if !losers.is_empty() {
            self.conflicts.insert(field.clone(), (winner, losers));
        }
    }
}

/// Whether a change was made with knowledge of another, directly or by way of changes in between
/// that `passes` accepts.
fn knew(
    change: &Entry,
    dot: &Dot,
    written: &BTreeMap<Dot, &Entry>,
    passes: &impl Fn(&Entry) -> bool,
) -> bool {
    let (mut asked, mut reached) = (vec![change], BTreeSet::new());
    while let Some(next) = asked.pop() {
        if next.knew.contains(dot) {
            return true;
        }
        let between = next.knew.iter().filter(|between| reached.insert(**between));
        asked.extend(between.filter_map(|between| written.get(between)).filter(|e| passes(e)));
    }
    false
}
