//! A disk in memory, for unit tests and simulated agents.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::journal::{create, image};
use super::record::{self, Value};
use super::replay::Contents;
use peerage_proto::id::NodeId;

use super::{Disk, Image, Report, StoreError, Write};

/// What was committed, shared by all clones: a simulated agent that crashes drops its clone, and
/// the next one finds what had been committed, and no more.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    contents: Contents<Value>,
    commits: u64,
}

impl MemoryDisk {
    /// How many commits there were.
    pub fn commits(&self) -> u64 {
        self.held().commits
    }

    /// A separate disk with the present contents, to which another disk can be rolled back.
    pub fn snapshot(&self) -> Self {
        let held = self.held();
        let held = Held { contents: held.contents.clone(), commits: held.commits };
        Self { held: Arc::new(Mutex::new(held)) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the lock")
    }
}

impl Disk for MemoryDisk {
    fn load(&mut self) -> Result<Image, StoreError> {
        Ok(image(self.held().contents.clone()))
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let parts = writes.iter().map(record::parts).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Ok(());
        }
        let mut held = self.held();
        for (subject, value) in parts {
            held.contents.apply(subject, Some(value.into()));
        }
        held.commits += 1;
        Ok(())
    }

    fn check(&mut self) -> Result<Report, StoreError> {
        let held = self.held();
        let values = held.contents.changes.values().chain(held.contents.meta.values());
        let bytes = values.clone().map(|value| value.len() as u64).sum();
        Ok(Report { records: values.count() as u64, bytes, ..Report::default() })
    }

    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        let held = self.held();
        // No host of a simulation has a folder that could be mistaken for another's.
        create(path, &NodeId([0; 32]), held.commits, &held.contents, |value| Ok(value.clone()))
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let held = self.held();
        let values = held.contents.changes.values().chain(held.contents.meta.values());
        values.map(|value| value.len() as u64).sum()
    }
}
