//! States that need a person: a full disk, a clock that is off, a host that reaches nobody.
//!
//! Each kind of state stands or does not stand. [`Board`] is the rule for all of them: it tells
//! once that a state begins, counts what fails again and again and tells the count at growing
//! intervals, and tells that the state ends. The agent's module `notices` acts on what the board
//! says. The other nodes are told of the states in this node's vitals.

mod board;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use board::{Board, Notice, Said, State};

/// How many states a node tells the others at most. It tells the gravest ones.
pub const TOLD_MAX: usize = 8;

/// How much of each message the others are told, in bytes.
pub const TOLD_MESSAGE_MAX: usize = 320;

/// The kinds of states, the gravest first. The words are part of the wire and of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeKind {
    /// Another host has this node's key.
    Copy,
    /// This node's membership ended.
    Ended,
    /// This node reaches nobody, or hardly anybody: its own network is the likely cause.
    Peers,
    /// The journal was, or is, damaged.
    Journal,
    /// Writing to the disk fails.
    Disk,
    /// The values of the settings that are in force have reached the limit of their size.
    Store,
    /// Nothing large gets through from this node to a member that answers.
    Bulk,
    /// The agent's file descriptors are used up.
    Descriptors,
    /// This node's clock is off.
    Clock,
    /// Members do not accept this node as a member, or two groups removed each other.
    Contested,
    /// This node, or another member, was admitted beyond the number of uses of an invitation.
    Invitation,
    /// This node's name belongs to another node.
    Name,
    /// This node cannot join with the Join Information that it was configured with.
    Joins,
    /// Some members do not exchange vitals with this node, since there are too many.
    Vitals,
}

impl NoticeKind {
    /// All kinds, the gravest first.
    pub const ALL: [Self; 14] = [
        Self::Copy,
        Self::Ended,
        Self::Peers,
        Self::Journal,
        Self::Disk,
        Self::Store,
        Self::Bulk,
        Self::Descriptors,
        Self::Clock,
        Self::Contested,
        Self::Invitation,
        Self::Name,
        Self::Joins,
        Self::Vitals,
    ];

    /// The word for programs: the kind of the events, and of the notices in `status`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Ended => "ended",
            Self::Peers => "peers",
            Self::Journal => "journal",
            Self::Disk => "disk",
            Self::Store => "store",
            Self::Bulk => "bulk",
            Self::Descriptors => "descriptors",
            Self::Clock => "clock",
            Self::Contested => "contested",
            Self::Invitation => "invitation",
            Self::Name => "name",
            Self::Joins => "joins",
            Self::Vitals => "vitals",
        }
    }

    /// The message that says that the state is over.
    pub const fn over(self) -> &'static str {
        match self {
            Self::Copy => "no other host has this node's key any more",
            Self::Ended => "this node belongs to a Data Center again",
            Self::Peers => "this node reaches the others again",
            Self::Journal => "the journal is sound again",
            Self::Disk => "the disk takes what is written again",
            Self::Store => "the settings have room again",
            Self::Bulk => "what is large arrives at all members that answer again",
            Self::Descriptors => "the agent has file descriptors to spare again",
            Self::Clock => "this node's clock agrees with the others' again",
            Self::Contested => "no member objects to this node's membership any more",
            Self::Invitation => "nobody is in beyond the uses of an invitation any more",
            Self::Name => "nothing is wrong with this node's name any more",
            Self::Joins => "nothing keeps this node from joining any more",
            Self::Vitals => "all members exchange vitals with this node again",
        }
    }

    /// Whether the log shows the state as an error and not as a warning, since data or the node
    /// itself is at stake.
    pub const fn is_grave(self) -> bool {
        matches!(self, Self::Copy | Self::Journal | Self::Disk)
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A state of a node, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The word of the state's kind, which may be a word of a newer version.
    pub kind: String,
    /// The message, in the node's own words.
    pub message: String,
}

impl Told {
    /// A state with its message, cut to what the others are told.
    pub fn new(kind: NoticeKind, message: &str) -> Self {
        Self { kind: kind.word().to_owned(), message: cut(message).to_owned() }
    }

    /// The text as which several states travel. Where it would be longer than `len_max`, the last
    /// states are left out.
    pub fn write(told: &[Self], len_max: usize) -> Option<String> {
        let mut told = &told[..told.len().min(TOLD_MAX)];
        while !told.is_empty() {
            let text = serde_json::to_string(told).expect("texts can be written");
            if text.len() <= len_max {
                return Some(text);
            }
            told = &told[..told.len() - 1];
        }
        None
    }

    /// Reads what [`Told::write`] wrote. The text may be anything: a text that cannot be read gives
    /// no states, and characters that could move a terminal's cursor are left out.
    pub fn read(text: &str) -> Vec<Self> {
        let told: Vec<Self> = serde_json::from_str(text).unwrap_or_default();
        let plain = |text: &str| cut(text).chars().filter(|c| !c.is_control()).collect();
        let told = told.iter().take(TOLD_MAX);
        told.map(|t| Self { kind: plain(&t.kind), message: plain(&t.message) }).collect()
    }
}

fn cut(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(|end| *end <= TOLD_MESSAGE_MAX).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_has_a_word_of_its_own_and_the_gravest_come_first() {
        let words: BTreeSet<_> = NoticeKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), NoticeKind::ALL.len());
        assert!(NoticeKind::ALL.is_sorted());
    }

    #[test]
    fn what_a_node_tells_reads_back_and_is_never_too_long() {
        let told = |n: usize| Told::new(NoticeKind::Disk, &"\"".repeat(n));
        assert_eq!(Told::read(&Told::write(&[told(3)], 100).unwrap()), [told(3)]);
        let many = vec![told(1000); 20];
        let text = Told::write(&many, 2000).unwrap();
        assert!(text.len() <= 2000);
        assert_eq!(Told::read(&text).len(), 2, "two of 640 bytes and their names fit");
        assert_eq!((Told::write(&[], 100), Told::write(&many, 10)), (None, None));
    }

    #[test]
    fn a_message_is_cut_between_characters_and_moves_no_cursor() {
        let long = "ü".repeat(TOLD_MESSAGE_MAX);
        assert_eq!(Told::new(NoticeKind::Clock, &long).message.len(), TOLD_MESSAGE_MAX);
        let sly = r#"[{"kind":"disk","message":"a\u001b[2Jb\n"}]"#;
        assert_eq!(Told::read(sly)[0].message, "a[2Jb");
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_no_harm(text in ".*") {
            let _ = Told::read(&text);
        }
    }
}
