//! The tasks of a node that belongs to a Data Center, from joining or starting until it leaves or
//! is put out.
//!
//! Everything here is wired by channels that never block an owner: the mesh hands in datagrams,
//! messages, frames and sessions; the replica, the failure detector and the vitals each own their
//! state; the tasks here only carry between them, and each takes exactly the handles that it uses.
//! `starting` wires them.

mod addresses;
mod belonging;
mod calling;
mod chronicle;
mod commits;
mod comparing;
mod end;
mod greeting;
mod inbound;
mod isolation;
pub mod liveness;
mod meetings;
mod members;
mod notices;
mod objections;
mod openings;
mod outbound;
mod parts;
mod sessions;
mod spreading;
mod stalls;
mod standings;
mod starting;
mod tasks;
pub mod timekeeping;
pub mod vitals;

use std::sync::Arc;

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::roster::Roster;
use peerage_proto::wire::Hello;
use tokio::sync::{mpsc, watch};

use crate::admission::Pending;
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::replica::ReplicaHandle;

pub use calling::Calling;
pub use chronicle::Chronicle;
pub use end::End;
pub use inbound::{Inbound, Lent};
pub use isolation::Horizon;
pub use members::Members;
pub use notices::name_clash;
pub use objections::{Contested, Grounds, Objections};
pub use parts::Parts;
pub use sessions::Sessions;
pub use stalls::stalled;
pub use starting::Opening;

use greeting::Greeting;
use liveness::LivenessHandle;
use notices::OF_A_MEMBER;
use tasks::Tasks;
use timekeeping::ClockStanding;
use vitals::VitalsHandle;

/// A running membership, which its node starts, opens and stops. A caller takes out the handles
/// that it uses.
pub struct Membership {
    /// The Data Center.
    pub datacenter: DataCenterId,
    /// This node.
    pub me: NodeId,
    /// The replica.
    pub replica: ReplicaHandle,
    /// The members.
    pub members: Members,
    /// Brings this node's changes to other members, and their changes to this node.
    pub sessions: Sessions,
    /// The vitals.
    pub vitals: VitalsHandle,
    /// The admissions under way.
    pub pending: Arc<Pending>,
    /// The mesh.
    pub mesh: Mesh,
    /// How this node's clock stands.
    pub time: watch::Receiver<ClockStanding>,
    /// The states of this node that need a person.
    pub notices: Notices,
    /// The objections of other nodes to this membership.
    pub objections: Objections,
    /// Tells whether this node may be cut off.
    pub horizon: Horizon,
    /// Calls the nodes that were put out.
    pub calling: Calling,
    /// Tells of what happens to the members.
    pub chronicle: Chronicle,
    liveness: LivenessHandle,
    greeting: Greeting,
    ended: mpsc::Sender<End>,
    tasks: Tasks,
}

impl Membership {
    /// Ends all tasks; with a goodbye, the others are told first.
    pub async fn stop(&self, goodbye: bool) {
        if goodbye {
            self.liveness.goodbye().await;
        }
        self.vitals.stop().await;
        self.tasks.stop().await;
        self.notices.forget(&OF_A_MEMBER);
    }

    /// Tells the node that this membership must end. Only the node can end it.
    pub fn end(&self, end: End) {
        // A full queue means that the node was told several times already, and has not acted yet.
        let _ = self.ended.try_send(end);
    }

    /// The members, as of the last commit.
    pub fn roster(&self) -> Arc<Roster> {
        self.members.roster()
    }

    /// What this node says first to a peer; the clock in it is not set.
    pub fn hello(&self) -> Hello {
        self.greeting.hello()
    }
}
