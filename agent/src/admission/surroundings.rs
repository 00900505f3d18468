//! What a member that admits needs of the world around it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use peerage_proto::admission::exchange::{UsesAnswer, UsesQuestion};
use peerage_proto::id::NodeId;
use peerage_proto::skew::ClockOff;

/// What admitting needs of the mesh.
pub trait Surroundings: Send + Sync + 'static {
    /// Dials a node at an address, from a port that the node has not seen, as a stranger would, and
    /// hangs up.
    fn dial_back(
        &self,
        node: NodeId,
        address: SocketAddr,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Asks a member how often an invitation was used; none where it does not answer.
    fn ask_uses(
        &self,
        member: NodeId,
        question: UsesQuestion,
    ) -> impl Future<Output = Option<UsesAnswer>> + Send;

    /// The members that are believed to be alive, without this node.
    fn alive(&self) -> BTreeSet<NodeId>;

    /// How far this node's own clock is off, where it is known to be wrong.
    fn clock_off(&self) -> Option<ClockOff>;

    /// Where an agent with this member's key is alive as that member; `None` if no such agent shows
    /// itself.
    fn lives(&self, member: NodeId) -> impl Future<Output = Option<String>> + Send;

    /// Whether a member is there, as far as this node can tell. It dials the member if it has no
    /// other sign of it.
    fn presence(&self, member: NodeId) -> impl Future<Output = Presence> + Send;
}

/// Whether a member is there that a joiner asks to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is down, and stays silent when it is called.
    Gone,
    /// It is not there, but may be back in a moment: what is known of it.
    Lately(String),
    /// It is there: what shows it.
    There(String),
}
