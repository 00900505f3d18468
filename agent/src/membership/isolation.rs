//! Whether this node may be cut off from the others: see [`peerage_proto::isolation`].

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

/// How long a suspected member may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Tells whether this node may be cut off: by which members it reaches, and, where some are missed,
/// by what the host says of its network.
#[derive(Clone)]
pub struct Horizon {
    members: Members,
    mesh: Mesh,
    greeting: Greeting,
    network: NetworkLook,
}

impl Horizon {
    /// The horizon of a node that announces the addresses in its greeting.
    pub(super) fn new(
        members: Members,
        mesh: Mesh,
        greeting: Greeting,
        network: NetworkLook,
    ) -> Self {
        Self { members, mesh, greeting, network }
    }

    /// Which members this node reaches now, and whether it may be cut off.
    pub fn sight(&self) -> Sight {
        let standings = self.members.standings();
        Sight::of(standings.values(), &self.network(&standings))
    }

    /// As [`Self::sight`], after the suspected members had a moment to answer: a host that is late
    /// suspects members that are alive.
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

    /// What the host says of its network; [`Network::Unknown`] where there is no reason to ask.
    fn network(&self, standings: &Standings) -> Network {
        let is_missed = standings.values().any(|standing| standing.state != State::Alive);
        // Agents that announce only loopback addresses need no network card.
        if is_missed && self.greeting.leads_other_hosts_here() {
            (self.network)()
        } else {
            Network::Unknown
        }
    }
}

/// Keeps a notice for as long as this node may be cut off.
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
