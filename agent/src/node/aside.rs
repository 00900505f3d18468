//! Stepping out of a Data Center: one commit makes the node standalone, and what it had there is
//! put aside after that.

use std::path::PathBuf;
use std::sync::Arc;

use peerage_proto::id::DataCenterId;
use tracing::{info, warn};

use super::disk::{META_DATACENTER, META_NOTICE, META_PAST};
use super::{Node, NodeError, Notice};
use crate::admission::past::Past;
use crate::host::clock::rfc3339;
use crate::membership::End;
use crate::replica::ReplicaHandle;
use crate::store::Write;

/// What a task must know that founds, joins, leaves or puts this node aside.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Why the last membership ended, as long as the store still holds what the node had in it,
    /// because that could not be put aside. No other membership begins before that is done.
    pub(super) left_over: Option<&'static str>,
}

impl Node {
    /// What this node will tell peers that still take it for a member of the Data Center that it is
    /// about to leave.
    pub(super) async fn past_of(
        &self,
        replica: &ReplicaHandle,
        datacenter: DataCenterId,
        how: String,
    ) -> Past {
        let me = self.id();
        let without = Past { datacenter, how: how.clone(), evidence: Vec::new() };
        let past = replica.read(move |replica| Past::of(replica, &me, how)).await;
        past.unwrap_or_else(|error| {
            warn!(%error, "the end of this node's membership cannot be shown");
            without
        })
    }

    /// Becomes standalone; what the replica held is put aside.
    pub(super) async fn step_out(
        &self,
        turn: &mut Turn,
        notice: Notice,
        past: Past,
        reason: &'static str,
    ) -> Result<PathBuf, NodeError> {
        let writes = vec![
            Write::MetaDelete { name: META_DATACENTER },
            notice.write(META_NOTICE),
            Write::Meta { name: META_PAST, value: past.encode() },
        ];
        if let Err(error) = self.parts.store.commit(writes).await {
            // The tasks of the membership have ended, and the membership cannot be ended on disk:
            // only a new start of the agent helps.
            let _ = self.ended.try_send(End::Disk(error.to_string().into()));
            return Err(error.into());
        }
        self.parts.past.send_replace(Some(Arc::new(past)));
        self.parts.membership.send_replace(None);
        self.notice.send_replace(Some(notice));
        self.show_notices();
        self.put_aside(turn, reason).await
    }

    /// Puts aside what the last membership left in the store, and tells where.
    pub(super) async fn put_aside(
        &self,
        turn: &mut Turn,
        reason: &'static str,
    ) -> Result<PathBuf, NodeError> {
        turn.left_over = Some(reason);
        let at = rfc3339(self.now().wall_ms).replace(':', "");
        let put = self.parts.store.archive(&format!("{reason}-{at}")).await;
        let backup = put.map_err(NodeError::PutAside)?;
        turn.left_over = None;
        info!(backup = %backup.display(), "what it had is kept");
        Ok(backup)
    }

    /// Makes room in the store for another membership.
    pub(super) async fn make_room(&self, turn: &mut Turn) -> Result<(), NodeError> {
        match turn.left_over {
            Some(reason) => self.put_aside(turn, reason).await.map(drop),
            None => Ok(()),
        }
    }
}
