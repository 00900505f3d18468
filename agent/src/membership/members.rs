//! The members as this node knows them: the roster tells which nodes belong, the failure detector
//! tells which of them are alive.

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
    /// The members of the Data Center to which a replica belongs.
    pub(super) fn new(me: NodeId, replica: &ReplicaHandle, liveness: &LivenessHandle) -> Self {
        Self { me, views: replica.views(), standings: liveness.standings() }
    }

    /// The members, as of the last commit.
    pub fn roster(&self) -> Arc<Roster> {
        self.views.borrow().roster.clone()
    }

    /// The roster and the other views, as a value to read or to wait on.
    pub(super) fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    /// How every member but this node stands.
    pub fn standings(&self) -> Standings {
        self.standings.borrow().clone()
    }

    /// The same, as a value to read or to wait on.
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

    /// The current members that are not known to be away, so that they answer or may answer. This
    /// node is not among them.
    pub fn reached(&self) -> BTreeSet<NodeId> {
        let standings = self.standings();
        let is_away = |id: &NodeId| {
            standings.get(id).is_some_and(|s| matches!(s.state, State::Down | State::Left))
        };
        self.roster().others(self.me).filter(|id| !is_away(id)).collect()
    }
}
