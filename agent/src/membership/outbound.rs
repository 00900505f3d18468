//! What leaves for members: datagrams of the failure detector, messages of the vitals and pushes of
//! the replica, each carried by the mesh. None of it waits for a peer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use peerage_proto::id::NodeId;
use peerage_proto::wire::StreamKind;
use tokio::sync::watch;
use tokio::time::Instant;

use super::liveness::Datagrams;
use super::openings::Openings;
use super::vitals::Messages;
use crate::mesh::Mesh;
use crate::replica::sync::Outbox;

/// The mesh as the outbox of pushes.
pub(super) struct MeshOutbox(pub(super) Mesh);

impl Outbox for MeshOutbox {
    fn enqueue(&self, peer: NodeId, frame: Bytes) {
        self.0.push(peer, frame);
    }
}

/// The mesh as the carrier of the failure detector's datagrams. A datagram may open a connection,
/// as far as the openings admit that.
pub(super) struct MeshDatagrams {
    mesh: Mesh,
    others: watch::Receiver<BTreeSet<NodeId>>,
    openings: Mutex<Openings>,
}

impl MeshDatagrams {
    /// For a Data Center of these other members.
    pub(super) fn new(mesh: Mesh, others: watch::Receiver<BTreeSet<NodeId>>) -> Self {
        Self { mesh, others, openings: Mutex::new(Openings::new(Instant::now())) }
    }

    fn may_open(&self, datagram: &[u8]) -> bool {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.others.borrow().len();
        openings.admit(datagram, others, self.mesh.lateness(), Instant::now())
    }
}

impl Datagrams for MeshDatagrams {
    fn send_datagram(&self, node: NodeId, datagram: Bytes) {
        if self.mesh.is_connected(node) || self.may_open(&datagram) {
            self.mesh.send_datagram(node, datagram);
        }
    }
}

/// The mesh as the carrier of vitals.
pub(super) struct MeshMessages(pub(super) Mesh);

impl Messages for MeshMessages {
    fn send_message(&self, node: NodeId, message: Bytes) {
        self.0.send_message(node, StreamKind::Chitchat, message);
    }

    fn has_time(&self) -> bool {
        // The choice is random: vitals count their rounds, and if this counted too, the two counts
        // could skip the same kind of round for ever.
        rand::random_range(0..self.0.lateness()) == 0
    }
}
