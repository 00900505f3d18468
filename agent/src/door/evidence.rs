//! Proofs of who belongs and who no longer does, as this node shows them to nodes that dial it and
//! hears them from those: chains of admissions, and the changes by which memberships ended.
//!
//! Nothing is taken in from a node that is not a member here: a node that was put out has no say.

use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{Roster, Standing, ending_of};
use peerage_proto::wire::{Refusal, RefusalCode};
use serde_bytes::ByteBuf;
use tracing::warn;

use crate::admission::past::PROOF_CHANGES_MAX;
use crate::replica::ReplicaHandle;

/// Merges those admissions of a proof that a current member wrote. The roster is asked again after
/// each: an admission may be genuine and yet be of another Data Center, or of a node that was
/// removed since, and then the node that it admits gets no right to admit the next one.
pub(super) async fn merge_proof(replica: &ReplicaHandle, proof: &[ByteBuf]) {
    for bytes in proof.iter().take(PROOF_CHANGES_MAX) {
        let Ok(change) = SignedChange::verify(Arc::from(bytes.as_slice())) else { return };
        let writer = change.dot.writer.node;
        if !admits(&change) || !replica.views().borrow().roster.is_current(&writer) {
            continue;
        }
        if let Err(error) = replica.merge_proof(vec![change], true).await {
            return warn!(%error, "the proof of a new member could not be kept");
        }
    }
}

/// Whether a change lets a node in.
pub(super) fn admits(change: &SignedChange) -> bool {
    change.path.as_str().starts_with("@member/") && change.set.contains_key("admitted")
}

/// Whether this node never heard of the admission that a node shows, which is the last of its
/// proof. After [`merge_proof`] that means that nobody wrote it who could let anyone in.
pub(super) async fn shows_news(replica: &ReplicaHandle, proof: &[ByteBuf]) -> bool {
    let shown = proof.iter().take(PROOF_CHANGES_MAX).next_back();
    let Some(own) = shown.and_then(|b| SignedChange::verify(Arc::from(b.as_slice())).ok()) else {
        return false;
    };
    let is_known = replica.read(move |replica| {
        replica.vector().covers(&own.dot) || replica.change(&own.dot).is_some()
    });
    is_known.await.is_ok_and(|is_known| !is_known)
}

/// Tells a node how its membership ended, with the change that ended it.
pub(super) async fn refuse_ended(
    replica: &ReplicaHandle,
    roster: &Roster,
    peer: NodeId,
    standing: &Standing,
) -> Refusal {
    let code = match standing {
        Standing::Removed(_) => RefusalCode::Removed,
        Standing::Left(_) => RefusalCode::Left,
        Standing::Member => return Refusal::new(RefusalCode::Busy, "ask again"),
    };
    let evidence = ending(replica, peer).await;
    let how = how_it_ended(roster, standing);
    Refusal { evidence, ..Refusal::new(code, how.trim_start_matches("was ")) }
}

/// Tells a stranger that the admission that it shows does not count here. Where the membership of
/// the admission's writer had ended before, as this node heard it, the change that ended it comes
/// along.
pub(super) async fn refuse_stranger(
    replica: &ReplicaHandle,
    roster: &Roster,
    proof: &[ByteBuf],
) -> Refusal {
    let message = "this node has not heard of an admission of yours";
    // The stranger's own admission comes last, and before it the admission of the node that let it
    // in.
    for bytes in proof.iter().take(PROOF_CHANGES_MAX).rev() {
        let Ok(change) = SignedChange::verify(Arc::from(bytes.as_slice())) else { break };
        let writer = change.dot.writer.node;
        let Some(admitter) = roster.member(&writer) else { continue };
        if admitter.is_current() {
            break;
        }
        let how = how_it_ended(roster, &admitter.standing);
        let message = format!("{message} before {} {how}", admitter.name);
        let evidence = ending(replica, writer).await;
        return Refusal { evidence, ..Refusal::new(RefusalCode::NotMember, message) };
    }
    Refusal::new(RefusalCode::NotMember, message)
}

/// The change that ended a membership, as evidence.
async fn ending(replica: &ReplicaHandle, node: NodeId) -> Vec<ByteBuf> {
    let change = replica.read(move |replica| ending_of(replica, &node)).await.ok().flatten();
    change.map(|change| ByteBuf::from(change.bytes().to_vec())).into_iter().collect()
}

/// How a membership ended, in words that follow on the node's name.
fn how_it_ended(roster: &Roster, standing: &Standing) -> String {
    let datacenter = &roster.datacenter_name;
    let on = |node| roster.name_of(node);
    match standing {
        Standing::Removed(e) => {
            format!("was removed from {datacenter} by {} on {}", e.who, on(&e.by))
        }
        Standing::Left(e) => format!("left {datacenter}: {} on {}", e.who, on(&e.by)),
        Standing::Member => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use peerage_proto::id::DataCenterId;
    use peerage_proto::identity::Keypair;
    use peerage_proto::replica::{Actor, Edit, Limits, Replica};
    use peerage_proto::roster::member_path;

    use super::*;
    use crate::host::clock::Clock;
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
        assert!(replica.views().borrow().roster.is_current(&key(3).node_id()));
    }

    /// The removed node's admission was genuine, and is still on its disk: if it shows that
    /// admission again, its word must not count for that.
    #[tokio::test]
    async fn a_removed_node_brings_nobody_in_by_showing_its_own_old_admission() {
        let mut founder = Pen::new(1, 1);
        let _ = founder.admit(1);
        let old = founder.admit(2);
        let _ = founder.write(2, Roster::removal(key(1).node_id(), "root", 1));
        let proof = [old, Pen::new(2, 1).admit(3)];
        let replica = founder.serve();
        merge_proof(&replica, &proof).await;
        assert_eq!(replica.views().borrow().roster.member(&key(3).node_id()), None);
    }

    #[tokio::test]
    async fn an_admission_to_another_data_center_opens_no_door_here() {
        let mut founder = Pen::new(1, 1);
        let _ = founder.admit(1);
        let proof = [Pen::new(1, 9).admit(2), Pen::new(2, 1).admit(3)];
        let replica = founder.serve();
        merge_proof(&replica, &proof).await;
        assert_eq!(replica.views().borrow().roster.current().count(), 1);
    }
}
