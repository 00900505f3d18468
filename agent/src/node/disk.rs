//! What the node keeps in its store: its own values, each under a name, and the replica of one Data
//! Center.

use std::sync::Arc;

use peerage_proto::id::DataCenterId;
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Commit, Limits, Replica, SignedChange, Vector};
use tracing::error;

use super::Node;
use crate::host::clock::Clock;
use crate::replica::Disk;
use crate::store::{Image, Store, StoreError, Write};

/// The names under which the store keeps this node's own values.
pub(super) const META_DATACENTER: &str = "datacenter";
pub(super) const META_NOTICE: &str = "notice";
pub(super) const META_TWIN: &str = "twin";
pub(super) const META_PAST: &str = "past";

/// The store as the disk of one replica.
#[derive(Clone)]
pub(super) struct StoreDisk {
    pub(super) store: Store,
    pub(super) datacenter: DataCenterId,
    pub(super) key: Keypair,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
}

impl Disk for StoreDisk {
    async fn commit(&self, commit: &Commit) -> Result<(), Arc<str>> {
        let writes = commit.ops.iter().cloned().map(Write::Replica).collect::<Vec<_>>();
        self.store.commit(writes).await.map_err(|error| Arc::from(error.to_string()))
    }

    async fn reload(&self) -> Result<Replica, Arc<str>> {
        let image = self.store.load().await.map_err(|error| Arc::from(error.to_string()))?;
        Ok(loaded(self.datacenter, self.clone(), image))
    }
}

impl Node {
    pub(super) fn disk(&self, datacenter: DataCenterId) -> StoreDisk {
        StoreDisk {
            store: self.parts.store.clone(),
            datacenter,
            key: self.parts.key.clone(),
            limits: self.limits.clone(),
            clock: self.parts.clock,
        }
    }

    /// The size of the journal on disk, in bytes.
    pub fn journal_bytes(&self) -> u64 {
        self.parts.store.size_bytes()
    }

    /// Rewrites the journal without the records that no longer count.
    ///
    /// # Errors
    /// [`StoreError`]; what was committed stays as it was.
    pub async fn compact_journal(&self) -> Result<(), StoreError> {
        self.parts.store.compact().await
    }
}

/// The replica that an image holds. A change that cannot be read is left out; the other members
/// bring it back.
pub(super) fn loaded(datacenter: DataCenterId, disk: StoreDisk, image: Image) -> Replica {
    let changes = image.changes.into_iter().filter_map(|bytes| match SignedChange::trust(bytes) {
        Ok(change) => Some(change),
        Err(error) => {
            error!(%error, "a stored change does not read");
            None
        }
    });
    let now = disk.clock.now();
    Replica::load(datacenter, disk.key, disk.limits, changes, Vector::from(image.seen), now)
}
