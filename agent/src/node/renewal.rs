//! A new identity for this host: `peerage reset --identity`.
//!
//! First what the host had in a Data Center is put aside, then its key is replaced: a crash in
//! between leaves a standalone node with its old key, and the same command goes on from there. The
//! others know the host by its key alone, so to them it is another one from then on.
//!
//! The command gives an identity, and no membership. A host that was taken out of its Data Center,
//! by its own operator or by another, stays out until somebody says `join` or `create`: that
//! departure took back the word of the Join Information that is still in its configuration. A copy
//! that was refused, and a folder that was prepared for a new host, were never taken out, and join
//! by that Join Information.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerage_proto::id::NodeId;
use tokio::sync::mpsc;
use tracing::warn;

use super::disk::{META_DATACENTER, META_NOTICE, META_PAST, META_TWIN};
use super::notice::LEFT_HINT;
use super::{Node, NodeError, Notice};
use crate::host::clock::{Clock, rfc3339};
use crate::store::{Folder, Home, NewKey, SetAside, StoreError, Write};

/// The reason in the name of the backup in which a node's former data are put aside.
const REASON: &str = "reset";

/// Where the key of a running agent is kept, and who is told that the key was replaced.
#[derive(Debug, Clone)]
pub struct KeyPlace {
    /// The data folder, which the agent has locked.
    pub folder: PathBuf,
    /// Receives a message once the key was replaced: the agent has to start anew.
    pub replaced: mpsc::Sender<()>,
}

/// A host that has a new identity.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// The id that the host had, where it could be read.
    pub was: Option<NodeId>,
    /// The id that the host has now.
    pub is: NodeId,
    /// Where the data that it had in its Data Center are kept, if there were any.
    pub backup: Option<PathBuf>,
    /// Where its old key is kept, if there was one.
    pub old_key: Option<PathBuf>,
}

impl Node {
    /// Takes a new key, and asks for a new start of the agent. If the node was refused as a copy,
    /// what it still had is put aside.
    ///
    /// # Errors
    /// [`NodeError`]: a member has to leave first. After [`NodeError::Store`] the key is the old
    /// one, or what was put aside is, and it can be tried again.
    pub async fn reset_identity(&self) -> Result<Renewed, NodeError> {
        let mut turn = self.turning.lock().await;
        if let Some(membership) = self.membership() {
            let name = membership.roster().datacenter_name.clone();
            return Err(NodeError::StillMember { name });
        }
        let place = self.parts.key_place.as_ref().ok_or(NodeError::NoKeyPlace)?;
        let notice = self.notice.borrow().clone();
        self.parts.store.commit(forgetting(notice)).await?;
        let backup = match self.has_twin() || turn.left_over.is_some() {
            true => Some(self.put_aside(&mut turn, REASON).await?),
            false => None,
        };
        let new = NewKey::prepare(&place.folder)?;
        self.parts.store.rebind(new.node_id()).await?;
        // From here on the folder belongs to the new node, whatever happens: nothing may begin any
        // more under the old key.
        self.stopping.cancel();
        // A full queue means that the agent was told already. If the change of the key fails after
        // this, the next start finishes it.
        let _ = place.replaced.try_send(());
        let (key, old_key) = new.publish()?;
        warn!(was = %self.id().short(), is = %key.node_id().short(), "this host has a new identity");
        Ok(Renewed { was: Some(self.id()), is: key.node_id(), backup, old_key })
    }
}

/// Gives the host of a data folder a new identity while its agent does not run; a member becomes
/// standalone, and the others see it go down. A folder that is too damaged to make a node is put
/// aside as it is.
///
/// # Errors
/// [`StoreError`], such as that an agent runs on the folder; it can be tried again.
pub async fn reset_stopped(data_dir: &Path) -> Result<Renewed, StoreError> {
    let folder = Arc::new(Folder::open(data_dir)?);
    let at = rfc3339(Clock::start().now().wall_ms).replace(':', "");
    let name = format!("{REASON}-{at}");
    let home = match Home::open(folder.clone()) {
        Err(error) if error.needs_somebody() => {
            warn!("{error}");
            return begin_anew(folder, &name).await;
        }
        Ok(home) if !home.image.damage.is_none() || home.is_behind => {
            // The store is not closed, since closing writes to the folder: it is put aside as the
            // disk left it.
            drop(home);
            return begin_anew(folder, &name).await;
        }
        opened => opened?,
    };
    let outcome = async {
        let Home { store, image, key, .. } = &home;
        store.commit(forgetting(Notice::read(image, META_NOTICE))).await?;
        let backup = match image.changes.is_empty() {
            true => None,
            false => Some(store.archive(&name).await?),
        };
        let new = NewKey::prepare(folder.path())?;
        store.rebind(new.node_id()).await?;
        let (is, old_key) = new.publish()?;
        Ok(Renewed { was: Some(key.node_id()), is: is.node_id(), backup, old_key })
    };
    let outcome = outcome.await;
    home.store.close().await;
    outcome
}

/// Puts aside all that lies in a folder, and makes it a new node's.
async fn begin_anew(folder: Arc<Folder>, name: &str) -> Result<Renewed, StoreError> {
    let SetAside { was, backup, key, image } = Home::set_aside(&folder, name)?;
    let home = Home::open(folder)?;
    let notice = image.and_then(|image| Notice::read(&image, META_NOTICE));
    let committed = home.store.commit(forgetting(notice)).await;
    home.store.close().await;
    committed?;
    Ok(Renewed { was, is: home.key.node_id(), backup: Some(backup), old_key: key })
}

/// The writes that make a node standalone at its next start. The notice that it was taken out of
/// its Data Center is kept; it no longer says that the key was put out, since the key is new.
fn forgetting(notice: Option<Notice>) -> Vec<Write> {
    let kept = notice.map(|notice| {
        Notice { hint: LEFT_HINT.into(), removed: false, ..notice }.write(META_NOTICE)
    });
    let forgotten = Write::MetaDelete { name: META_NOTICE };
    let mut writes: Vec<_> =
        [META_DATACENTER, META_PAST, META_TWIN].map(|name| Write::MetaDelete { name }).into();
    writes.push(kept.unwrap_or(forgotten));
    // The damage is the old node's, and is kept in its backup.
    writes.push(Write::Mended);
    writes
}
