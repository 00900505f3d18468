//! Vitals: what a node tells the others about its present state, such as its version, its load and
//! the digest of its replica. Nobody decides them, so they are no settings.
//!
//! Vitals travel as facts: short texts under ASCII names. Only the node that a fact is about writes
//! and replaces it. An agent skips a fact that its version does not know or cannot read, so that
//! different versions live together. A vital is always shown with its age and with the state of its
//! node, so that a stale value never looks live.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::notice::Told;

/// The longest fact, in bytes. A fact of 64 KB would keep all later facts of its node from
/// spreading.
pub const FACT_LEN_MAX: usize = 4_000;

/// How many facts of a node are read. More are a peer's mistake.
pub const FACTS_MAX: usize = 64;

/// The longest name of a node or version that is read, in bytes.
const NAME_LEN_MAX: usize = 255;

/// The longest digest of a replica, in bytes.
const DIGEST_LEN_MAX: usize = 64;

/// How many addresses of a node are read.
const ADDRESSES_MAX: usize = 16;

/// How many [`objectors`](Vitals::objectors) a node names at most.
pub const OBJECTORS_MAX: usize = 4;

/// Loads are rounded to a tenth and memory to 16 MiB, so that an idle node has nothing new to send.
const LOAD_STEP: f64 = 0.1;
const MEMORY_STEP_BYTES: u64 = 16 << 20;

/// Clock offsets are rounded to a tenth of a second, for the same reason.
const CLOCK_STEP_MS: i64 = 100;

/// The names of the facts. They are part of the wire: never reuse one for something else.
mod name {
    pub(super) const VERSION: &str = "version";
    pub(super) const NAME: &str = "name";
    pub(super) const BOOT: &str = "boot";
    pub(super) const STARTED: &str = "started_ms";
    pub(super) const LOAD: &str = "load1";
    pub(super) const CPUS: &str = "cpus";
    pub(super) const MEMORY: &str = "mem_total";
    pub(super) const MEMORY_USED: &str = "mem_used";
    pub(super) const DIGEST: &str = "digest";
    pub(super) const ADDRESSES: &str = "addresses";
    pub(super) const CLOCK: &str = "clock_ahead_ms";
    pub(super) const NOTICES: &str = "notices";
    pub(super) const OBJECTORS: &str = "objectors";
}

/// What a node says of itself. What it did not say, or said in a way that this version cannot
/// read, is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    /// The version of its agent.
    pub version: Option<String>,
    /// The name that it believes to have.
    pub name: Option<String>,
    /// Its boot number.
    pub boot: Option<u64>,
    /// When its agent started, by its own clock, in milliseconds since 1970. It stays the same,
    /// while an uptime would be news every second.
    pub started_ms: Option<u64>,
    /// The run queue's average over a minute, in steps of a tenth.
    pub load1: Option<f64>,
    /// How many processors it has.
    pub cpus: Option<u32>,
    /// Its memory, in bytes.
    pub mem_total_bytes: Option<u64>,
    /// How much of it is in use and could not be given back at once, in steps of 16 MiB.
    pub mem_used_bytes: Option<u64>,
    /// The digest of its replica. A node whose digest differs has something to read, or to send.
    pub digest: Option<Vec<u8>>,
    /// The addresses at which it believes to listen, each `ADDRESS:PORT`.
    pub addresses: Vec<String>,
    /// How far its clock is ahead of its peers' median, in steps of a tenth of a second.
    pub clock_ahead_ms: Option<i64>,
    /// The states of the node that need a person, the gravest first.
    pub notices: Vec<Told>,
    /// Nodes that were removed but go on, and that take this node for removed; at most
    /// [`OBJECTORS_MAX`]. The other members on this node's side can ask them whether they are taken
    /// for removed, too.
    pub objectors: Vec<NodeId>,
}

impl Vitals {
    /// For how long its agent has been running, in seconds, by the reader's clock. Skewed clocks
    /// make this wrong, but never negative.
    pub fn uptime_s(&self, now_wall_ms: u64) -> Option<u64> {
        self.started_ms.map(|started| now_wall_ms.saturating_sub(started) / 1_000)
    }

    /// These vitals as facts, by name. Facts that would be longer than [`FACT_LEN_MAX`] are left
    /// out.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let steps = |bytes: u64| bytes / MEMORY_STEP_BYTES * MEMORY_STEP_BYTES;
        let clock_steps = |ms: i64| ms / CLOCK_STEP_MS * CLOCK_STEP_MS;
        let load = |load: f64| format!("{:.1}", (load / LOAD_STEP).round() * LOAD_STEP);
        let addresses = (!self.addresses.is_empty()).then(|| self.addresses.join(" "));
        let objectors = self.objectors.iter().take(OBJECTORS_MAX).map(NodeId::to_string);
        let objectors = objectors.collect::<Vec<_>>().join(" ");
        [
            (name::VERSION, self.version.clone()),
            (name::NAME, self.name.clone()),
            (name::BOOT, self.boot.map(|boot| boot.to_string())),
            (name::STARTED, self.started_ms.map(|ms| ms.to_string())),
            (name::LOAD, self.load1.filter(|load| load.is_finite()).map(load)),
            (name::CPUS, self.cpus.map(|cpus| cpus.to_string())),
            (name::MEMORY, self.mem_total_bytes.map(|bytes| bytes.to_string())),
            (name::MEMORY_USED, self.mem_used_bytes.map(|bytes| steps(bytes).to_string())),
            (name::DIGEST, self.digest.as_ref().map(|digest| HEXLOWER.encode(digest))),
            (name::ADDRESSES, addresses),
            (name::CLOCK, self.clock_ahead_ms.map(|ms| clock_steps(ms).to_string())),
            (name::NOTICES, Told::write(&self.notices, FACT_LEN_MAX)),
            (name::OBJECTORS, Some(objectors).filter(|objectors| !objectors.is_empty())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .filter(|(_, value)| value.len() <= FACT_LEN_MAX)
        .collect()
    }

    /// Reads facts of any name and content. Facts beyond the first [`FACTS_MAX`] are not read.
    pub fn read<'a>(facts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut vitals = Self::default();
        for (fact, value) in facts.into_iter().take(FACTS_MAX) {
            if value.len() <= FACT_LEN_MAX {
                vitals.take(fact, value);
            }
        }
        vitals
    }

