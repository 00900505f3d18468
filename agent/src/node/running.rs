//! The running of a membership: its start, and what the node does when it ends by itself.
//!
//! A node that others put out puts itself aside: it is standalone from then on. A node that others
//! hold to be a copy of another host keeps apart, and its data stays.

use std::sync::Arc;

use peerage_proto::replica::Replica;
use peerage_proto::roster::Standing;
use peerage_proto::wire::CloseCode;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::disk::META_TWIN;
use super::notice::{LEFT_HINT, REMOVED_HINT, TWIN_HINT};
use super::{Node, NodeError, Notice};
use crate::host::clock::rfc3339;
use crate::host::machine::machine;
use crate::membership::{End, Membership, Parts};

impl Node {
    /// Starts the membership that a replica is of, shows it, and lets the others in.
    pub(super) async fn start(&self, replica: Replica) {
        let datacenter = replica.datacenter();
        let starting = Membership::start(Parts {
            key: self.parts.key.clone(),
            boot: self.parts.boot,
            instance: self.instance,
            machine: machine(datacenter).map(Vec::from),
            version: self.parts.version.clone(),
            addresses: self.parts.addresses.clone(),
            clock: self.parts.clock,
            look: self.parts.look,
            network: self.parts.network,
            replica,
            disk: Arc::new(self.disk(datacenter)),
            mesh: self.parts.mesh.clone(),
            inbound: self.parts.inbound.clone(),
            changes: self.changes.clone(),
            happenings: self.happenings.clone(),
            notices: self.notices.clone(),
            ended: self.ended.clone(),
        });
        let (membership, opening) = starting.await;
        self.parts.membership.send_replace(Some(membership.clone()));
        membership.open(opening);
    }

    /// Puts itself aside after its membership was ended by others.
    async fn park(&self, standing: &Standing) -> Result<(), NodeError> {
        let mut turn = self.turning.lock().await;
        let Some(membership) = self.membership() else { return Ok(()) };
        let roster = membership.roster();
        if roster.is_current(&self.id()) {
            // The end was told of a membership that ended meanwhile, not of this one.
            return Ok(());
        }
        let datacenter = &roster.datacenter_name;
        let (removed, ending) = match standing {
            Standing::Removed(ending) => (true, ending),
            Standing::Left(ending) => (false, ending),
            Standing::Member => return Ok(()),
        };
        let (on, at) = (roster.name_of(&ending.by), rfc3339(ending.at_ms));
        let notice = if removed {
            Notice {
                message: format!(
                    "this node was removed from {datacenter} by {} on {on} at {at}",
                    ending.who
                ),
                hint: REMOVED_HINT.into(),
                removed,
            }
        } else {
            Notice {
                message: format!("this node left {datacenter} on {at}, as the others tell it"),
                hint: LEFT_HINT.into(),
                removed,
            }
        };
        let how = match removed {
            true => format!("was removed from {datacenter} by {} on {on}", ending.who),
            false => format!("left {datacenter}: {} on {on}", ending.who),
        };
        let past = self.past_of(&membership.replica, membership.datacenter, how).await;
        membership.stop(false).await;
        self.parts.mesh.disconnect_all(CloseCode::Leaving, "no longer a member");
        warn!("{}", notice.message);
        let reason = if removed { "removed" } else { "left" };
        self.tell(reason, notice.message.clone());
        self.step_out(&mut turn, notice, past, reason).await.map(drop)
    }

    /// Keeps apart from the other members, which know another host by this node's key. This node's
    /// data stays.
    async fn keep_apart(&self, by: &str, cause: &str) {
        let _turn = self.turning.lock().await;
        let Some(membership) = self.membership() else { return };
        let datacenter = membership.roster().datacenter_name.clone();
        let notice = Notice {
            message: format!("{by} of {datacenter} refuses this node: {cause}"),
            hint: TWIN_HINT.into(),
            removed: false,
        };
        membership.stop(false).await;
        // The code is not that of a node that leaves, since the other host goes on under this
        // identity.
        self.parts.mesh.disconnect_all(CloseCode::Done, "another host has this identity");
        if let Err(error) = self.parts.store.commit(vec![notice.write(META_TWIN)]).await {
            error!(%error, "that this host was refused is forgotten at its next start");
        }
        self.twin.send_replace(Some(notice.clone()));
        self.parts.membership.send_replace(None);
        self.show_notices();
        error!("{}; {}", notice.message, notice.hint);
        self.tell("duplicate", notice.message);
    }
}

/// Does what each end of a membership asks for, until the disk fails or the node is gone.
pub(super) async fn follow_ends(node: Arc<Node>, mut ends: mpsc::Receiver<End>) {
    while let Some(end) = ends.recv().await {
        match end {
            End::Standing(standing) => {
                if let Err(error) = node.park(&standing).await {
                    error!(%error, "this node could not put itself aside");
                }
            }
            End::Twin { by, cause } => node.keep_apart(&by, &cause).await,
            End::Disk(cause) => {
                let _ = node.parts.broken.send(cause).await;
                return;
            }
        }
    }
}
