//! This node: what it is, and how it comes into a Data Center and out of one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Room;
use super::{Method, Named, Operation, Whole, flag};
use crate::access::{Area, Resource, Verb};

/// Asks what this node is and how it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

impl Operation for GetStatus {
    type Answer = Whole<Status>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "status";
    const VERB: Verb = Verb::audit(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// What this node is and how it is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The Data Center that the node is in; `None` where it is standalone.
    pub datacenter: Option<Named>,
    /// The node itself.
    pub node: Node,
    /// How many members are in which state, this node included.
    pub members: MemberCounts,
    /// What is kept of the settings.
    pub settings: SettingsSummary,
    /// The version of the agent.
    pub version: String,
    /// For how long the agent has been running, in seconds.
    pub uptime_s: u64,
    /// How many times an agent has started on this node's data.
    pub boot: u64,
    /// Where other nodes are told to find this one.
    pub addresses: Vec<String>,
    /// What the operator should know before anything else.
    pub notice: Option<Notice>,
    /// All that the operator should know, the most pressing first.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// How this node's clock stands to the others'; `None` where it was compared with nobody's.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// What the mesh carried since the agent started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// How a node's clock stands to those of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How far it is ahead of the peers' median, in milliseconds; negative where it is behind.
    pub ahead_ms: i64,
    /// How many peers' clocks it was compared with.
    pub peers: u32,
    /// Whether this node refuses to write because of it.
    pub refusing: bool,
}

/// What the mesh carried since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Bytes of UDP payload received.
    pub bytes_in: u64,
    /// Bytes of UDP payload sent.
    pub bytes_out: u64,
    /// What it did for that, by name: handshakes, dials, datagrams and so on. For diagnosis; the
    /// names may change between versions.
    pub counters: BTreeMap<String, u64>,
}

/// A node, as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// `standalone`, `member`, `removed`, `refused` (another host with its key is alive), or a word
    /// of a newer version.
    pub state: String,
}

/// How many members are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberCounts {
    /// Answering.
    pub alive: u32,
    /// Not answering, and not given up yet.
    pub suspect: u32,
    /// Not answering.
    pub down: u32,
    /// Gone of their own will.
    pub left: u32,
    /// Put out for good.
    pub removed: u32,
}

/// What is kept of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsSummary {
    /// How many documents there are.
    pub documents: u64,
    /// Equal on two nodes that hold the same.
    pub digest: String,
    /// How much is kept here altogether, in bytes: settings, history, the Data Center's own records.
    pub bytes: u64,
    /// How many conflicts nobody has settled yet.
    pub conflicts: u64,
    /// What takes that room, and how much there may be.
    pub room: Room,
}

/// Something that the operator should know, and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What kind of state it is, in a word: `disk`, `clock`, `peers` and so on; the events that tell
    /// of its beginning and its end have the same kind. `None` where it is no state that stands.
    #[serde(default)]
    pub kind: Option<String>,
    /// What there is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when, as RFC 3339.
    #[serde(default)]
    pub since: Option<String>,
    /// How often it happened since, where it is something that happens again and again.
    #[serde(default)]
    pub times: u64,
}

/// Founds a Data Center on this node, which must be standalone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What the Data Center shall be called.
    pub name: String,
}

impl Operation for Create {
    type Answer = Whole<Created>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "create";
    const VERB: Verb = Verb::modify(Area::DataCenter);

    fn resource(&self) -> Resource<'_> {
        Resource::Root
    }
}

/// A Data Center that has been founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The new Data Center.
    pub datacenter: Named,
    /// This node, its first member.
    pub node: Named,
}

/// Joins the Data Center that a token speaks of. This node must be standalone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The Join Information, as `invite` printed it.
    pub token: String,
    /// What this node shall be called; `None` keeps the name that it has.
    #[serde(default)]
    pub name: Option<String>,
    /// The password, where the token is without its secret.
    #[serde(default)]
    pub password: Option<String>,
    /// Whether to take the name over from a member that is down, which is removed by that: for a
    /// host that was installed anew.
    #[serde(default)]
    pub replace: bool,
}

/// How long joining may take: it asks one seed after the other, of which each may be slow.
const JOINING_MAX: Duration = Duration::from_secs(300);

impl Operation for Join {
    type Answer = Whole<Joined>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "join";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }

    fn patience(&self) -> Duration {
        JOINING_MAX
    }
}

/// A Data Center that this node has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The Data Center.
    pub datacenter: Named,
    /// This node, under the name that it was admitted with.
    pub node: Named,
    /// The name of the member that admitted it, or its id where the name is not known yet.
    pub seed: String,
    /// How many members there are now, this node included.
    pub members: u32,
    /// Whether it was a member before: then it kept everything, and met the seed.
    #[serde(default)]
    pub already: bool,
}

/// Connects with the seeds of Join Information of the Data Center that this node is a member of, for
/// where neither side finds the other any more. The node keeps everything; whether the invitation
/// still admits does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meet {
    /// The Join Information, as `invite` printed it.
    pub token: String,
}

impl Operation for Meet {
    type Answer = Whole<Met>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "meet";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }

    fn patience(&self) -> Duration {
        JOINING_MAX
    }
}

/// Whom this node met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// The Data Center.
    pub datacenter: Named,
    /// The seeds that it is connected with now; at least one.
    pub met: Vec<Named>,
    /// Those that it is not.
    pub missed: Vec<Missed>,
}

/// A seed that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Its name, or the beginning of its id where no name is known here.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// Why.
    pub message: String,
}

/// Leaves the Data Center. The node is standalone afterwards. Where no other member confirms that it
/// holds what this node holds, it is refused as [`super::ErrorCode::NeedsForce`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leave {
    /// Whether to leave whatever is lost by it.
    #[serde(deserialize_with = "flag")]
    pub force: bool,
}

impl Operation for Leave {
    type Answer = Whole<Departure>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "leave";
    const VERB: Verb = Verb::modify(Area::Node);
    const QUERY: &'static [&'static str] = &["force"];

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// Gives this host another identity: a new key, with which it is a new node that has to join. A
/// member has to leave first. The agent answers, and then starts anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetIdentity {
    /// Must be true: it says what is reset.
    #[serde(default)]
    pub identity: bool,
}

impl Operation for ResetIdentity {
    type Answer = Whole<IdentityReset>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "reset";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// A host with another identity than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReset {
    /// The node that it is; its name is what it takes when it joins.
    pub node: Named,
    /// The id of the node that it was; `None` where nothing on the disk said so any more.
    pub was: Option<String>,
    /// The folder on this host that keeps what the node had; `None` where it had nothing.
    pub backup: Option<String>,
    /// The file on this host that keeps the old key; `None` where there was none.
    pub old_key: Option<String>,
}

/// How a node left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// What it left.
    pub datacenter: Named,
    /// The names of the members that confirmed it; the others will hear of it from these.
    pub told: Vec<String>,
    /// The folder or file on this host that keeps what the node had.
    pub backup: String,
    /// What is left to do where nobody confirmed that they heard; `None` where someone did, or there
    /// was nobody else.
    #[serde(default)]
    pub notice: Option<Notice>,
}
