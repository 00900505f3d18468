//! Which peers get past the hello: members of the same Data Center, and nodes that prove to be
//! members of whom this node has not heard yet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::links::canonical;
use peerage_proto::roster::Standing;
use peerage_proto::wire::{Hello, Refusal, RefusalCode};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::admission::past::Past;
use crate::door::evidence::{merge_proof, refuse_ended, refuse_stranger, shows_news};
use crate::door::refused::Refused;
use crate::door::twins::Twins;
use crate::host::clock::Clock;
use crate::membership::{End, Membership};
use crate::mesh::{Gate, Verdict};
use crate::repeats::Lines;

/// The gate of one agent, in a Data Center or not.
#[derive(Clone)]
pub struct NodeGate {
    /// This node.
    pub me: NodeId,
    /// The membership; none while the node is standalone.
    pub membership: watch::Receiver<Option<Arc<Membership>>>,
    /// Whether the node is just becoming a member.
    pub entering: watch::Receiver<bool>,
    /// How this node's last membership ended; none where it is in that Data Center again.
    pub past: watch::Receiver<Option<Arc<Past>>>,
    /// The time.
    pub clock: Clock,
    /// The log's lines about nodes that refuse this one, so that they do not repeat.
    pub refusals: Arc<Lines<(NodeId, String)>>,
}

impl NodeGate {
    fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.borrow().clone()
    }

    /// How this node's membership of a Data Center ended, if it was the last.
    fn past_in(&self, datacenter: DataCenterId) -> Option<Arc<Past>> {
        self.past.borrow().clone().filter(|past| past.datacenter == datacenter)
    }
}

impl Gate for NodeGate {
    async fn settled(&self) {
        // An error means that the node is gone: then nothing will change any more.
        let _ = self.entering.clone().wait_for(|entering| !entering).await;
    }

    fn hello(&self) -> Option<Hello> {
        let membership = self.membership()?;
        let hello = membership.hello();
        Some(Hello { wall_ms: self.clock.now().wall_ms, ..hello })
    }

    async fn judge(&self, peer: NodeId, hello: &Hello, remote: SocketAddr) -> Verdict {
        let Some(membership) = self.membership() else {
            let code = RefusalCode::Standalone;
            let plain = || Refusal::new(code, "this node is in no Data Center");
            let told = self.past_in(hello.datacenter).map(|past| past.refusal(code));
            return Verdict::Refuse(told.unwrap_or_else(plain));
        };
        if peer == self.me {
            let message = "this host has the same node.key: one of the two is a copy of the other";
            return Verdict::Refuse(Refusal::new(RefusalCode::DuplicateIdentity, message));
        }
        let twins = || Twins {
            members: membership.members.clone(),
            mesh: membership.mesh.clone(),
            chronicle: membership.chronicle.clone(),
        };
        let roster = membership.roster();
        if hello.datacenter != membership.datacenter {
            let message = format!(
                "this node belongs to {} ({})",
                roster.datacenter_name,
                membership.datacenter.short()
            );
            let past = self.past_in(hello.datacenter);
            let evidence = past.map(|past| past.evidence.clone()).unwrap_or_default();
            let refusal = Refusal::new(RefusalCode::WrongDataCenter, message);
            return Verdict::Refuse(Refusal { evidence, ..refusal });
        }
        if roster.is_current(&peer) {
            return alone(&twins(), peer, hello, remote).await;
        }
        // A node that is a stranger here, or that came back after it left, shows how it was
        // admitted.
        merge_proof(&membership.replica, &hello.proof).await;
        let roster = membership.roster();
        match roster.member(&peer).map(|member| &member.standing) {
            Some(Standing::Member) => alone(&twins(), peer, hello, remote).await,
            // The peer came back after it left, and a node let it in whose membership had ended by
            // then: that end is news to the peer, its own leaving is not.
            Some(Standing::Left(_)) if shows_news(&membership.replica, &hello.proof).await => {
                let proof = &hello.proof;
                Verdict::Refuse(refuse_stranger(&membership.replica, &roster, proof).await)
            }
            Some(standing) => {
                membership.calling.call_back(peer);
                Verdict::Refuse(refuse_ended(&membership.replica, &roster, peer, standing).await)
            }
            None => {
                let proof = &hello.proof;
                Verdict::Refuse(refuse_stranger(&membership.replica, &roster, proof).await)
            }
        }
    }

    fn is_members(&self, address: IpAddr) -> bool {
        let Some(membership) = self.membership() else { return false };
        let roster = membership.roster();
        let is_here = |at: SocketAddr| canonical(at).ip() == address;
        roster.current().any(|member| {
            let mut told = member.addresses.iter().filter_map(Address::ip);
            told.any(is_here)
                || member.seen.iter().copied().any(is_here)
                || member.addresses.iter().any(|at| at.name().is_some())
                    && membership.mesh.known(&member.addresses).into_iter().any(is_here)
        })
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        let Some(membership) = self.membership() else { return };
        let refusals = self.refusals.clone();
        tokio::spawn(async move {
            let name = membership.roster().name_of(&peer);
            match refusal.code {
                // The peer left, or is just joining: what there is to know of that comes as an
                // event.
                RefusalCode::Standalone => debug!("{name} does not take this node in: {refusal}"),
                _ => {
                    if let Some(repeated) = refusals.come((peer, refusal.to_string())) {
                        info!("{name} does not take this node in: {refusal}{repeated}");
                    }
                }
            }
            let refused = Refused {
                datacenter: membership.datacenter,
                members: membership.members.clone(),
                replica: membership.replica.clone(),
                objections: membership.objections.clone(),
            };
            refused.take_in(peer, &refusal).await;
            let is_twin = refusal.code == RefusalCode::DuplicateIdentity;
            if is_twin && membership.roster().is_current(&peer) {
                membership.end(End::Twin { by: name, cause: refusal.message });
            }
        });
    }
}

/// Welcomes a member that is the only one with its key.
async fn alone(twins: &Twins, peer: NodeId, hello: &Hello, remote: SocketAddr) -> Verdict {
    match twins.check(peer, hello, remote).await {
        Ok(()) => Verdict::Welcome,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}
