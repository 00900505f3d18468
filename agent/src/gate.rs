//! Who gets past the hello: members of the same Data Center, and who proves to be one of whom this
//! node has not heard yet.

use std::net::SocketAddr;
use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{Roster, Standing, member_path};
use peerage_proto::wire::{Hello, Refusal, RefusalCode};
use serde_bytes::ByteBuf;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::membership::{End, Membership};
use crate::mesh::{Gate, Verdict};
use crate::replica::ReplicaHandle;
use crate::twins;

/// How many changes of a proof, or of evidence, are looked at.
const PROOF_CHANGES_MAX: usize = 8;

/// The gate of one agent, in a Data Center or not.
#[derive(Clone)]
pub struct NodeGate {
    /// This node.
    pub me: NodeId,
    /// The membership; none while the node is standalone.
    pub membership: watch::Receiver<Option<Arc<Membership>>>,
    /// Whether the node is just becoming a member.
    pub entering: watch::Receiver<bool>,
    /// The time.
    pub clock: Clock,
}

impl NodeGate {
    fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.borrow().clone()
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
            let message = "this node is in no Data Center";
            return Verdict::Refuse(Refusal::new(RefusalCode::Standalone, message));
        };
        if peer == self.me {
            let message = "this host has the same node.key: one of the two is a copy of the other";
            return Verdict::Refuse(Refusal::new(RefusalCode::DuplicateIdentity, message));
        }
        let roster = membership.roster();
        if hello.datacenter != membership.datacenter {
            let message = format!(
                "this node belongs to {} ({})",
                roster.datacenter_name,
                membership.datacenter.short()
            );
            return Verdict::Refuse(Refusal::new(RefusalCode::WrongDataCenter, message));
        }
        if roster.is_current(&peer) {
            return alone(&membership, peer, hello, remote).await;
        }
        // Who is a stranger here, or came back after it left, shows how it was admitted.
        merge_proof(&membership.replica, &hello.proof).await;
        let roster = membership.roster();
        match roster.member(&peer).map(|member| &member.standing) {
            Some(Standing::Member) => alone(&membership, peer, hello, remote).await,
            Some(standing) => {
                Verdict::Refuse(ended(&membership.replica, &roster, peer, standing).await)
            }
            None => {
                let message = "this node has not heard of an admission of yours";
                Verdict::Refuse(Refusal::new(RefusalCode::NotMember, message))
            }
        }
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        let Some(membership) = self.membership() else { return };
        let me = self.me;
        tokio::spawn(async move {
            let name = membership.roster().name_of(&peer);
            info!(peer = name, cause = %refusal, "refused");
            match refusal.code {
                RefusalCode::Removed | RefusalCode::Left => {
                    merge_evidence(&membership, peer, me, &refusal.evidence).await;
                }
                RefusalCode::DuplicateIdentity if membership.roster().is_current(&peer) => {
                    membership.end(End::Twin { by: name, cause: refusal.message });
                }
                _ => {}
            }
        });
    }
}

