//! The disk of a simulated host: what was committed outlives every crash, and it can refuse, and be
//! rolled back.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use peerage::store::{Disk, Failure, Image, MemoryDisk, Report, StoreError, Write};

use crate::flaw::Flaw;

/// A lying disk loses one of so many commits.
const LIES_ONCE_IN: u64 = 7;

/// A disk. Clones share it, as the agents of one host do, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk {
    /// Exchanged for another where the host is restored from a snapshot.
    memory: Arc<Mutex<MemoryDisk>>,
    /// Whether the next commit is refused.
    refuses: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    /// With [`Flaw::AcknowledgesBeforeCommit`], the writes that were acknowledged and are not kept
    /// yet.
    owed: Arc<Mutex<Vec<Write>>>,
    flaw: Option<Flaw>,
}

impl SimulatedDisk {
    pub(crate) fn new(flaw: Option<Flaw>) -> Self {
        Self {
            memory: Arc::default(),
            refuses: Arc::default(),
            commits: Arc::default(),
            owed: Arc::default(),
            flaw,
        }
    }

    /// Lets the next commit fail as if there were no space.
    pub(crate) fn refuse_once(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// How many commits there were since the beginning, roll-backs or not.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// A copy as it is now.
    pub(crate) fn snapshot(&self) -> MemoryDisk {
        self.memory().snapshot()
    }

    /// Goes back to a copy.
    pub(crate) fn roll_back(&self, to: &MemoryDisk) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = to.snapshot();
    }

    /// Loses what was not written yet, as a crash does.
    pub(crate) fn crash(&self) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What it holds.
    pub(crate) fn image(&self) -> Image {
        self.memory().load().expect("memory can be read")
    }

    fn memory(&self) -> MemoryDisk {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Disk for SimulatedDisk {
    fn load(&mut self) -> Result<Image, StoreError> {
        self.memory().load()
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if self.refuses.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Failed {
                attempt: "write",
                path: "journal".into(),
                failure: Failure::Full,
                cause: "no space, in this simulation".into(),
            });
        }
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        match self.flaw {
            Some(Flaw::DiskLies) if number % LIES_ONCE_IN == LIES_ONCE_IN - 1 => Ok(()),
            Some(Flaw::AcknowledgesBeforeCommit) => {
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                let before = std::mem::replace(&mut *owed, writes.to_vec());
                self.memory().commit(&before)
            }
            _ => self.memory().commit(writes),
        }
    }

    fn check(&mut self) -> Result<Report, StoreError> {
        self.memory().check()
    }

    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        self.memory().copy_to(path)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.memory().tidy()
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.memory().compact()
    }

    fn size_bytes(&self) -> u64 {
        self.memory().size_bytes()
    }
}
