//! Keeps the admissions that are under way here, or that other members asked about. So an
//! invitation is not used too often, and no two hosts with one key are let in at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::admission::exchange::LISTED_MAX;
use peerage_proto::id::{InviteId, NodeId};
use tokio::time::Instant;

/// How long an admission under way counts as a use of its invitation.
const PENDING_FOR: Duration = Duration::from_secs(30);

/// The admissions that are under way, as uses of their invitations.
#[derive(Debug, Default)]
pub struct Pending {
    invites: Mutex<BTreeMap<InviteId, BTreeMap<NodeId, Instant>>>,
    /// The joiners that are being served here, from which address, and how many times.
    served: Mutex<BTreeMap<NodeId, (SocketAddr, usize)>>,
}

impl Pending {
    /// Notes that a node is about to be admitted; tells which other nodes are about to be admitted
    /// with the same invitation.
    pub(super) fn note(&self, invite: InviteId, joiner: NodeId) -> Vec<NodeId> {
        let now = Instant::now();
        let mut invites = self.invites.lock().unwrap_or_else(PoisonError::into_inner);
        for joiners in invites.values_mut() {
            joiners.retain(|_, until| *until > now);
        }
        invites.retain(|_, joiners| !joiners.is_empty());
        let joiners = invites.entry(invite).or_default();
        joiners.insert(joiner, now + PENDING_FOR);
        joiners.keys().filter(|node| **node != joiner).take(LISTED_MAX).copied().collect()
    }

    /// Begins to serve a joiner; `None` while another host with its key is being served, which may
    /// be a copy of it. A joiner that asks again from the same address is the same host.
    pub(super) fn serve(&self, joiner: NodeId, remote: SocketAddr) -> Option<Served<'_>> {
        let mut served = self.served();
        let (first, times) = served.entry(joiner).or_insert((remote, 0));
        let is_the_same = *first == remote;
        *times += usize::from(is_the_same);
        is_the_same.then(|| Served { pending: self, joiner })
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<NodeId, (SocketAddr, usize)>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an admission that is over.
    fn forget(&self, invite: InviteId, joiner: NodeId) {
        let mut invites = self.invites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joiners) = invites.get_mut(&invite) {
            joiners.remove(&joiner);
        }
    }
}

/// A joiner that is being served, until this is dropped.
pub(super) struct Served<'a> {
    pending: &'a Pending,
    joiner: NodeId,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut served = self.pending.served();
        if let Some((_, times)) = served.get_mut(&self.joiner) {
            *times -= 1;
            if *times == 0 {
                served.remove(&self.joiner);
            }
        }
    }
}

/// Forgets an admission under way when it is over, however it ended.
pub(super) struct Forgotten<'a> {
    pub(super) pending: &'a Pending,
    pub(super) invite: InviteId,
    pub(super) joiner: NodeId,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.pending.forget(self.invite, self.joiner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts with one key were both let in, as one member, and one was refused a second later.
    #[test]
    fn of_two_hosts_with_one_key_one_is_served_at_a_time_and_the_same_may_ask_again() {
        let (pending, joiner) = (Pending::default(), NodeId([1; 32]));
        let at = |n: u8| SocketAddr::from(([192, 0, 2, n], 4747));
        let first = pending.serve(joiner, at(1)).expect("nobody else is there");
        assert!(pending.serve(joiner, at(2)).is_none());
        let again = pending.serve(joiner, at(1)).expect("it hung up and comes again");
        assert!(pending.serve(NodeId([2; 32]), at(2)).is_some(), "another key");
        drop(first);
        assert!(pending.serve(joiner, at(2)).is_none());
        drop(again);
        assert!(pending.serve(joiner, at(2)).is_some());
    }
}
