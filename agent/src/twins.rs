//! Two live hosts with one key: a disk was copied, and both copies were started.
//!
//! Each start of an agent says in its hello which start it is. A member that hears of another start
//! than the one it knows asks the known one whether it is still there: a host that was started anew
//! is silent in its old life, a copied one answers. Of two that are alive the later start is
//! refused, by every member the same, and the earlier goes on as if nothing had been.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_proto::id::NodeId;
use peerage_proto::liveness::State;
use peerage_proto::wire::{CloseCode, Hello, Refusal, RefusalCode, Start};
use tracing::{info, warn};

use crate::membership::Membership;
use crate::mesh::Path;

/// How long the start that is known may take to show that it is alive.
const PROOF_OF_LIFE: Duration = Duration::from_secs(1);

/// At how many of a node's addresses its other start is looked for.
const LOOKED_AT_MAX: usize = 4;

/// How long a connection that was closed may take to be out of the way.
const PARTING_MAX: Duration = Duration::from_millis(500);
const PARTING_STEP: Duration = Duration::from_millis(10);

/// The start of a node's agent that was known before, and is alive.
struct Known {
    hello: Hello,
    start: Start,
    /// Where, as it stands in a sentence.
    place: String,
    /// Whether it is connected.
    connected: bool,
}

/// Whether a member that says hello from `remote` is the only one with its key.
///
/// # Errors
/// The refusal that it is told, where another start of it is alive and began before it.
pub async fn check(
    membership: &Membership,
    peer: NodeId,
    hello: &Hello,
    remote: SocketAddr,
) -> Result<(), Refusal> {
    let Some(start) = hello.start().filter(|_| !hello.only_looks) else { return Ok(()) };
    let Some(known) = known(membership, peer, start, remote).await else { return Ok(()) };
    let name = membership.roster().name_of(&peer);
    let from = place(membership, membership.mesh.path_of(remote));
    if start > known.start {
        let told = format!(
            "a host {from} with the key of {name} was refused: {name} is alive {}, so a disk was \
             copied",
            known.place
        );
        warn!("{told}");
        membership.tell("duplicate", &name, told);
        let message = refusal(&name, &known.hello, &known.place, hello);
        return Err(Refusal::new(RefusalCode::DuplicateIdentity, message));
    }
    // What was heard may be the last word of a start that is gone: it must show that it is there.
    let fresh = membership.mesh.look(peer, remote, PROOF_OF_LIFE).await;
    if known.connected && fresh.and_then(|fresh| fresh.start()) == Some(start) {
        let told = format!(
            "hung up on a host {} with the key of {name}: another {from} was started before it, so \
             a disk was copied",
            known.place
        );
        warn!("{told}");
        membership.tell("duplicate", &name, told);
        let message = refusal(&name, hello, &from, &known.hello);
        membership.mesh.close(peer, CloseCode::Refused, &message);
        parted(membership, peer, known.start).await;
    }
    Ok(())
}

/// Another start of the node than the one that speaks, where one is alive.
async fn known(
    membership: &Membership,
    peer: NodeId,
    start: Start,
    remote: SocketAddr,
) -> Option<Known> {
    let Some(status) = membership.mesh.peer(peer) else {
        return elsewhere(membership, peer, start, remote).await;
    };
    let known = status.hello.start().filter(|known| *known != start)?;
    if !membership.mesh.answers(peer, PROOF_OF_LIFE).await {
        info!(peer = membership.roster().name_of(&peer), "its agent started anew");
        return None;
    }
    let hello = Hello::clone(&status.hello);
    let place = place(membership, status.path);
    Some(Known { hello, start: known, place, connected: true })
}

/// Looks for another start of a node that is not connected, where it is held to be alive: at the
/// addresses where it was known, but for the one from which it speaks now. That this very start is
/// the one that is known to be alive says nothing: a copy that one member let in has told all.
async fn elsewhere(
    membership: &Membership,
    peer: NodeId,
    start: Start,
    remote: SocketAddr,
) -> Option<Known> {
    let standing = membership.liveness.standings().borrow().get(&peer).cloned()?;
    let lives = matches!(standing.state, State::Alive | State::Suspect);
    if !lives {
        return None;
    }
    let addresses = membership.roster().member(&peer)?.addresses.clone();
    let look =
        |at: SocketAddr| async move { (at, membership.mesh.look(peer, at, PROOF_OF_LIFE).await) };
    let others = addresses.into_iter().filter(|at| *at != remote).take(LOOKED_AT_MAX);
    let mut looks: FuturesUnordered<_> = others.map(look).collect();
    while let Some((at, found)) = looks.next().await {
        let Some(hello) = found else { continue };
        match hello.start() {
            Some(other) if other != start => {
                let place = place(membership, Path::Direct(at));
                return Some(Known { hello, start: other, place, connected: false });
            }
            // One host with several addresses.
            _ => {}
        }
    }
    None
}

/// Where a node is, as it stands in a sentence.
fn place(membership: &Membership, path: Path) -> String {
    match path {
        Path::Direct(_) => format!("{path:#}"),
        Path::Through(between) => format!("through {}", membership.roster().name_of(&between)),
    }
}

fn refusal(name: &str, first: &Hello, place: &str, later: &Hello) -> String {
    let machine = match (&first.machine, &later.machine) {
        (Some(first), Some(later)) if first == later => "on this very machine",
        (Some(_), Some(_)) => "on another machine",
        _ => "on another host",
    };
    format!("an agent with the same node.key runs {machine}, {place}, and is {name} already")
}

/// Returns once the connection with this start is out of the way, or does not go.
async fn parted(membership: &Membership, peer: NodeId, start: Start) {
    let gone = async {
        while membership.mesh.peer(peer).is_some_and(|p| p.hello.start() == Some(start)) {
            tokio::time::sleep(PARTING_STEP).await;
        }
    };
    // Where it does not go, the newcomer is turned away once, and comes again.
    let _ = tokio::time::timeout(PARTING_MAX, gone).await;
}
