//! Views: what is read out of the replica's documents and follows them, such as who belongs.
//!
//! All views are published as one, as of one commit, so that nobody sees a member of one moment and
//! the rights of another.

use std::collections::BTreeSet;
use std::sync::Arc;

use peerage_proto::replica::{Path, Replica};
use peerage_proto::roster::Roster;

/// What is read out of documents.
pub trait View: PartialEq + Sized {
    /// Whether the document at a path is part of it.
    fn reads(path: &Path) -> bool;

    /// Reads it.
    fn of(replica: &Replica) -> Self;

    /// Reads it again where the documents at these paths have changed, each of which it
    /// [`reads`](Self::reads).
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
    /// Who belongs, and the invitations.
    pub roster: Arc<Roster>,
}

impl Views {
    /// Reads all of them.
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

    /// Whether nothing differs from those that these were made of.
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
