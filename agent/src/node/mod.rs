//! This node: standalone, or a member of one Data Center; and the ways between the two.
//!
//! Founding, joining, leaving and being put out take turns here. Each is one commit on disk, so
//! after a crash the node is either standalone or a member.

mod aside;
#[cfg(test)]
mod damage;
mod disk;
mod entering;
mod error;
mod leaving;
mod meeting;
mod mending;
mod notice;
mod own_name;
mod parts;
mod renewal;
mod running;

use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Limits, SignedChange};
use peerage_proto::roster::NodeName;
use peerage_proto::time::Now;
use peerage_proto::wire::CloseCode;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::admission::past::Past;
use crate::feed::{Feed, Happening};
use crate::membership::{End, Membership};
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::store::{Image, StoreError};

pub use error::{MeetError, NodeError};
pub use leaving::Farewell;
pub use meeting::Meeting;
pub use mending::{META_BOOT, META_PORT, mend};
pub use notice::{Notice, TWIN_HINT};
pub use own_name::{NAMELESS_HINT, OwnName};
pub use parts::NodeParts;
pub use renewal::{KeyPlace, Renewed, reset_stopped};

use aside::Turn;
use disk::{META_DATACENTER, META_NOTICE, META_PAST, META_TWIN, loaded};
use running::follow_ends;

/// The node.
pub struct Node {
    parts: NodeParts,
    limits: Limits,
    /// Drawn at random at this start of the agent.
    instance: u64,
    changes: Feed<SignedChange>,
    happenings: Feed<Happening>,
    notices: Notices,
    notice: watch::Sender<Option<Notice>>,
    /// Set where this node keeps apart, because another host with its key was alive. It is kept on
    /// disk: a later start that does not find the other host must not take its place.
    twin: watch::Sender<Option<Notice>>,
    /// Held by the task that founds, joins, leaves or puts this node aside.
    turning: Mutex<Turn>,
    /// Whether the agent was told to stop.
    stopping: CancellationToken,
    ended: mpsc::Sender<End>,
}

impl Node {
    /// The node that a disk holds: if it was a member, it goes on as one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(parts: NodeParts, image: Image) -> Result<Arc<Self>, StoreError> {
        let (ended, ends) = mpsc::channel(4);
        let notice = Notice::read(&image, META_NOTICE);
        let twin = Notice::read(&image, META_TWIN);
        let happenings = Feed::new(parts.boot, Happening::bytes);
        let named = {
            let (membership, name) = (parts.membership.subscribe(), parts.name.clone());
            let me = parts.key.node_id();
            move || match &*membership.borrow() {
                Some(membership) => membership.roster().name_of(&me),
                None => name.shown(),
            }
        };
        let node = Arc::new(Self {
            limits: Limits::default(),
            instance: rand::random(),
            twin: watch::Sender::new(twin),
            changes: Feed::new(parts.boot, |change| change.bytes().len()),
            notices: Notices::new(happenings.clone(), parts.clock, named),
            happenings,
            notice: watch::Sender::new(notice),
            turning: Mutex::default(),
            stopping: CancellationToken::new(),
            ended,
            parts,
        });
        node.show_notices();
        let past = image.meta.get(META_PAST).and_then(|past| Past::decode(past));
        node.parts.past.send_replace(past.map(Arc::new));
        let id = image.meta.get(META_DATACENTER).and_then(|id| id.as_slice().try_into().ok());
        let twin = node.twin.borrow().clone();
        match (id.map(DataCenterId), twin) {
            (Some(_), Some(notice)) => error!("{}; {}", notice.message, notice.hint),
            (Some(datacenter), None) => {
                let replica = loaded(datacenter, node.disk(datacenter), image);
                node.start(replica).await;
            }
            // A departure was cut off after its commit: the data that it left in the store are put
            // aside now.
            (None, _) if !image.changes.is_empty() => {
                let mut turn = node.turning.lock().await;
                if let Err(error) = node.put_aside(&mut turn, "left").await {
                    error!("{error}");
                }
            }
            (None, _) => {}
        }
        tokio::spawn(follow_ends(node.clone(), ends));
        Ok(node)
    }

    /// The membership; none while standalone.
    pub fn membership(&self) -> Option<Arc<Membership>> {
        self.parts.membership.borrow().clone()
    }

    /// The membership, as a value to read or to wait on.
    pub fn memberships(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        self.parts.membership.subscribe()
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.parts.key.node_id()
    }

    /// This node's key.
    pub fn key(&self) -> &Keypair {
        &self.parts.key
    }

    /// The name that the node shows, or takes when it joins.
    pub fn name(&self) -> String {
        match self.membership() {
            Some(membership) => membership.roster().name_of(&self.id()),
            None => self.parts.name.shown(),
        }
    }

    /// The number of this start of the agent.
    pub fn boot(&self) -> u64 {
        self.parts.boot
    }

    /// Where this node is reached, the best address first.
    pub fn addresses(&self) -> Vec<Address> {
        self.parts.addresses.borrow().clone()
    }

    /// The version of the agent.
    pub fn version(&self) -> &str {
        &self.parts.version
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.parts.clock.now()
    }

    /// How this node's last membership ended; none where it is in that Data Center again.
    pub fn past(&self) -> Option<Arc<Past>> {
        self.parts.past.borrow().clone()
    }

    /// The states of this node that need a person.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Why this node is in no Data Center any more, where it was in one.
    pub fn notice(&self) -> Option<Notice> {
        self.twin.borrow().clone().or_else(|| self.notice.borrow().clone())
    }

    /// Whether this node keeps apart, because another host with its key is alive.
    pub fn has_twin(&self) -> bool {
        self.twin.borrow().is_some()
    }

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.parts.mesh
    }

    /// The changes of the settings.
    pub fn changes(&self) -> &Feed<SignedChange> {
        &self.changes
    }

    /// What happens.
    pub fn happenings(&self) -> &Feed<Happening> {
        &self.happenings
    }

    /// The name that this node takes where nobody gives it another.
    ///
    /// # Errors
    /// [`NodeError::Nameless`]: its host's name cannot name a node.
    pub fn own_name(&self) -> Result<NodeName, NodeError> {
        self.parts.name.read().map_err(NodeError::Nameless)
    }

    /// Stops: tells the others that the agent goes, and returns once everything is on disk.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let _turn = self.turning.lock().await;
        if let Some(membership) = self.membership() {
            membership.stop(true).await;
        }
        self.parts.mesh.shutdown(CloseCode::Shutdown, "the agent stops").await;
        self.parts.store.close().await;
    }

    fn tell(&self, kind: &'static str, message: String) {
        let happening = Happening::here(kind, &self.name(), message);
        self.happenings.tell(happening, self.now().wall_ms);
    }
}

impl Drop for Node {
    /// The mesh's gate holds the membership, and the membership holds the mesh. Taking the
    /// membership from the gate breaks this circle, so that both are dropped with the node.
    fn drop(&mut self) {
        self.parts.membership.send_replace(None);
    }
}
