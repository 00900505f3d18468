//! The bytes of changes, counted by what the changes are good for.

use std::fmt;

/// What a kept change is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A value that it sets shows, or is in a conflict.
    Live,
    /// It only says that a field or the document is gone.
    Marker,
    /// All of it is superseded.
    History,
}

/// The bytes of changes, as they were signed, by what they are good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of the changes with a value that shows, or is in a conflict.
    pub live: usize,
    /// Of the changes that only say that a field or a document is gone.
    pub markers: usize,
    /// Of the changes that are wholly superseded, and of the superseded values that can be left out
    /// of other changes.
    pub history: usize,
}

impl std::ops::AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.live += other.live;
        self.markers += other.markers;
        self.history += other.history;
    }
}

impl std::ops::SubAssign for Sizes {
    fn sub_assign(&mut self, other: Self) {
        self.live -= other.live;
        self.markers -= other.markers;
        self.history -= other.history;
    }
}

impl Sizes {
    /// All of them.
    pub fn total(&self) -> usize {
        self.live + self.markers + self.history
    }

    pub(super) fn of(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Live => &mut self.live,
            Role::Marker => &mut self.markers,
            Role::History => &mut self.history,
        }
    }
}

/// A size in its largest unit.
pub(super) struct Bytes(pub(super) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b if b < 1_000 => write!(f, "{b} B"),
            b if b < 1_000_000 => write!(f, "{:.1} kB", b as f64 / 1e3),
            b => write!(f, "{:.1} MB", b as f64 / 1e6),
        }
    }
}
