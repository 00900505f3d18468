//! What was decided in the Data Center: documents of fields, written by anyone, everywhere the same.

pub mod change;
pub mod path;
pub mod vector;

use std::sync::Arc;

pub use change::{Actor, Change, ChangeError, SignedChange, Stamp};
pub use path::{Field, NameError, Path};
pub use vector::{Dot, Vector, Writer};

/// How large a document may be: the JSON of its fields with their names.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// One step of what must be on disk before anything of it is acknowledged or sent. The steps of
/// one commit take effect together or not at all.
#[derive(Debug, Clone)]
pub enum StoreOp {
    /// Keep a change.
    Put {
        /// Its key.
        dot: Dot,
        /// The change as it was signed.
        bytes: Arc<[u8]>,
    },
    /// A superseded change grew too old to keep.
    Forget(Dot),
    /// All of a writer's changes up to this number were seen, though not all are kept.
    Seen(Writer, u64),
}
