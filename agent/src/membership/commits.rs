//! Passes on what was committed: to the other members, and to those who follow changes on this
//! node.

use std::sync::Arc;

use peerage_proto::replica::SignedChange;
use tokio::sync::{Notify, watch};

use super::outbound::MeshOutbox;
use crate::feed::{Feed, Happening};
use crate::host::clock::Clock;
use crate::replica::sync::Pusher;
use crate::replica::{Outlet, Views};

/// How many bytes of settings are pushed at once. More bytes would fill the queue of a peer that is
/// slower than the disk.
const PUSH_BYTES_MAX: usize = 1024 * 1024;

/// Up to how many changes that are told at once are events of their own; more are summed up.
const HAPPENINGS_MAX: usize = 256;

/// The outlet of a member's replica.
pub(super) struct Commits {
    pub(super) pusher: Pusher<MeshOutbox>,
    pub(super) changes: Feed<SignedChange>,
    pub(super) happenings: Feed<Happening>,
    pub(super) views: watch::Receiver<Views>,
    /// Notified when a commit is too large to be pushed to the other members.
    pub(super) large: Arc<Notify>,
    pub(super) clock: Clock,
}

impl Outlet for Commits {
    fn push(&mut self, changes: &[SignedChange], receipt: bool) {
        let settings = || changes.iter().filter(|change| !change.path.is_reserved());
        if settings().map(|change| change.bytes().len()).sum::<usize>() <= PUSH_BYTES_MAX {
            return self.pusher.push(changes, receipt);
        }
        // Sessions bring the settings, each at the pace of its peer. Changes of members and other
        // reserved paths are pushed at once.
        let records = changes.iter().filter(|change| change.path.is_reserved());
        self.pusher.push(&records.cloned().collect::<Vec<_>>(), receipt);
        self.large.notify_one();
    }

    fn tell(&mut self, changes: &[SignedChange]) {
        let at_ms = self.clock.now().wall_ms;
        let settings = || changes.iter().filter(|change| !change.path.is_reserved());
        let views = self.views.borrow();
        let happenings: Vec<_> = match settings().count() {
            0 => return,
            1..=HAPPENINGS_MAX => {
                settings().map(|change| Happening::of_change(change, &views.roster)).collect()
            }
            _ => Happening::of_many_changes(settings(), &views.roster),
        };
        self.happenings.tell_all(happenings, at_ms);
        self.changes.tell_all(settings().cloned(), at_ms);
    }
}
