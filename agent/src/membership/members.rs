//! The members as this node knows them: who belongs, by the roster, and who is there, by the failure
//! detector.

use std::collections::BTreeSet;
use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::{Standing, State};
use peerage_proto::roster::Roster;
use tokio::sync::watch;

use super::liveness::{LivenessHandle, Standings};
use crate::replica::{ReplicaHandle, Views};

/// What the roster and the failure detector say of the members, as of now.
#[derive(Clone)]
pub struct Members {
    /// This node.
    pub me: NodeId,
    views: watch::Receiver<Views>,
    standings: watch::Receiver<Standings>,
}

impl Members {
    /// The members of the Data Center that a replica is of.
    pub(super) fn new(me: NodeId, replica: &ReplicaHandle, liveness: &LivenessHandle) -> Self {
        Self { me, views: replica.views(), standings: liveness.standings() }
    }

    /// The members, as of the last commit.
    pub fn roster(&self) -> Arc<Roster> {
        self.views.borrow().roster.clone()
    }

    /// The roster as it is and will be, beside the other views.
    pub(super) fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    /// How every member but this node stands.
    pub fn standings(&self) -> Standings {
        self.standings.borrow().clone()
    }

    /// The same, as it is and will be.
    pub(super) fn changing_standings(&self) -> watch::Receiver<Standings> {
        self.standings.clone()
    }

    /// How one of the others stands.
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        self.standings.borrow().get(node).cloned()
    }

    /// The current members that are believed to be alive, without this node.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        let standings = self.standings();
        let alive = |id: &NodeId| standings.get(id).is_some_and(|s| s.state == State::Alive);
        self.roster().others(self.me).filter(alive).collect()
    }

    /// The current members that answer, or may: all but those that are known to be away. This node
    /// is not among them.
    pub fn reached(&self) -> BTreeSet<NodeId> {
        let standings = self.standings();
        let is_away = |id: &NodeId| {
            standings.get(id).is_some_and(|s| matches!(s.state, State::Down | State::Left))
        };
        self.roster().others(self.me).filter(|id| !is_away(id)).collect()
    }
}
