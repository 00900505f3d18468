//! How much room the settings take on this node, and how it gets room back.

use peerage_proto::access::Caller;
use peerage_proto::api::settings::{CompactSettings, Compacted, Room};
use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::replica::Replica;

use super::failure::{member, not_written};
use super::{Agent, Answer, Serve};
use crate::node::Node;
use crate::replica::ReplicaHandle;

/// The room that a replica takes, with the size of its journal.
pub(super) fn room(replica: &Replica, journal_bytes: u64) -> Room {
    let room = replica.room();
    Room {
        live_bytes: room.settings.live as u64,
        limit_bytes: room.limit as u64,
        history_bytes: (room.settings.history + room.records.history) as u64,
        marker_bytes: (room.settings.markers + room.records.markers) as u64,
        record_bytes: room.records.live as u64,
        reserve_bytes: room.reserve as u64,
        journal_bytes,
    }
}

impl Serve<CompactSettings> for Agent {
    async fn serve(&self, _: &Caller, _: CompactSettings) -> Answer<Compacted> {
        let membership = member(&self.node)?;
        let before = now(&self.node, &membership.replica).await?;
        let forgotten = membership.replica.compact().await.map_err(not_written)?;
        self.node.compact_journal().await.map_err(|error| {
            let message =
                format!("the history is forgotten, but the journal is as large as it was: {error}");
            ApiError::new(ErrorCode::Failed, message)
                .hint("rewriting it needs room for a second one beside it, for a moment")
        })?;
        Ok(Compacted { forgotten, before, after: now(&self.node, &membership.replica).await? })
    }
}

async fn now(node: &Node, replica: &ReplicaHandle) -> Answer<Room> {
    let journal_bytes = node.journal_bytes();
    replica.read(move |replica| room(replica, journal_bytes)).await.map_err(not_written)
}
