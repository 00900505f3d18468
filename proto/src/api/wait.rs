//! How many nodes a write waits for, and how many it reached.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// On how many nodes a write must be before it returns. This node always counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// On this node's disk only.
    #[default]
    Local,
    /// On more than half of the members that are not removed.
    Majority,
    /// On all members that are not removed.
    All,
    /// On this many nodes.
    Nodes(u32),
}

impl Wait {
    /// On how many of `of` nodes the write must be; never fewer than one. A caller may ask for more
    /// nodes than there are, and the wait is then not met.
    pub fn needed(self, of: u32) -> u32 {
        match self {
            Self::Local => 1,
            Self::Majority => of / 2 + 1,
            Self::All => of.max(1),
            Self::Nodes(n) => n.max(1),
        }
    }
}

/// The text is neither a word nor a number of nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("local, majority, all or a number of nodes was expected, not {0:?}")]
pub struct WaitError(String);

impl FromStr for Wait {
    type Err = WaitError;

    fn from_str(text: &str) -> Result<Self, WaitError> {
        match text {
            "local" => Ok(Self::Local),
            "majority" => Ok(Self::Majority),
            "all" => Ok(Self::All),
            number => match number.parse() {
                Ok(n) if n > 0 => Ok(Self::Nodes(n)),
                _ => Err(WaitError(text.chars().take(40).collect())),
            },
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Majority => f.write_str("majority"),
            Self::All => f.write_str("all"),
            Self::Nodes(n) => write!(f, "{n}"),
        }
    }
}

impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Wait;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"local\", \"majority\", \"all\" or a number of nodes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Wait, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, nodes: u64) -> Result<Wait, E> {
                nodes.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Word)
    }
}

/// How many nodes a write reached while its caller waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitOutcome {
    /// What was asked for.
    pub wanted: Wait,
    /// On how many nodes the write is known to be, this one included.
    pub reached: u32,
    /// How many members there are that are not removed, this one included.
    pub of: u32,
    /// Whether `reached` is as many as were asked for.
    pub met: bool,
    /// The names of the members that have not confirmed it yet.
    pub missing: Vec<String>,
    /// Why they have not, as far as this node knows, each with the member's name and what the
    /// operator can do.
    #[serde(default)]
    pub reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let needed = |of| Wait::Majority.needed(of);
        assert_eq!([1, 2, 3, 4, 5].map(needed), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn every_write_is_on_one_node_at_least() {
        for wait in [Wait::Local, Wait::Majority, Wait::All, Wait::Nodes(1)] {
            assert_eq!(wait.needed(0).max(1), wait.needed(0), "{wait}");
        }
    }

    #[test]
    fn a_wait_reads_back_from_its_text() {
        for wait in [Wait::Local, Wait::Majority, Wait::All, Wait::Nodes(7)] {
            assert_eq!(wait.to_string().parse(), Ok(wait));
        }
        for text in ["", "0", "-1", "some", "ALL"] {
            assert!(text.parse::<Wait>().is_err(), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Wait>("3").unwrap(), Wait::Nodes(3));
    }
}
