//! The size of the journal's records that still count, kept up to date with every commit. Records
//! that were forgotten or overwritten take room that a rewrite of the file gives back.

use std::collections::HashMap;

use peerage_proto::replica::{Dot, StoreOp};

use super::Write;
use super::record::HEAD_AND_KEY_MAX;
use super::replay::Contents;
use super::scan::Located;

/// The sizes of the records that count. Invariant: `bytes` is their sum.
#[derive(Debug, Default)]
pub(super) struct Live {
    changes: HashMap<Dot, u64>,
    meta: HashMap<String, u64>,
    bytes: u64,
}

impl Live {
    /// The records that count among those that a scan found.
    pub(super) fn of(contents: &Contents<Located>) -> Self {
        let size = |located: &Located| (HEAD_AND_KEY_MAX + located.len) as u64;
        let changes: HashMap<_, _> =
            contents.changes.iter().map(|(dot, located)| (*dot, size(located))).collect();
        let meta: HashMap<_, _> =
            contents.meta.iter().map(|(name, located)| (name.clone(), size(located))).collect();
        let bytes = changes.values().chain(meta.values()).sum();
        Self { changes, meta, bytes }
    }

    /// Notes what was committed.
    pub(super) fn note(&mut self, write: &Write) {
        let size = |len: usize| (HEAD_AND_KEY_MAX + len) as u64;
        let mut put = |dot: Dot, len: usize| (size(len), self.changes.insert(dot, size(len)));
        let (added, gone) = match write {
            Write::Replica(StoreOp::Put { dot, bytes }) => put(*dot, bytes.len()),
            Write::Replica(StoreOp::Abridge(change)) => put(change.dot, change.bytes().len()),
            Write::Replica(StoreOp::Forget(dot)) => (0, self.changes.remove(dot)),
            Write::Replica(StoreOp::Seen(..)) | Write::Mended => (0, None),
            Write::Meta { name, value } => {
                let size = size(value.len());
                (size, self.meta.insert((*name).to_owned(), size))
            }
            Write::MetaDelete { name } => (0, self.meta.remove(*name)),
            Write::ClearReplica => (0, Some(self.changes.drain().map(|(_, size)| size).sum())),
        };
        self.bytes = self.bytes + added - gone.unwrap_or(0);
    }

    /// The sum of all sizes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}
