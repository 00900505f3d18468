//! The records that the roster is made of: the path of each, and what is written to it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::member::{SEEN_MAX, Standing};
use super::{NodeName, Roster};
use crate::address::Address;
use crate::id::{InviteId, NodeId};
use crate::replica::{Edit, Field, Path};

/// The record of the Data Center itself.
pub fn datacenter_path() -> Path {
    "@datacenter".parse().expect("the path is well-formed")
}

/// The record of a member.
pub fn member_path(id: &NodeId) -> Path {
    format!("@member/{id}").parse().expect("an id in hex is a well-formed part of a path")
}

/// The record of an invitation.
pub fn invite_path(id: &InviteId) -> Path {
    format!("@invite/{id}").parse().expect("an id in hex is a well-formed part of a path")
}

/// The writes that the roster is made of, each for the path that its comment names.
impl Roster {
    /// The founding of a Data Center: for [`datacenter_path`].
    pub fn founding(name: &str, at_ms: u64) -> Edit {
        setting([("name", json!(name)), ("founded_ms", json!(at_ms))])
    }

    /// The admission of a node: for [`member_path`]. A node that left before comes back by it.
    pub fn admission(
        &self,
        id: &NodeId,
        name: &NodeName,
        addresses: &[Address],
        by: NodeId,
        invite: Option<InviteId>,
        at_ms: u64,
    ) -> Edit {
        let mut admitted = json!({"by": by, "invite": invite, "at_ms": at_ms});
        for (field, said) in self.place_kept(id) {
            admitted[field] = said;
        }
        let used = self.member(id).map(|member| member.used(invite)).unwrap_or_default();
        if !used.is_empty() {
            admitted["used"] = json!(used);
        }
        let mut edit = setting([
            ("name", json!(name)),
            ("addresses", json!(addresses)),
            ("admitted", admitted),
        ]);
        if self.member(id).is_some_and(|m| matches!(m.standing, Standing::Left(_))) {
            edit.unset.insert(field("left"));
        }
        edit
    }

    /// Adds to an admission the addresses at which the node answered, beside those that it told.
    /// They replace those of an earlier admission.
    pub fn seen_at(&self, id: &NodeId, seen: &[SocketAddr], mut admission: Edit) -> Edit {
        let seen: Vec<String> = seen.iter().take(SEEN_MAX).map(SocketAddr::to_string).collect();
        if !seen.is_empty() {
            admission.set.insert(field("seen"), json!(seen));
        } else if self.member(id).is_some_and(|member| !member.seen.is_empty()) {
            admission.unset.insert(field("seen"));
        }
        admission
    }

    /// The leaving of a node by its own will: for [`member_path`].
    pub fn leaving(by: NodeId, who: &str, at_ms: u64) -> Edit {
        setting([("left", ending(by, who, at_ms))])
    }

    /// The removal of a node: for [`member_path`].
    pub fn removal(by: NodeId, who: &str, at_ms: u64) -> Edit {
        setting([("removed", ending(by, who, at_ms))])
    }

    /// Another name: for [`member_path`].
    pub fn renaming(name: &NodeName) -> Edit {
        setting([("name", json!(name))])
    }

    /// Other addresses, the best first: for [`member_path`].
    pub fn addressing(addresses: &[Address]) -> Edit {
        setting([("addresses", json!(addresses))])
    }
}

pub(super) fn setting<const N: usize>(fields: [(&'static str, Value); N]) -> Edit {
    let set = fields.into_iter().map(|(name, value)| (field(name), value)).collect();
    Edit { set, ..Edit::default() }
}

fn field(name: &'static str) -> Field {
    name.parse().expect("the roster's own field names are well-formed")
}

pub(super) fn ending(by: NodeId, who: &str, at_ms: u64) -> Value {
    json!({"by": by, "who": who, "at_ms": at_ms})
}

/// The node whose record is at a path; an id can be written in several ways, and only one of them
/// counts.
pub(super) fn member_at(path: &Path) -> Option<NodeId> {
    let id = path.as_str().strip_prefix("@member/")?.parse().ok()?;
    (*path == member_path(&id)).then_some(id)
}

pub(super) fn invite_at(path: &Path) -> Option<InviteId> {
    let id = path.as_str().strip_prefix("@invite/")?.parse().ok()?;
    (*path == invite_path(&id)).then_some(id)
}
