//! Sessions with members, in which each side gives the other what it lacks, and pushes, which bring
//! what is new; and who is known to hold what this node holds.

use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Replica, Vector};
use peerage_proto::wire::{StreamCode, StreamKind};
use quinn::{RecvStream, SendStream};
use tracing::{debug, info};

use super::members::Members;
use super::outbound::MeshOutbox;
use crate::mesh::Mesh;
use crate::replica::ReplicaHandle;
use crate::replica::receipts::Receipts;
use crate::replica::sync::{SessionReport, SyncError, session, take_push};

/// What brings the replica to other members and theirs here.
#[derive(Clone)]
pub struct Sessions {
    members: Members,
    replica: ReplicaHandle,
    receipts: Arc<Receipts>,
    mesh: Mesh,
}

impl Sessions {
    /// The sessions of one replica, whose receipts are counted.
    pub(super) fn new(
        members: Members,
        replica: ReplicaHandle,
        receipts: Arc<Receipts>,
        mesh: Mesh,
    ) -> Self {
        Self { members, replica, receipts, mesh }
    }

    /// Runs a session with a member now. Tells whether it came to its end: then the member has on its
    /// disk what this node had on its own.
    pub async fn synchronise(&self, peer: NodeId) -> bool {
        let outcome = match self.mesh.open(peer, StreamKind::Sync).await {
            Ok((send, recv)) => self.run(peer, send, recv).await,
            Err(error) => {
                debug!(peer = %peer.short(), %error, "no session");
                return false;
            }
        };
        match &outcome {
            Ok(report) if report.sent + report.received > 0 => {
                info!(
                    peer = self.members.roster().name_of(&peer),
                    sent = report.sent,
                    received = report.received,
                    "caught up"
                );
            }
            Ok(_) => {}
            Err(error) => debug!(peer = %peer.short(), %error, "a session ended early"),
        }
        outcome.is_ok()
    }

    /// Runs a session on a stream, unless nothing large gets through to the peer: then what was sent
    /// is taken back, so that it is not in the way of what is small.
    pub(super) async fn run(
        &self,
        peer: NodeId,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<SessionReport, SyncError> {
        let outcome = tokio::select! {
            biased;
            () = self.mesh.holds_back(peer) => None,
            outcome = session(peer, &mut send, &mut recv, &self.replica, &self.receipts) => {
                Some(outcome)
            }
        };
        outcome.unwrap_or_else(|| {
            // It may have ended by itself.
            let _ = send.reset(StreamCode::TooSlow.number().into());
            let _ = recv.stop(StreamCode::TooSlow.number().into());
            Err(SyncError::Stalled)
        })
    }

    /// Takes in one frame that a member pushed: changes or receipts.
    pub(super) async fn take_push(&self, from: NodeId, frame: &[u8]) -> Result<(), SyncError> {
        let outbox = MeshOutbox(self.mesh.clone());
        take_push(self.members.me, from, frame, &self.replica, &self.receipts, &outbox).await
    }

    /// The digest of what is on this node's disk.
    pub(super) fn digest(&self) -> String {
        self.replica.progress().borrow().digest.clone()
    }

    /// Whether a peer whose disk has this digest holds what this node holds. Where that is
    /// news, or someone here waits for receipts, it counts as one of all that this node holds.
    pub(super) async fn agrees(&self, peer: NodeId, theirs: &[u8]) -> bool {
        if self.digest().as_bytes() != theirs {
            return false;
        }
        if self.receipts.are_awaited() || !self.receipts.knows_agreement(theirs) {
            let both = |replica: &Replica| (replica.digest(), replica.durable_vector().clone());
            // An error means that this node stops.
            if let Ok((ours, vector)) = self.replica.read(both).await
                && ours.as_bytes() == theirs
            {
                self.receipts.note_vector(peer, &vector);
                self.receipts.note_agreement(theirs);
            }
        }
        true
    }

    /// What another node was known to hold since this agent started.
    pub fn seen_elsewhere(&self) -> Vector {
        self.receipts.seen_elsewhere()
    }
}
