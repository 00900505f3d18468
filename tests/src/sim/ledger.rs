//! What every writer really wrote, and what it really knew when it did.
//!
//! The ledger sees all hosts at once, so it needs neither vectors nor `based_on` to tell which
//! change was made with knowledge of which: it is the truth that the replicas are held against.

use std::collections::{BTreeMap, BTreeSet};

use peerage_proto::replica::{Dot, Path, Replica, SignedChange};

use super::network::HostId;

/// One change, as it was written.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The change.
    pub change: SignedChange,
    /// The host that wrote it.
    pub writer: HostId,
    /// The changes of the same document that the writer knew.
    pub knew: BTreeSet<Dot>,
    /// Whether its write returned.
    pub acknowledged: bool,
}

/// All changes of a world.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: BTreeMap<Dot, Entry>,
}

impl Ledger {
    /// The changes of a document that a replica knows now: to be asked just before it writes.
    pub fn known_to(&self, replica: &Replica, path: &Path) -> BTreeSet<Dot> {
        let of_path = self.entries.iter().filter(|(_, entry)| entry.change.path == *path);
        of_path.map(|(dot, _)| *dot).filter(|dot| knows(replica, dot)).collect()
    }

    /// Enters a change. Answers with the other change that its writer gave the same number, if it
    /// did.
    pub fn enter(
        &mut self,
        change: SignedChange,
        writer: HostId,
        knew: BTreeSet<Dot>,
    ) -> Option<SignedChange> {
        let entry = Entry { change, writer, knew, acknowledged: false };
        let earlier = self.entries.insert(entry.change.dot, entry);
        earlier.map(|entry| entry.change)
    }

    /// Notes that the write of a change returned.
    pub fn acknowledge(&mut self, dot: &Dot) {
        if let Some(entry) = self.entries.get_mut(dot) {
            entry.acknowledged = true;
        }
    }

    /// All changes, in the order of their writers.
    pub fn entries(&self) -> impl Iterator<Item = (&Dot, &Entry)> {
        self.entries.iter()
    }
}

/// Whether a replica has merged a change, kept or superseded.
pub fn knows(replica: &Replica, dot: &Dot) -> bool {
    replica.vector().covers(dot) || replica.change(dot).is_some()
}
