//! What a disk holds: the state that its records add up to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use peerage_proto::replica::{Dot, Writer};

/// Everything that was committed and can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The changes, as they were signed, in the order of their dots.
    pub changes: Vec<Arc<[u8]>>,
    /// How far each writer was seen. It covers no change that was lost to damage, so that what
    /// is missing comes back from the other nodes.
    pub seen: Vec<(Writer, u64)>,
    /// What is kept under names.
    pub meta: BTreeMap<String, Vec<u8>>,
    /// What could not be read.
    pub damage: Damage,
}

/// What was committed once and cannot be read any more. None of it is in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Changes that no longer match their checksum, in the order of their dots.
    pub changes: Vec<Dot>,
    /// Names whose value no longer matches its checksum.
    pub meta: Vec<String>,
    /// How many stretches are so damaged that not even the names of their records can be read. With
    /// one such stretch anything can be missing, so `seen` is then empty.
    pub unnamed: usize,
    /// Whether the beginning of the file, which names its node, cannot be read. The rest may be
    /// sound.
    pub header: bool,
}

impl Damage {
    /// Whether everything could be read.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Damage {
    /// Lists the damage by name, as far as the names can be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.header {
            parts.push("its beginning, which says whose it is".to_owned());
        }
        if !self.meta.is_empty() {
            parts.push(format!("what was kept as {}", self.meta.join(", ")));
        }
        if let [first, rest @ ..] = &self.changes[..] {
            let Dot { writer, seq } = first;
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            parts.push(format!("the change {} {seq}{more}", writer.node.short()));
        }
        if self.unnamed > 0 {
            let stretches = if self.unnamed == 1 { "stretch" } else { "stretches" };
            let unnamed = self.unnamed;
            parts.push(format!("{unnamed} {stretches} of which not even the names can be read"));
        }
        f.write_str(&parts.join("; "))
    }
}

/// What a self-check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many records were read, superseded ones included.
    pub records: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// What does not match its checksum.
    pub damage: Damage,
}
