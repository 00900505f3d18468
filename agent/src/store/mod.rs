//! The disk, from which an agent comes back after a restart. Everything that the agent knows lives
//! in memory elsewhere.
//!
//! A [`Store`] promises: what a commit acknowledged survives a kill and a power cut; the writes of
//! one commit take effect together or not at all, in the order in which they were handed in; all
//! who wait while one commit runs share the next, and its one `fdatasync`; an idle store writes
//! nothing; a second agent on the same data folder is refused.
//!
//! Underneath is a [`Disk`]: a [`Journal`] file in life, a [`MemoryDisk`] in tests and simulation.
//! The journal is ours because neither library that we measured meets the targets of an isolated
//! write: redb 4 writes 30 KB for 600 bytes, and fjall 3 refuses to open after a power cut that
//! tears the last batch within a large value. An agent that holds everything in memory needs no
//! index on disk, only the order of what happened.

mod about;
mod archive;
mod error;
mod files;
mod folder;
mod header;
mod home;
mod image;
mod journal;
mod key;
mod live;
mod memory;
mod record;
mod replay;
mod scan;
mod whose;
mod writer;

#[cfg(test)]
mod crash;
#[cfg(test)]
pub(crate) mod suite;

use std::path::Path;

use peerage_proto::id::NodeId;
use peerage_proto::replica::StoreOp;

pub use about::{About, Label};
pub use archive::BACKUPS_MAX;
pub use error::{Failure, StoreError};
pub use folder::Folder;
pub use home::{Home, SetAside};
pub use image::{Damage, Image, Report};
pub use journal::Journal;
pub use key::NewKey;
pub use memory::MemoryDisk;
pub use record::{META_NAME_BYTES_MAX, VALUE_BYTES_MAX};
pub use whose::Trace;
pub use writer::{DiskOwner, GROUP_BYTES_MAX, Health, Store};

/// One thing to put on disk.
#[derive(Debug, Clone)]
pub enum Write {
    /// A step of the replica. The last `Seen` of a writer holds, also where it is lower.
    Replica(StoreOp),
    /// Keep a value under a name, instead of the one that was there.
    Meta {
        /// At most [`META_NAME_BYTES_MAX`] bytes.
        name: &'static str,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Vec<u8>,
    },
    /// Keep nothing under a name any more.
    MetaDelete {
        /// The name. Deleting a name that holds no value does nothing.
        name: &'static str,
    },
    /// Forget all changes and all that was seen; what is kept under names stays.
    ClearReplica,
    /// All damage that was found so far is dealt with: later images do not name it any more.
    Mended,
}

/// What a store needs of a disk. One owner calls it, from one thread.
pub trait Disk: Send + 'static {
    /// All that was committed, in the state after the last commit.
    ///
    /// # Errors
    /// [`StoreError`] where the disk cannot be read. What is damaged is no error: the image leaves
    /// it out and names it.
    fn load(&mut self) -> Result<Image, StoreError>;

    /// Makes the writes durable, all or none, in their order. Nothing to write costs nothing.
    ///
    /// # Errors
    /// [`StoreError`]. Whether the writes are there after the next start is then unknown, but
    /// they are all there or none is. A disk that cannot tell what reached it refuses every later
    /// commit with the same error.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Reads everything back and verifies every checksum. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError`] where the disk cannot be read.
    fn check(&mut self) -> Result<Report, StoreError>;

    /// Writes all that is held into a new [`Journal`] file, durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; a part of the file may then be left.
    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError>;

    /// Gives back space, if there is enough to be worth it. Called after commits, when nobody
    /// waits for the result.
    ///
    /// # Errors
    /// [`StoreError`]; what was committed stays as it was.
    fn tidy(&mut self) -> Result<(), StoreError>;

    /// Gives back the space of all records that no longer count.
    ///
    /// # Errors
    /// As of [`Disk::tidy`].
    fn compact(&mut self) -> Result<(), StoreError>;

    /// How many bytes it takes.
    fn size_bytes(&self) -> u64;

    /// Writes beside the contents which node they belong to. A disk that is not the folder of a
    /// host need not do so.
    ///
    /// # Errors
    /// [`StoreError`]; the label before may still be there.
    fn label(&mut self, _label: &Label) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes another node the owner of all that the disk holds, durably.
    ///
    /// # Errors
    /// [`StoreError`]; the owner after the next start is then unknown.
    fn rebind(&mut self, _node: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Marks that every commit so far was acknowledged, so that one that cannot be read later
    /// counts as damaged and not as torn.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost by it.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