/// Welcomes a member that is the only one with its key.
async fn alone(
    membership: &Membership,
    peer: NodeId,
    hello: &Hello,
    remote: SocketAddr,
) -> Verdict {
    match twins::check(membership, peer, hello, remote).await {
        Ok(()) => Verdict::Welcome,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

/// Tells a node whose membership ended how it did, with the change that ended it.
async fn ended(
    replica: &ReplicaHandle,
    roster: &Roster,
    peer: NodeId,
    standing: &Standing,
) -> Refusal {
    let (code, ending, field) = match standing {
        Standing::Removed(ending) => (RefusalCode::Removed, ending, "removed"),
        Standing::Left(ending) => (RefusalCode::Left, ending, "left"),
        Standing::Member => return Refusal::new(RefusalCode::Busy, "ask again"),
    };
    let message = format!(
        "{} from {} by {} on {}",
        if code == RefusalCode::Removed { "removed" } else { "left" },
        roster.datacenter_name,
        ending.who,
        roster.name_of(&ending.by)
    );
    let evidence = replica.read(move |replica| {
        let document = replica.document(&member_path(&peer))?;
        let found = document.fields().find(|(name, _, _)| name.as_str() == field);
        found.map(|(_, _, change)| ByteBuf::from(change.bytes().to_vec()))
    });
    let evidence = evidence.await.ok().flatten().into_iter().collect();
    Refusal { evidence, ..Refusal::new(code, message) }
}

/// Merges the admissions of a proof, each of which must be written by a current member. The roster
/// is asked again after each: an admission may be genuine and yet of another Data Center, or of a
/// node that was removed since, and then it gives nobody the right to admit the next.
async fn merge_proof(replica: &ReplicaHandle, proof: &[ByteBuf]) {
    for bytes in proof.iter().take(PROOF_CHANGES_MAX) {
        let Ok(change) = SignedChange::verify(Arc::from(bytes.as_slice())) else { return };
        let admits = change.path.as_str().starts_with("@member/")
            && change.set.contains_key("admitted")
            && replica.roster().borrow().is_current(&change.dot.writer.node);
        if !admits {
            continue;
        }
        if let Err(error) = replica.merge(vec![change], true).await {
            return warn!(%error, "the proof of a new member could not be kept");
        }
    }
}

/// Merges the change by which this node's membership ended, as any change that comes from a member:
/// whoever wrote it may have joined after this node last heard of anything.
async fn merge_evidence(membership: &Membership, peer: NodeId, me: NodeId, evidence: &[ByteBuf]) {
    let mine = member_path(&me);
    let changes: Vec<_> = evidence
        .iter()
        .take(PROOF_CHANGES_MAX)
        .filter_map(|bytes| SignedChange::verify(Arc::from(bytes.as_slice())).ok())
        .filter(|change| change.path == mine && change.datacenter == membership.datacenter)
        .filter(|change| ["removed", "left"].iter().any(|field| change.set.contains_key(*field)))
        .collect();
    if changes.is_empty() || !membership.roster().is_current(&peer) {
        warn!("refused as one who left or was removed, with no evidence that holds; staying");
    } else if let Err(error) = membership.replica.merge(changes, false).await {
        warn!(%error, "the end of this node's membership could not be kept");
    }
}

#[cfg(test)]
mod tests {
    use peerage_proto::id::DataCenterId;
    use peerage_proto::identity::Keypair;
    use peerage_proto::replica::{Actor, Edit, Limits, Replica};

    use super::*;
    use crate::replica::memory;

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    /// A replica written by one node, and its changes as bytes of a proof.
    struct Pen(Replica, Clock);

    impl Pen {
        fn new(n: u8, datacenter: u8) -> Self {
            let id = DataCenterId([datacenter; 16]);
            Self(Replica::new(id, key(n), Limits::default()), Clock::start())
        }

        fn write(&mut self, member: u8, edit: Edit) -> ByteBuf {
            let actor = Actor { who: "root".into(), via: "test".into() };
            let path = member_path(&key(member).node_id());
            let written = self.0.write(&path, edit, actor, rand::random(), self.1.now());
            let (written, outputs) = written.expect("the write is in bounds");
            self.0.committed(&outputs.commit);
            ByteBuf::from(written.change.expect("it says something new").bytes().to_vec())
        }

        fn admit(&mut self, member: u8) -> ByteBuf {
            let name = format!("n{member}").parse().expect("a name");
            let (id, by) = (key(member).node_id(), self.0.node_id());
            let edit = Roster::of(&self.0).admission(&id, &name, &[], by, None, 1);
            self.write(member, edit)
        }

        fn serve(self) -> ReplicaHandle {
            memory::serve(self.0, self.1)
        }
    }

    #[tokio::test]
    async fn a_stranger_is_known_by_a_chain_of_admissions_that_begins_at_a_member() {
        let mut founder = Pen::new(1, 1);
        let _ = founder.admit(1);
        let mut second = Pen::new(2, 1);
        let mut elsewhere = Pen::new(1, 1);
        let proof = [elsewhere.admit(2), second.admit(3)];
        let replica = founder.serve();
        merge_proof(&replica, &proof).await;
        assert!(replica.roster().borrow().is_current(&key(3).node_id()));
    }

    /// Its admission was genuine, and is still on its disk: shown again, it must not make the
    /// removed node's word count.
    #[tokio::test]
    async fn a_removed_node_brings_nobody_in_by_showing_its_own_old_admission() {
        let mut founder = Pen::new(1, 1);
        let _ = founder.admit(1);
        let old = founder.admit(2);
        let _ = founder.write(2, Roster::removal(key(1).node_id(), "root", 1));
        let proof = [old, Pen::new(2, 1).admit(3)];
        let replica = founder.serve();
        merge_proof(&replica, &proof).await;
        assert_eq!(replica.roster().borrow().member(&key(3).node_id()), None);
    }

    #[tokio::test]
    async fn an_admission_to_another_data_center_opens_no_door_here() {
        let mut founder = Pen::new(1, 1);
        let _ = founder.admit(1);
        let proof = [Pen::new(1, 9).admit(2), Pen::new(2, 1).admit(3)];
        let replica = founder.serve();
        merge_proof(&replica, &proof).await;
        assert_eq!(replica.roster().borrow().current().count(), 1);
    }
}
