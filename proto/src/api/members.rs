//! The members of the Data Center. `node` in a request is a name, an id, or the beginning of an id
//! that only one member has.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Item, Listed, Method, Operation, Whole, flag};
use crate::access::{Area, Resource, Right, Verb};
use crate::notice::Told;

/// Lists the members, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListMembers {}

impl Operation for ListMembers {
    type Answer = Listed<Member>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "members";
    const VERB: Verb = Verb::audit(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// The member answers.
    Alive,
    /// The member does not answer, but is not taken for down yet; or it was not heard since this
    /// agent started.
    Suspect,
    /// The member does not answer, and is taken for down; or its agent was stopped.
    Down,
    /// The member left the Data Center by itself.
    Left,
    /// The member was removed from the Data Center, for good.
    Removed,
    /// A word of a newer version, which an older version passes on as it is.
    #[serde(untagged)]
    Other(String),
}

impl MemberState {
    /// The word on the wire.
    pub fn word(&self) -> &str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
            Self::Removed => "removed",
            Self::Other(word) => word,
        }
    }

    /// Whether it no longer belongs to the Data Center.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Left | Self::Removed)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A member, as this node sees it. A field that this node does not know is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name; with a suffix where two nodes were given the same name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// What this node knows of the member.
    pub state: MemberState,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// The addresses at which it says that it is reached, the best first: `ADDRESS:PORT` or
    /// `NAME:PORT`.
    pub addresses: Vec<String>,
    /// Other addresses, from which its packets came and at which it answered the member that
    /// admitted it. They are tried last. Empty where it answered at one of `addresses`, or was not
    /// seen elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen_at: Vec<String>,
    /// The version of its agent.
    pub version: Option<String>,
    /// The round trip to it, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// `direct`, `via NAME` where it is reached through another member, `self`, or `-` where there
    /// is no connection.
    pub path: String,
    /// The address at which it is reached directly.
    #[serde(default)]
    pub link: Option<String>,
    /// How long ago this node last heard from it, in seconds.
    pub seen_s: Option<f64>,
    /// Why it is in this state, and what to do.
    pub message: Option<String>,
    /// When it was admitted, as RFC 3339.
    pub joined: Option<String>,
    /// How many times its agent has started.
    pub boot: Option<u64>,
    /// For how long its agent has been running, in seconds.
    pub uptime_s: Option<u64>,
    /// Its load over one minute.
    pub load: Option<f64>,
    /// The digest of the settings that it holds.
    pub digest: Option<String>,
    /// How far its clock is ahead of its peers' median, in milliseconds, as it says itself.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// For how long nothing larger than a small packet has got through to it from this node, in
    /// seconds, although it answers. `None` where large packets arrive, as far as this node knows.
    #[serde(default)]
    pub stalled_s: Option<f64>,
    /// The states of the node that need a person, as it says itself, the gravest first.
    #[serde(default)]
    pub notices: Vec<Told>,
    /// Whether it may let other nodes in. It may not if it was admitted beyond the number of uses
    /// of its invitation, or by a member that was, until it is accepted.
    #[serde(default = "yes")]
    pub accepted: bool,
    /// Why it may not let other nodes in; `None` where it may.
    #[serde(default)]
    pub unaccepted: Option<String>,
}

impl Item for Member {
    fn right(&self) -> Option<Right<'_>> {
        Some(Verb::audit(Area::Member).on(Resource::Node(&self.id)))
    }
}

/// The value for an agent of a version that does not send the field.
fn yes() -> bool {
    true
}

/// Gives a member another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameMember {
    /// Which member.
    pub node: String,
    /// Its new name.
    pub name: String,
}

impl Operation for RenameMember {
    type Answer = Whole<Renamed>;
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "members/{node}";
    const VERB: Verb = Verb::modify(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Node(&self.node)
    }
}

/// A member that was given another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// Its name now.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// Its name before.
    pub was: String,
}

/// Accepts a member that was admitted beyond the number of uses of its invitation: from now on it
/// may let other nodes in. A member that may already stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptMember {
    /// Which member.
    pub node: String,
}

impl Operation for AcceptMember {
    type Answer = Whole<Accepted>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "members/{node}/accept";
    const VERB: Verb = Verb::modify(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Node(&self.node)
    }
}

/// A member that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// Why it was not accepted before; `None` where it was.
    pub was: Option<String>,
}

/// Removes a member from the Data Center, for good. A node that reaches less than half of the
/// members, itself counted, refuses this as [`super::ErrorCode::NeedsForce`], since it may itself
/// be cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    /// Which member.
    pub node: String,
    /// Whether to remove the member however few members this node reaches.
    #[serde(default, deserialize_with = "flag")]
    pub force: bool,
}

impl Operation for RemoveMember {
    type Answer = Whole<Removed>;
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "members/{node}";
    const VERB: Verb = Verb::modify(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Node(&self.node)
    }
}

/// A member that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// [`MemberState::Removed`].
    pub state: MemberState,
    /// The names of the members that confirmed the removal. The other members will hear of it from
    /// these.
    pub told: Vec<String>,
}

/// Tells which members hold the settings that this node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListLag {}

impl Operation for ListLag {
    type Answer = Listed<Lag>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "lag";
    const VERB: Verb = Verb::audit(Area::Member);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// Whether a member holds what this node holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// The digest of the settings that it last said it holds.
    pub digest: Option<String>,
    /// Whether it is the digest of this node, too.
    pub in_sync: bool,
    /// How long ago it said so, in seconds.
    pub age_s: Option<f64>,
    /// Why it does not hold the same, where that is known, and what the operator can do.
    #[serde(default)]
    pub message: Option<String>,
}

impl Item for Lag {
    fn right(&self) -> Option<Right<'_>> {
        Some(Verb::audit(Area::Member).on(Resource::Node(&self.id)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::MemberState;

    #[test]
    fn a_state_travels_as_its_word_and_one_of_a_newer_version_is_handed_on() {
        let known = [
            MemberState::Alive,
            MemberState::Suspect,
            MemberState::Down,
            MemberState::Left,
            MemberState::Removed,
        ];
        for state in known.into_iter().chain([MemberState::Other("draining".into())]) {
            assert_eq!(serde_json::to_value(&state).unwrap(), json!(state.word()));
            assert_eq!(serde_json::from_value::<MemberState>(json!(state.word())).unwrap(), state);
        }
    }
}
