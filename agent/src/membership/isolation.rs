//! What this node can tell of its own place among the others: see [`peerage_proto::isolation`].

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_proto::isolation::{Network, Sight};
use peerage_proto::liveness::State;
use peerage_proto::notice::{self, NoticeKind};

use super::greeting::Greeting;
use super::liveness::Standings;
use super::members::Members;
use crate::host::links::NetworkLook;
use crate::mesh::Mesh;
use crate::notices::Notices;

/// How often this host's network is looked at while it seems to be cut off.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long one that is doubted may take to show that it is there.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// How far this node sees: whom it reaches, and what its host's network says where some are missed.
#[derive(Clone)]
pub struct Horizon {
    members: Members,
    mesh: Mesh,
    greeting: Greeting,
    network: NetworkLook,
}

impl Horizon {
    /// The horizon of a node that is reached where its greeting says.
    pub(super) fn new(
        members: Members,
        mesh: Mesh,
        greeting: Greeting,
        network: NetworkLook,
    ) -> Self {
        Self { members, mesh, greeting, network }
    }

    /// How far this node sees now.
    pub fn sight(&self) -> Sight {
        let standings = self.members.standings();
        Sight::of(standings.values(), &self.network(&standings))
    }

    /// The same, once those in doubt had a moment to answer: a host that is late doubts others, who
    /// are there.
    pub async fn sight_after_asking(&self) -> Sight {
        let mut standings = self.members.standings().as_ref().clone();
        let doubted = standings.iter().filter(|(_, standing)| standing.state == State::Suspect);
        let asked = doubted
            .map(|(node, _)| async { (*node, self.mesh.answers(*node, ANSWERED_WITHIN).await) });
        let asked: Vec<_> = asked.collect::<FuturesUnordered<_>>().collect().await;
        for (node, answered) in asked {
            if answered && let Some(standing) = standings.get_mut(&node) {
                standing.state = State::Alive;
            }
        }
        let standings = Standings::new(standings);
        Sight::of(standings.values(), &self.network(&standings))
    }

    /// What the host's network says, where there is reason to look.
    fn network(&self, standings: &Standings) -> Network {
        let is_missed = standings.values().any(|standing| standing.state != State::Alive);
        // Agents that are reached on their own host only need no card.
        if is_missed && self.greeting.leads_other_hosts_here() {
            (self.network)()
        } else {
            Network::Unknown
        }
    }
}

/// Says so where this node may be cut off, for as long as it may.
pub(super) async fn follow_sight(horizon: Horizon, notices: Notices) {
    let mut standings = horizon.members.changing_standings();
    loop {
        standings.borrow_and_update();
        let isolation = horizon.sight().isolation;
        let is_alone = isolation.is_some();
        let state = isolation.map(|i| notice::State::new(i.to_string(), i.hint()));
        notices.set(NoticeKind::Peers, state);
        tokio::select! {
            changed = standings.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN), if is_alone => {}
        }
    }
}
