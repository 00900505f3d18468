//! The replica as a task, and how it goes to other nodes: [`ReplicaTask`] owns it,
//! [`ReplicaHandle`] asks it, [`Views`] follow it, [`sync`] exchanges it with members, and [`receipts`] count who holds it.

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
pub use views::Views;
