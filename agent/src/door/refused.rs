//! What a member learns when a peer that it dialled refuses it: how its own membership ended, how
//! that of the node that admitted it ended, or how that of the peer ended.
//!
//! Nothing is taken in from a node that is not a member here: a node that was put out has no say.

use std::sync::Arc;

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{Standing, admission_chain, member_path};
use peerage_proto::wire::{Refusal, RefusalCode};
use serde_bytes::ByteBuf;
use tracing::{info, warn};

use crate::admission::past::PROOF_CHANGES_MAX;
use crate::door::evidence::admits;
use crate::membership::{Grounds, Members, Objections};
use crate::replica::ReplicaHandle;

/// A member that was refused.
pub(super) struct Refused {
    pub(super) datacenter: DataCenterId,
    pub(super) members: Members,
    pub(super) replica: ReplicaHandle,
    pub(super) objections: Objections,
}

impl Refused {
    /// Takes in what came with the refusal.
    pub(super) async fn take_in(&self, peer: NodeId, refusal: &Refusal) {
        let changes = self.verified(&refusal.evidence);
        match refusal.code {
            RefusalCode::Removed | RefusalCode::Left => {
                self.own_end(peer, ends_of(changes, self.members.me)).await;
            }
            RefusalCode::NotMember => self.void_admission(peer, changes).await,
            RefusalCode::Standalone | RefusalCode::WrongDataCenter => {
                self.farewell(peer, changes).await;
            }
            _ => {}
        }
    }

    /// Merges the change by which this node's membership ended, as any change that comes from a
    /// member. Its writer need not be known here: it may have joined after this node last heard of
    /// anything.
    async fn own_end(&self, peer: NodeId, changes: Vec<SignedChange>) {
        let roster = self.members.roster();
        if changes.is_empty() {
            return warn!(
                "refused as one who left or was removed, with no evidence that holds; staying"
            );
        }
        if roster.is_current(&peer) {
            self.merge(changes, false).await;
        } else if matches!(roster.member(&peer).map(|m| &m.standing), Some(Standing::Removed(_))) {
            let by = changes.iter().find_map(removed_on).unwrap_or(peer);
            self.objections.note(peer, Grounds::PutOutBoth { by });
        }
    }

    /// The peer does not accept this node's admission: of the nodes that admitted this one,
    /// directly or through others, one was out before the peer heard of the admission.
    async fn void_admission(&self, peer: NodeId, changes: Vec<SignedChange>) {
        let me = self.members.me;
        let chain = self.replica.read(move |r| admission_chain(r, &me, PROOF_CHANGES_MAX)).await;
        let admitters: Vec<_> = chain.into_iter().flatten().map(|c| c.dot.writer.node).collect();
        let found = admitters.into_iter().rev().filter(|node| *node != me).find_map(|node| {
            let ends = ends_of(changes.clone(), node);
            (!ends.is_empty()).then_some((node, ends))
        });
        let Some((admitter, ends)) = found else { return };
        if self.members.roster().is_current(&peer) {
            self.merge(ends, true).await;
            self.objections.note(peer, Grounds::AdmittedBy(admitter));
        }
    }

    /// The peer is no member any more, by its own word. Its admissions of other nodes are merged
    /// with its end: it wrote them while it was a member, as far as anyone here had heard.
    async fn farewell(&self, peer: NodeId, changes: Vec<SignedChange>) {
        let ends = ends_of(changes.clone(), peer);
        let roster = self.members.roster();
        if ends.is_empty() || !roster.is_current(&peer) {
            return;
        }
        let admissions =
            changes.into_iter().filter(|change| change.dot.writer.node == peer && admits(change));
        let changes = admissions.chain(ends).collect();
        info!(peer = roster.name_of(&peer), "tells how its membership ended");
        self.merge(changes, true).await;
    }

    async fn merge(&self, changes: Vec<SignedChange>, relay: bool) {
        if let Err(error) = self.replica.merge_proof(changes, relay).await {
            warn!(%error, "the end of a membership could not be kept");
        }
    }

    /// The changes that are signed as they say, and belong to this Data Center.
    fn verified(&self, evidence: &[ByteBuf]) -> Vec<SignedChange> {
        let changes = evidence.iter().take(PROOF_CHANGES_MAX);
        let changes = changes.filter_map(|b| SignedChange::verify(Arc::from(b.as_slice())).ok());
        changes.filter(|change| change.datacenter == self.datacenter).collect()
    }
}

/// The changes by which the membership of a node ends.
fn ends_of(changes: Vec<SignedChange>, node: NodeId) -> Vec<SignedChange> {
    let path = member_path(&node);
    let ends = |change: &SignedChange| {
        change.path == path && ["removed", "left"].iter().any(|f| change.set.contains_key(*f))
    };
    changes.into_iter().filter(ends).collect()
}

/// The node on which a removal was asked for.
fn removed_on(change: &SignedChange) -> Option<NodeId> {
    change.set.get("removed")?.get("by")?.as_str()?.parse().ok()
}
