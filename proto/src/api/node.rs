//! This node: what it is, and how it comes into a Data Center and out of one.

use serde::{Deserialize, Serialize};

use super::{Method, Named, Operation};
use crate::access::Action;

/// Asks what this node is and how it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

impl Operation for GetStatus {
    type Output = Status;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "status";
    const ACTION: Action = Action::Read;
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
    /// What the mesh carried since the agent started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Bytes of the mesh, as UDP payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Received.
    pub bytes_in: u64,
    /// Sent.
    pub bytes_out: u64,
}

/// A node, as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// `standalone`, `member`, `removed`, or a word of a newer version.
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
    /// How much they take, in bytes.
    pub bytes: u64,
    /// How many conflicts nobody has settled yet.
    pub conflicts: u64,
}

/// Something that the operator should know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What there is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Founds a Data Center on this node, which must be standalone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What the Data Center shall be called.
    pub name: String,
}

impl Operation for Create {
    type Output = Created;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "create";
    const ACTION: Action = Action::Write;
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
}

impl Operation for Join {
    type Output = Joined;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "join";
    const ACTION: Action = Action::Write;
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
}

/// Leaves the Data Center. The node is standalone afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {}

impl Operation for Leave {
    type Output = Departure;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "leave";
    const ACTION: Action = Action::Write;
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
}
