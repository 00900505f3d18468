//! Why a membership ends by itself.

use std::sync::Arc;

use peerage_proto::roster::Standing;

/// What a membership tells its node, which alone can end it.
#[derive(Debug, Clone)]
pub enum End {
    /// The node was removed, or is held to have left.
    Standing(Standing),
    /// Another host with this node's key is alive, and was started before this one.
    Twin {
        /// The member that said so.
        by: String,
        /// What it said.
        cause: String,
    },
    /// The disk fails for good.
    Disk(Arc<str>),
}
