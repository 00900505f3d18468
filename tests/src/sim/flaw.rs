//! Mistakes that a shell could make, made on purpose: a checker that catches none of them is worth
//! nothing.

/// One mistake in how the world treats its cores. Each breaks a promise; a test names which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Changes are pushed when they are written, not when they are stored.
    SpeaksBeforeCommit,
    /// Writes are acknowledged when they are made, not when they are stored.
    AcknowledgesBeforeCommit,
    /// A reader is shown a write before it is stored.
    ShowsBeforeCommit,
    /// The disk loses the last step of a commit now and then, and says nothing.
    DiskLies,
    /// A node goes on under the incarnation that it had before it was started again.
    ReusesIncarnation,
    /// A session that lost parts counts as one that ended well.
    AbsorbsCutSessions,
    /// A node is let in, also when it is known to be removed.
    AdmitsTheRemoved,
}
