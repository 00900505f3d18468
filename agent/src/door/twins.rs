//! Two live hosts with one key: a disk was copied, and both copies were started.
//!
//! Each start of an agent says in its hello which start it is. A member that hears of another start
//! than the one it knows asks the known start whether it is still alive: if a host was started
//! anew, its former start is silent; if a disk was copied, the known start answers. Of two starts
//! that are alive, every member refuses the later one, and the earlier goes on as before.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_proto::id::NodeId;
use peerage_proto::liveness::State;
use peerage_proto::wire::{CloseCode, Hello, Refusal, RefusalCode, Start};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::membership::{Chronicle, Members};
use crate::mesh::{Mesh, Path};

/// How long the known start may take to show that it is alive.
const PROOF_OF_LIFE: Duration = Duration::from_secs(1);

/// At how many of a node's addresses another start of it is looked for.
const LOOKED_AT_MAX: usize = 4;

/// How long a closed connection may take to be out of the way.
const PARTING_MAX: Duration = Duration::from_millis(500);
const PARTING_STEP: Duration = Duration::from_millis(10);

/// The start of a node's agent that this node knew before, and that is alive.
struct Known {
    hello: Hello,
    start: Start,
    /// Where it is, in words that fit into a sentence.
    place: String,
    /// Whether it is connected.
    connected: bool,
}

/// Looks for other hosts with a member's key.
pub(super) struct Twins {
    pub(super) members: Members,
    pub(super) mesh: Mesh,
    pub(super) chronicle: Chronicle,
}

impl Twins {
    /// Whether a member that says hello from `remote` is the only one with its key.
    ///
    /// # Errors
    /// The refusal to send, where another start of the member is alive and began before this one.
    pub(super) async fn check(
        &self,
        peer: NodeId,
        hello: &Hello,
        remote: SocketAddr,
    ) -> Result<(), Refusal> {
        let Some(start) = hello.start().filter(|_| !hello.only_looks) else { return Ok(()) };
        let Some(known) = self.known(peer, hello, start, remote).await else { return Ok(()) };
        let name = self.members.roster().name_of(&peer);
        let from = self.place(self.mesh.path_of(remote));
        if start > known.start {
            let told = format!(
                "a host {from} with the key of {name} was refused: {name} is alive {}, so a disk was \
                 copied",
                known.place
            );
            warn!("{told}");
            self.chronicle.tell_of(&name, "duplicate", told);
            let message = refusal(&name, &known.hello, &known.place, hello);
            return Err(Refusal::new(RefusalCode::DuplicateIdentity, message));
        }
        // The hello may be the last word of a start that is gone: that start must show that it is
        // alive.
        let fresh = self.mesh.look(peer, remote, PROOF_OF_LIFE).await;
        if known.connected && fresh.and_then(|fresh| fresh.start()) == Some(start) {
            let told = format!(
                "hung up on a host {} with the key of {name}: another {from} was started before it, so \
                 a disk was copied",
                known.place
            );
            warn!("{told}");
            self.chronicle.tell_of(&name, "duplicate", told);
            let message = refusal(&name, hello, &from, &known.hello);
            self.mesh.close(peer, CloseCode::Refused, &message);
            parted(&self.mesh, peer, known.start).await;
        }
        Ok(())
    }

    /// Where an agent is alive that has a member's key and is that member, in words that fit into a
    /// sentence. The agent is connected, or shows itself at one of the member's addresses.
    pub(super) async fn lives(&self, peer: NodeId) -> Option<String> {
        if let Some(status) = self.mesh.peer(peer)
            && self.mesh.answers(peer, PROOF_OF_LIFE).await
        {
            return Some(self.place(status.path));
        }
        let places = self.members.roster().member(&peer)?.places();
        let addresses = self.mesh.found(&places).await;
        let look = |at| async move { (at, self.mesh.look(peer, at, PROOF_OF_LIFE).await) };
        let mut looks: FuturesUnordered<_> =
            addresses.into_iter().take(LOOKED_AT_MAX).map(look).collect();
        while let Some((at, found)) = looks.next().await {
            if found.is_some() {
                return Some(self.place(Path::Direct(at)));
            }
        }
        None
    }

    /// Another start of the node than `start`, which says hello now; none where no other is alive.
    async fn known(
        &self,
        peer: NodeId,
        hello: &Hello,
        start: Start,
        remote: SocketAddr,
    ) -> Option<Known> {
        let Some(status) = self.mesh.peer(peer) else {
            return self.elsewhere(peer, hello, start, remote).await;
        };
        let known = status.hello.start().filter(|known| *known != start)?;
        if !self.mesh.answers(peer, PROOF_OF_LIFE).await {
            info!(peer = self.members.roster().name_of(&peer), "its agent started anew");
            return None;
        }
        let hello = Hello::clone(&status.hello);
        let place = self.place(status.path);
        Some(Known { hello, start: known, place, connected: true })
    }

