//! The replica as a task, and its exchange with other nodes. What this room promises: a change leaves
//! this node, and a write is acknowledged, only after it is on disk. [`ReplicaTask`] owns the replica,
//! [`ReplicaHandle`] asks the task, [`Views`] follow the replica, [`sync`] exchanges changes with
//! members, and [`receipts`] count which nodes hold a change.

mod handle;
pub mod receipts;
pub mod sync;
mod task;
mod views;

#[cfg(test)]
pub(crate) mod memory;

pub use handle::{
    Acknowledged, Closed, Edits, Progress, ReplicaHandle, Untransacted, WriteFailure,
};
pub use task::{Disk, Outlet, ReplicaTask};
pub use views::{View, Views};
