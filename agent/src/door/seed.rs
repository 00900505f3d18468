//! This node as a seed: serves nodes that dial with the join protocol, with what the mesh knows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::admission::exchange::{UsesAnswer, UsesQuestion};
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::liveness::State;
use peerage_proto::skew::ClockOff;
use peerage_proto::time::HowLong;
use peerage_proto::wire::{CloseCode, RefusalCode, StreamKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::admission::{Admitter, Presence, Surroundings, refuse_as_standalone};
use crate::door::twins::Twins;
use crate::host::clock::Clock;
use crate::membership::timekeeping::ClockStanding;
use crate::membership::{Members, Objections};
use crate::mesh::{Bind, Closed, DialError, IncomingJoin, Mesh, Router};
use crate::node::Node;
use crate::repeats::Lines;

/// How long a member that is to be replaced may take to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a host may take from its agent's goodbye until it is back, such as for a reboot.
const RESTART_MAX: Duration = Duration::from_secs(300);

/// How many refusals of joiners the log tells apart, by the joiner's address and the reason:
/// strangers may come from hundreds of addresses, and each would have a line of its own.
const REFUSALS_TOLD_APART: usize = 8;

/// Serves joiners as they come, for as long as the mesh lives. Each joiner is dialled back from a
/// socket of its own, which `bind` makes.
pub async fn serve_joiners(
    node: Arc<Node>,
    clock: Clock,
    bind: Bind,
    mut joiners: mpsc::Receiver<IncomingJoin>,
) {
    let refusals = Arc::new(Lines::of(REFUSALS_TOLD_APART));
    while let Some(IncomingJoin { connection, peer, remote, at_door }) = joiners.recv().await {
        let (node, bind, refusals) = (node.clone(), bind.clone(), refusals.clone());
        tokio::spawn(async move {
            let served = match node.membership() {
                Some(membership) => {
                    let (members, mesh) = (membership.members.clone(), membership.mesh.clone());
                    let surroundings = MeshSurroundings {
                        objections: membership.objections.clone(),
                        time: membership.time.clone(),
                        twins: Twins {
                            members: members.clone(),
                            mesh: mesh.clone(),
                            chronicle: membership.chronicle.clone(),
                        },
                        key: node.key().clone(),
                        members,
                        mesh,
                        clock,
                        bind,
                    };
                    let admitter = Admitter {
                        me: membership.me,
                        datacenter: membership.datacenter,
                        replica: membership.replica.clone(),
                        surroundings: Arc::new(surroundings),
                        names: membership.mesh.names().clone(),
                        pending: membership.pending.clone(),
                        refusals,
                        clock,
                    };
                    admitter.serve(&connection, peer, at_door).await
                }
                None => refuse_as_standalone(&connection, node.past()).await,
            };
            if let Err(error) = served {
                debug!(%remote, %error, "a joiner was not served to the end");
            }
            connection.close(CloseCode::Done.number().into(), b"done");
        });
    }
}

/// What the mesh knows and does for an admission.
struct MeshSurroundings {
    members: Members,
    objections: Objections,
    time: watch::Receiver<ClockStanding>,
    mesh: Mesh,
    twins: Twins,
    key: Keypair,
    clock: Clock,
    bind: Bind,
}

impl Surroundings for MeshSurroundings {
    /// Dials from a socket of its own: to this node's usual port the joiner has spoken already, so
    /// a firewall that lets in only answers would let in a dial from there.
    async fn dial_back(&self, node: NodeId, address: SocketAddr) -> Result<(), String> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let underlay = (self.bind)((any, 0).into()).map_err(|e| e.to_string())?;
        let nowhere = |_: NodeId| Vec::new();
        let stranger = Mesh::start(&self.key, underlay, Closed, nowhere, Router::new());
        let stranger = stranger.map_err(|e| e.to_string())?;
        let (tell, told) = oneshot::channel();
        // This runs on a task of its own: the caller stops waiting once another address answered,
        // or after a while, and the stranger with its socket must go away all the same. The goodbye
        // takes a round trip that the joiner need not wait for.
        tokio::spawn(async move {
            let dialled = stranger.dial_join(node, &[address.into()]).await;
            if let Ok(connection) = &dialled {
                connection.close(CloseCode::Done.number().into(), b"reached");
            }
            // An error means that the caller waits no longer.
            let _ = tell.send(dialled.map(drop).map_err(|error| error.to_string()));
            stranger.shutdown(CloseCode::Done, "done").await;
        });
        told.await.unwrap_or_else(|_| Err("the dial-back was cut off".into()))
    }

    async fn ask_uses(&self, member: NodeId, question: UsesQuestion) -> Option<UsesAnswer> {
        let question = question.encode();
        let answer = self.mesh.dial_and_ask(member, StreamKind::InviteUses, &question).await;
        UsesAnswer::decode(&answer.ok()?).ok()
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        self.members.alive()
    }

    fn clock_off(&self) -> Option<ClockOff> {
        self.time.borrow().refused()
    }

    async fn lives(&self, member: NodeId) -> Option<String> {
        self.twins.lives(member).await
    }

    async fn presence(&self, member: NodeId) -> Presence {
        if !self.objections.standing().is_empty() {
            // The member may be alive among the nodes that do not take this node in.
            return Presence::Lately("other nodes do not take in the one that was asked".into());
        }
        let standing = self.members.standing(&member);
        let since = standing.as_ref().map(|standing| standing.since).unwrap_or_default();
        let since = self.clock.now().mono.saturating_sub(since);
        match standing.map_or(State::Unknown, |standing| standing.state) {
            State::Alive => return Presence::There("it is alive".into()),
            State::Suspect => return Presence::There("it was alive a moment ago".into()),
            State::Unknown => {
                return Presence::Lately("nothing was heard of it here yet".into());
            }
            State::Left if since < RESTART_MAX => {
                return Presence::Lately(format!(
                    "its agent was stopped {} ago, and it counts as gone after {}",
                    HowLong(since),
                    HowLong(RESTART_MAX)
                ));
            }
            State::Down | State::Left => {}
        }
        // An old connection may lead nowhere: only an answer counts.
        let mesh = &self.mesh;
        match timeout(CALL_TIMEOUT, mesh.connect(member)).await {
            Ok(Ok(())) if mesh.answers(member, CALL_TIMEOUT).await => {
                Presence::There("it answers".into())
            }
            // The host has the member's key, and is in another Data Center or in none.
            Ok(Err(DialError::Refused(refusal))) if is_elsewhere(refusal.code) => Presence::Gone,
            Ok(Err(DialError::Refused(refusal) | DialError::RefusedHere(refusal))) => {
                Presence::There(format!("it answers: {refusal}"))
            }
            _ => Presence::Gone,
        }
    }
}

fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Standalone | RefusalCode::WrongDataCenter)
}
