//! Views: what is read out of the replica's documents and follows them, such as who belongs.
//!
//! All views are published as one, as of one commit, so that nobody sees a member of one moment and
//! the rights of another.

use std::collections::BTreeSet;
use std::sync::Arc;

use peerage_proto::replica::{Path, Replica};
use peerage_proto::roster::Roster;

/// All views, as of one commit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Views {
    /// Who belongs, and the invitations.
    pub roster: Arc<Roster>,
}

impl Views {
    /// Reads all of them.
    pub fn of(replica: &Replica) -> Self {
        Self { roster: Arc::new(Roster::of(replica)) }
    }

    /// The views after the documents at these paths have changed. What did not change is shared.
    pub fn after<'p>(&self, replica: &Replica, changed: impl Iterator<Item = &'p Path>) -> Self {
        let records: BTreeSet<&Path> = changed.filter(|path| path.is_reserved()).collect();
        if records.is_empty() {
            return self.clone();
        }
        let roster = self.roster.after(replica, records);
        if roster == *self.roster { self.clone() } else { Self { roster: Arc::new(roster) } }
    }

    /// Whether nothing differs from those that these were made of.
    pub(super) fn are(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.roster, &before.roster)
    }
}