    /// Looks for another start of a node that is not connected, where others say that the node is
    /// alive.
    async fn elsewhere(
        &self,
        peer: NodeId,
        hello: &Hello,
        start: Start,
        remote: SocketAddr,
    ) -> Option<Known> {
        let standing = self.members.standing(&peer)?;
        if !matches!(standing.state, State::Alive | State::Suspect) {
            return None;
        }
        let places = self.members.roster().member(&peer)?.places();
        let addresses = self.mesh.found(&places);
        // The peer waits for an answer to its hello meanwhile, so this wait is short.
        let addresses = timeout(PROOF_OF_LIFE, addresses).await;
        let addresses = addresses.unwrap_or_else(|_| self.mesh.known(&places));
        let own = self.mesh.known(&hello.addresses);
        let is_this_boot = standing.boot.is_none_or(|boot| boot == hello.boot);
        let others = other_places(&addresses, is_this_boot, &own, remote);
        let look =
            |at: SocketAddr| async move { (at, self.mesh.look(peer, at, PROOF_OF_LIFE).await) };
        let others = others.into_iter().take(LOOKED_AT_MAX);
        let mut looks: FuturesUnordered<_> = others.map(look).collect();
        while let Some((at, found)) = looks.next().await {
            let Some(hello) = found else { continue };
            match hello.start() {
                Some(other) if other != start => {
                    let place = self.place(Path::Direct(at));
                    return Some(Known { hello, start: other, place, connected: false });
                }
                // It is the same start: one host has several addresses.
                _ => {}
            }
        }
        None
    }

    /// Where a node is, in words that fit into a sentence.
    fn place(&self, path: Path) -> String {
        match path {
            Path::Direct(_) => format!("{path:#}"),
            Path::Through(between) => {
                format!("through {}", self.members.roster().name_of(&between))
            }
        }
    }
}

/// The addresses at which another start of a node may be than the one that says hello from
/// `remote`: the known addresses without `remote`. Where the node is known to be alive in the very
/// boot that says hello, its own addresses need not be searched either. The remaining ones must be:
/// if some member let a copy in, the news of that boot went to all, and only the addresses on
/// record lead to the original.
fn other_places(
    known: &[SocketAddr],
    is_this_boot: bool,
    own: &[SocketAddr],
    remote: SocketAddr,
) -> Vec<SocketAddr> {
    let is_its_own = |at: &SocketAddr| is_this_boot && own.contains(at);
    known.iter().copied().filter(|at| *at != remote && !is_its_own(at)).collect()
}

fn refusal(name: &str, first: &Hello, place: &str, later: &Hello) -> String {
    let machine = match (&first.machine, &later.machine) {
        (Some(first), Some(later)) if first == later => "on this very machine",
        (Some(_), Some(_)) => "on another machine",
        _ => "on another host",
    };
    format!("an agent with the same node.key runs {machine}, {place}, and is {name} already")
}

/// Returns once the connection with this start has gone, or after a while if it does not go.
async fn parted(mesh: &Mesh, peer: NodeId, start: Start) {
    let gone = async {
        while mesh.peer(peer).is_some_and(|p| p.hello.start() == Some(start)) {
            tokio::time::sleep(PARTING_STEP).await;
        }
    };
    // If the connection does not go, the newcomer is refused once, and dials again.
    let _ = tokio::time::timeout(PARTING_MAX, gone).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 4747).into()
    }

    /// Found once: one member let the copy in, and all heard of its boot. The next member then knew
    /// that boot as the live one, and did not look for the original.
    #[test]
    fn a_copy_that_is_known_to_be_alive_does_not_hide_the_original() {
        assert_eq!(other_places(&[at(3), at(4)], true, &[at(9)], at(9)), [at(3), at(4)]);
        assert_eq!(other_places(&[at(3)], false, &[at(9)], at(9)), [at(3)]);
    }

    /// One of the node's networks may not reach here, and a look there would keep the node waiting.
    #[test]
    fn a_node_that_is_where_it_says_is_not_looked_for_elsewhere() {
        assert_eq!(other_places(&[at(3), at(4)], true, &[at(3), at(4)], at(3)), []);
        // After a restart of the node's agent other members still tell of the life before.
        assert_eq!(other_places(&[at(3), at(4)], false, &[at(3), at(4)], at(3)), [at(4)]);
    }
}
