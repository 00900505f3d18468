//! The promises that are checked, and how a broken one is told.

use std::fmt;

/// What peerage promises (the first five to its users).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// With two members, any node can be destroyed and nothing is lost but that node.
    Equality,
    /// A write that returned is on its node's disk, and reaches every node that it can.
    AcknowledgedMeansKept,
    /// A node alone reads and writes; after a heal all nodes show the same, and no write was lost
    /// silently.
    AlwaysWritable,
    /// A removed node is refused by every node that knows, and nothing brings it back.
    RemovedStaysRemoved,
    /// No two members show one name; the member with the earlier claim keeps it.
    NamesAreUnique,
    /// Nothing is told to anyone before it is on disk.
    CommitBeforeSpeech,
    /// No two changes have one number, whatever became of the disk of their writer.
    OneNumberOneChange,
    /// A node that was not invited is in no roster, and an invitation called back lets nobody in.
    NobodyElse,
    /// An agent at rest writes nothing to disk.
    Quiet,
    /// A caller that asks an agent gets an answer in time.
    NobodyWaits,
}

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// What was found instead.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken: {}", self.promise, self.found)
    }
}

/// Answers with the broken promise unless the condition holds.
pub fn hold(promise: Promise, holds: bool, found: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { promise, found: found() }) }
}
