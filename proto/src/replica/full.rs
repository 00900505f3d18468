//! Why a write finds no room, in words that say what to remove.

use std::fmt;

use super::path::Path;
use super::sizes::Bytes;

/// Why there is no room for a write, and which documents take the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// The document that was to be written.
    pub path: Path,
    /// How many live bytes the write would add.
    pub more: usize,
    /// How many bytes live now.
    pub live: usize,
    /// How many bytes may live.
    pub limit: usize,
    /// How many bytes history takes, which is forgotten by itself when room is needed.
    pub history: usize,
    /// The documents that take most, largest first.
    pub largest: Vec<Holder>,
}

/// Documents that take room: all whose paths have the first part in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The first part of their paths.
    pub prefix: String,
    /// How many there are.
    pub documents: usize,
    /// How many bytes live in them.
    pub live: usize,
    /// The largest document.
    pub largest: Path,
    /// How many bytes live in the largest document.
    pub largest_live: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, more, live, limit, history, largest } = self;
        let what =
            if path.is_reserved() { "the Data Center's own records" } else { "the settings" };
        let (live, limit, more) = (Bytes(*live), Bytes(*limit), Bytes(*more));
        write!(f, "{what} are full: {live} of {limit} live, and this would be {more} more")?;
        for (index, holder) in largest.iter().enumerate() {
            f.write_str(if index == 0 { ". Most of it: " } else { "; " })?;
            write!(f, "{holder}")?;
        }
        match history {
            0 => Ok(()),
            history => write!(f, ". History takes {}, and yields by itself", Bytes(*history)),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, documents, live, largest, largest_live } = self;
        let (live, largest_live) = (Bytes(*live), Bytes(*largest_live));
        match documents {
            1 => write!(f, "{largest} {live}"),
            _ => write!(
                f,
                "{prefix} {live} in {documents} documents, of which {largest} {largest_live}"
            ),
        }
    }
}
