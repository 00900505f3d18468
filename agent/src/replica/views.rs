//! Views: values that are read out of the replica's documents and follow them, such as the roster.
//!
//! All views are published together, as of one commit, so that no reader sees the members of one
//! moment and the rights of another.

use std::collections::BTreeSet;
use std::sync::Arc;

use peerage_proto::replica::{Path, Replica};
use peerage_proto::roster::Roster;

/// A value that is read out of documents.
pub trait View: PartialEq + Sized {
    /// Whether the view reads the document at this path.
    fn reads(path: &Path) -> bool;

    /// Reads the view out of the replica.
    fn of(replica: &Replica) -> Self;

    /// The view after the documents at these paths have changed. The view [`reads`](Self::reads)
    /// each of them.
    fn after(&self, replica: &Replica, changed: &BTreeSet<&Path>) -> Self;
}

impl View for Roster {
    fn reads(path: &Path) -> bool {
        path.is_reserved()
    }

    fn of(replica: &Replica) -> Self {
        Self::of(replica)
    }

    fn after(&self, replica: &Replica, changed: &BTreeSet<&Path>) -> Self {
        self.after(replica, changed.iter().copied())
    }
}

/// All views, as of one commit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Views {
    /// The members, and the invitations.
    pub roster: Arc<Roster>,
}

impl Views {
    /// Reads all views.
    pub fn of(replica: &Replica) -> Self {
        Self { roster: Arc::new(View::of(replica)) }
    }

    /// The views after the documents at these paths have changed. What did not change is shared.
    pub fn after<'p>(
        &self,
        replica: &Replica,
        changed: impl Iterator<Item = &'p Path> + Clone,
    ) -> Self {
        Self { roster: after(&self.roster, replica, changed) }
    }

    /// Whether nothing differs from the views `before`, of which these were made.
    pub(super) fn are(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.roster, &before.roster)
    }
}

fn after<'p, V: View>(
    view: &Arc<V>,
    replica: &Replica,
    changed: impl Iterator<Item = &'p Path>,
) -> Arc<V> {
    let changed: BTreeSet<&Path> = changed.filter(|path| V::reads(path)).collect();
    if changed.is_empty() {
        return view.clone();
    }
    let next = view.after(replica, &changed);
    if **view == next { view.clone() } else { Arc::new(next) }
}
