//! Replicas that tests run without a disk.

use std::sync::Arc;

use peerage_proto::replica::{Commit, Replica, SignedChange};

use super::handle::ReplicaHandle;
use super::receipts::Receipts;
use super::task::{Disk, Outlet, ReplicaTask};
use crate::host::clock::Clock;

struct NoDisk;

impl Disk for NoDisk {
    async fn commit(&self, _: &Commit) -> Result<(), Arc<str>> {
        Ok(())
    }

    async fn reload(&self) -> Result<Replica, Arc<str>> {
        Err("nothing was kept".into())
    }
}

struct Nobody;

impl Outlet for Nobody {
    fn push(&mut self, _: &[SignedChange], _: bool) {}

    fn tell(&mut self, _: &[SignedChange]) {}
}

/// Runs a task over a replica whose changes are all committed, and returns the handle to it.
pub(crate) fn serve(replica: Replica, clock: Clock) -> ReplicaHandle {
    let receipts = Arc::new(Receipts::default());
    let (task, handle) = ReplicaTask::new(replica, Arc::new(NoDisk), |_| Nobody, receipts, clock);
    tokio::spawn(task.run());
    handle
}
