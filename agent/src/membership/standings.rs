//! Acts on changes of who is alive, and of how far behind this host is: tells of them, and lets the
//! mesh close connections, open them, and look for other paths.

use std::collections::BTreeMap;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::{State, Why};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::chronicle::Chronicle;
use super::liveness::{LivenessHandle, Standings};
use super::members::Members;
use super::openings::CONNECT_ALL_MAX;
use super::tasks::Tasks;
use crate::feed::Happening;
use crate::mesh::Mesh;

/// By how much one stall raises the local health multiplier.
const OF_ONE_STALL: u32 = 2;

/// Up to this many members, the log names each member that is heard of for the first time.
const MET_TOLD_MAX: usize = 64;

/// Tells of every change of who is alive, and acts on it.
pub(super) async fn follow_liveness(
    liveness: LivenessHandle,
    members: Members,
    mesh: Mesh,
    chronicle: Chronicle,
    tasks: Tasks,
) {
    let mut events = liveness.events();
    loop {
        match events.recv().await {
            Ok(event) => {
                let roster = members.roster();
                let happening = Happening::of_liveness(&event, &roster);
                // After a start every member is heard of for the first time, however many there are.
                let is_news = event.why != Why::Met || roster.current().count() <= MET_TOLD_MAX;
                match is_news {
                    true => info!("{}", happening.message),
                    false => debug!("{}", happening.message),
                }
                chronicle.tell(happening);
                follow_up(&members, &mesh, &tasks, event.node, (event.from, event.to));
            }
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "changes of liveness went by untold");
                for (node, standing) in members.standings().iter() {
                    follow_up(&members, &mesh, &tasks, *node, (State::Unknown, standing.state));
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Gives up the connection with a member that is down, and connects with a member that is back.
fn follow_up(
    members: &Members,
    mesh: &Mesh,
    tasks: &Tasks,
    node: NodeId,
    (from, to): (State, State),
) {
    match (from, to) {
        (_, State::Down) => mesh.abandon(node),
        (State::Unknown | State::Down | State::Left, State::Alive | State::Suspect) => {
            mesh.forgive(node);
            if !mesh.is_connected(node) && members.roster().current().count() <= CONNECT_ALL_MAX {
                let mesh = mesh.clone();
                tasks.spawn(async move {
                    // An error does no harm: whoever needs the connection dials again.
                    let _ = mesh.connect(node).await;
                });
            }
        }
        _ => {}
    }
}

/// Tells the mesh how far behind this host is. A single stall does not count: it is no reason to
/// look later for a path that broke.
pub(super) async fn follow_health(mut health: watch::Receiver<u32>, mesh: Mesh) {
    loop {
        let multiplier = *health.borrow_and_update();
        mesh.slow_down(multiplier.saturating_sub(OF_ONE_STALL).max(1));
        if health.changed().await.is_err() {
            return mesh.slow_down(1);
        }
    }
}

/// Tells the mesh which members are heard through another member only: the direct path to them may
/// be broken.
pub(super) async fn follow_standings(mut standings: watch::Receiver<Standings>, mesh: Mesh) {
    let mut before = BTreeMap::new();
    loop {
        let now: BTreeMap<NodeId, NodeId> = standings
            .borrow_and_update()
            .iter()
            .filter_map(|(node, standing)| Some((*node, standing.through?)))
            .collect();
        for (node, through) in &now {
            if before.get(node) != Some(through) {
                mesh.heard_through(*node, *through);
            }
        }
        before = now;
        if standings.changed().await.is_err() {
            return;
        }
    }
}