    fn take(&mut self, fact: &str, value: &str) {
        let text = || (value.len() <= NAME_LEN_MAX).then(|| printable(value));
        match fact {
            name::VERSION => self.version = text(),
            name::NAME => self.name = text(),
            name::BOOT => self.boot = value.parse().ok(),
            name::STARTED => self.started_ms = value.parse().ok(),
            name::LOAD => {
                self.load1 =
                    value.parse().ok().filter(|load: &f64| load.is_finite() && *load >= 0.0);
            }
            name::CPUS => self.cpus = value.parse().ok(),
            name::MEMORY => self.mem_total_bytes = value.parse().ok(),
            name::MEMORY_USED => self.mem_used_bytes = value.parse().ok(),
            name::CLOCK => self.clock_ahead_ms = value.parse().ok(),
            name::NOTICES => self.notices = Told::read(value),
            name::DIGEST if value.len() <= 2 * DIGEST_LEN_MAX => {
                self.digest = HEXLOWER.decode(value.as_bytes()).ok();
            }
            name::ADDRESSES => {
                let each = value.split_ascii_whitespace().take(ADDRESSES_MAX);
                self.addresses = each.map(printable).collect();
            }
            name::OBJECTORS => {
                let each = value.split_ascii_whitespace().take(OBJECTORS_MAX);
                self.objectors = each.filter_map(|id| id.parse().ok()).collect();
            }
            _ => {}
        }
    }
}

/// The text without what could move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vitals {
        Vitals {
            version: Some("0.1.0".into()),
            name: Some("pve-1".into()),
            boot: Some(7),
            started_ms: Some(1_700_000_000_000),
            load1: Some(0.42),
            cpus: Some(8),
            mem_total_bytes: Some(16 << 30),
            mem_used_bytes: Some((3 << 30) + 12_345),
            digest: Some(vec![1, 2, 0xff]),
            addresses: vec!["192.0.2.1:4747".into(), "[2001:db8::1]:4747".into()],
            clock_ahead_ms: Some(-1_200),
            notices: vec![Told { kind: "disk".into(), message: "the disk is full".into() }],
            objectors: vec![NodeId([7; 32]), NodeId([8; 32])],
        }
    }

    fn read(facts: &BTreeMap<String, String>) -> Vitals {
        Vitals::read(facts.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn vitals_read_back_rounded() {
        let expected = Vitals { load1: Some(0.4), mem_used_bytes: Some(3 << 30), ..some() };
        assert_eq!(read(&some().facts()), expected);
        assert_eq!(read(&Vitals::default().facts()), Vitals::default());
    }

    #[test]
    fn a_little_more_load_is_no_news() {
        let busier =
            Vitals { load1: Some(0.44), mem_used_bytes: Some((3 << 30) + 1_000_000), ..some() };
        assert_eq!(busier.facts(), some().facts());
    }

    #[test]
    fn an_unknown_or_unreadable_fact_is_skipped() {
        let mut facts = some().facts();
        facts.insert("mood".into(), "sunny".into());
        facts.insert("boot".into(), "many".into());
        facts.insert("load1".into(), "NaN".into());
        let vitals = read(&facts);
        assert_eq!((vitals.boot, vitals.load1, vitals.cpus), (None, None, Some(8)));
    }

    #[test]
    fn a_name_cannot_move_a_terminals_cursor() {
        let vitals = Vitals::read([("name", "a\u{1b}[2Jb\n")]);
        assert_eq!(vitals.name.as_deref(), Some("a[2Jb"));
    }

    #[test]
    fn a_fact_is_never_too_long() {
        let long = Vitals { name: Some("x".repeat(FACT_LEN_MAX + 1)), ..some() };
        assert!(!long.facts().contains_key("name"));
        assert!(long.facts().keys().all(|name| name.is_ascii()));
    }

    proptest! {
        #[test]
        fn arbitrary_facts_do_no_harm(facts in prop::collection::btree_map(
            prop_oneof![any::<String>(), "boot|digest|load1|addresses".prop_map(String::from)],
            any::<String>(),
            0..80,
        )) {
            let vitals = read(&facts);
            prop_assert_eq!(read(&vitals.facts()).boot, vitals.boot);
        }
    }
}
