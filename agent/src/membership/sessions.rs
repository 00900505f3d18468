//! Sessions with members, in which each side gives the other what it lacks; pushes, which bring
//! what is new; and which members are known to hold what this node holds.

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

/// Brings this node's changes to other members, and their changes to this node.
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

    /// Runs a session with a member now. Returns whether the session came to its end: then the
    /// member has on its disk what this node had on its own disk.
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

    /// Runs a session on a stream, unless nothing large gets through to the peer: then the stream
    /// is reset, so that its data does not hold up small messages.
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
            // An error means that the stream has ended by itself.
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

    /// Whether a peer whose disk has the digest `theirs` holds what this node holds. Where that
    /// agreement is news, or someone on this node waits for receipts, it counts as the peer's
    /// receipt for all that this node holds.
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

    /// All that any other node was known to hold on its disk, since this agent started.
    pub fn seen_elsewhere(&self) -> Vector {
        self.receipts.seen_elsewhere()
    }
}
