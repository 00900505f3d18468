//! This node: its status, and how it founds, joins and leaves a Data Center.

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
    /// How much this node keeps of the settings.
    pub settings: SettingsSummary,
    /// The version of the agent.
    pub version: String,
    /// For how long the agent has been running, in seconds.
    pub uptime_s: u64,
    /// How many times an agent has started on this node's data.
    pub boot: u64,
    /// The addresses that this node tells the others.
    pub addresses: Vec<String>,
    /// The most urgent notice to the operator.
    pub notice: Option<Notice>,
    /// All notices to the operator, the most urgent first.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// How this node's clock compares with the clocks of its peers; `None` where it was compared
    /// with none.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// What the mesh carried since the agent started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// How a node's clock compares with the clocks of its peers.
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
    /// Counters of what the mesh did, by name: handshakes, dials, datagrams and so on. They are for
    /// diagnosis, and the names may change between versions.
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
    /// Members that answer.
    pub alive: u32,
    /// Members that do not answer but are not taken for down yet.
    pub suspect: u32,
    /// Members that do not answer and are taken for down.
    pub down: u32,
    /// Members that left.
    pub left: u32,
    /// Members that were removed for good.
    pub removed: u32,
}

/// How much this node keeps of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsSummary {
    /// How many documents there are.
    pub documents: u64,
    /// The digest of the settings. It is equal on two nodes that hold the same.
    pub digest: String,
    /// How much this node keeps altogether, in bytes: settings, history, the Data Center's own
    /// records.
    pub bytes: u64,
    /// How many conflicts are not settled yet.
    pub conflicts: u64,
    /// What takes this room, and how much the settings may take.
    pub room: Room,
}

/// A notice to the operator, with what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The kind of state, in a word: `disk`, `clock`, `peers` and so on. The events that tell its
    /// beginning and its end have the same kind. `None` where the notice is not about a state that
    /// lasts.
    #[serde(default)]
    pub kind: Option<String>,
    /// What there is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when, as RFC 3339.
    #[serde(default)]
    pub since: Option<String>,
    /// How often it has happened since then, where it happens again and again.
    #[serde(default)]
    pub times: u64,
}

/// Founds a Data Center on this node, which must be standalone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The name of the Data Center.
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

/// Joins the Data Center that a token is for. This node must be standalone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The Join Information, as `invite` printed it.
    pub token: String,
    /// The name that this node asks for; `None` keeps the name that it has.
    #[serde(default)]
    pub name: Option<String>,
    /// The password, where the token does not contain its secret.
    #[serde(default)]
    pub password: Option<String>,
    /// Whether to take the name over from a member that is down, for a host that was installed
    /// anew. This removes that member.
    #[serde(default)]
    pub replace: bool,
}

/// How long joining may take: the node asks one seed after the other, and each may be slow.
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
    /// Whether this node was a member already. Then it kept all its data, and only connected with
    /// the seed.
    #[serde(default)]
    pub already: bool,
}

/// Connects with the seeds of Join Information of the Data Center that this node is a member of. It
/// is for two sides of which neither finds the other any more. The node keeps all its data, and the
/// invitation need not be valid any more.
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

/// The seeds that this node met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// The Data Center.
    pub datacenter: Named,
    /// The seeds that it is connected with now; at least one.
    pub met: Vec<Named>,
    /// The seeds that it is not connected with.
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

/// Leaves the Data Center. The node is standalone afterwards. If no other member confirms that it
/// holds what this node holds, the agent refuses as [`super::ErrorCode::NeedsForce`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leave {
    /// Whether to leave even if something is lost by it.
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
/// member has to leave first. The agent answers, and then restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetIdentity {
    /// Must be true: it confirms that the identity is reset.
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
    /// The new node; it will ask for this name when it joins.
    pub node: Named,
    /// The id of the old node; `None` where the disk did not tell it any more.
    pub was: Option<String>,
    /// The folder on this host that keeps the old node's data; `None` where it had none.
    pub backup: Option<String>,
    /// The file on this host that keeps the old key; `None` where there was none.
    pub old_key: Option<String>,
}

/// How a node left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The Data Center that the node left.
    pub datacenter: Named,
    /// The names of the members that confirmed the departure. The other members will hear of it
    /// from these.
    pub told: Vec<String>,
    /// The folder or file on this host that keeps the node's data.
    pub backup: String,
    /// What the operator still has to do where no member confirmed the departure; `None` where a
    /// member did, or where there was no other member.
    #[serde(default)]
    pub notice: Option<Notice>,
}
