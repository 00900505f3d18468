//! Mistakes made on purpose: a checker that catches none of them is worth nothing.

/// One mistake. Each breaks a promise; a test names which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The disk says that a commit is kept, and writes it with the next one: a crash loses it.
    AcknowledgesBeforeCommit,
    /// The disk loses a commit now and then, and says nothing.
    DiskLies,
    /// A cut in the network is never joined.
    NeverHeals,
    /// Someone goes on writing when all are said to be at rest.
    Chatters,
}

impl Flaw {
    pub(crate) const ALL: [Self; 4] =
        [Self::AcknowledgesBeforeCommit, Self::DiskLies, Self::NeverHeals, Self::Chatters];

    /// The flaw of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flaw| format!("{flaw:?}") == name)
    }
}
