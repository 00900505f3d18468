//! The checks of the promises while a world goes on: against what its agents show from outside, and
//! against what a killed agent left on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerage::membership::Membership;
use peerage_proto::id::NodeId;
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{Roster, Standing};
use peerage_tests::sim::promise::{Broken, Promise, hold};

use super::World;
use crate::host::Ask;

/// How long a member may still be connected with a node that it knows to be removed: it is told so.
const PARTING_MAX_MS: u64 = 5_000;

/// What was seen of a host.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The nodes that it knew to be removed.
    removed: BTreeSet<NodeId>,
    /// Since when it is connected with a node that it knows to be removed.
    connected_ms: BTreeMap<NodeId, u64>,
}

impl Seen {
    /// Forgets all: the host is another.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl World<'_> {
    /// Looks at every agent from outside.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        for host in self.members() {
            if let Some(membership) = self.membership(host) {
                self.look_at(host, &membership)?;
            }
        }
        self.check_patience()
    }

    fn look_at(&mut self, host: usize, membership: &Membership) -> Result<(), Broken> {
        let roster = membership.roster();
        names_are_unique(host, &roster)?;
        let now_ms = self.now_ms();
        let removed = |id: &NodeId| {
            let standing = roster.member(id).map(|member| &member.standing);
            matches!(standing, Some(Standing::Removed(_)))
        };
        let seen = &mut self.lives[host].seen;
        let back = seen.removed.iter().find(|id| !removed(id));
        hold(Promise::RemovedStaysRemoved, back.is_none(), || {
            format!("h{host} knew that {back:?} is removed, and no longer does")
        })?;
        let all: Vec<NodeId> = roster.all().map(|member| member.id).collect();
        seen.removed.extend(all.iter().filter(|id| removed(id)));
        let connected: BTreeSet<_> =
            seen.removed.iter().filter(|id| membership.mesh.is_connected(**id)).copied().collect();
        seen.connected_ms.retain(|id, _| connected.contains(id));
        for id in connected {
            let since_ms = *seen.connected_ms.entry(id).or_insert(now_ms);
            hold(Promise::RemovedStaysRemoved, now_ms - since_ms <= PARTING_MAX_MS, || {
                format!("h{host} goes on talking with {id:?}, which it knows to be removed")
            })?;
        }
        let stranger = all.iter().find(|id| !self.ledger.invited.contains(id));
        hold(Promise::NobodyElse, stranger.is_none(), || {
            format!("h{host} has {stranger:?} in its roster, whom nobody invited")
        })
    }

    /// No operator waits longer for an answer than the slowest part of the order may take.
    fn check_patience(&self) -> Result<(), Broken> {
        for (number, pending) in &self.pending {
            let waited_ms = self.now_ms() - pending.asked_ms;
            let bound_ms = match pending.ask {
                Ask::Join { .. } => 180_000,
                // A rename waits until an admission is settled, for which others are asked.
                Ask::Rename { .. } => 60_000,
                Ask::Leave | Ask::Stop | Ask::Remove { .. } => 20_000,
                _ => 10_000,
            };
            let Some(_) = waited_ms.checked_sub(bound_ms) else { continue };
            let host = pending.host;
            hold(Promise::NobodyWaits, false, || {
                format!("h{host} has not answered {number} in {waited_ms} ms: {:?}", pending.ask)
            })?;
        }
        Ok(())
    }

    /// What an agent acknowledged is on the disk that it leaves behind.
    pub(super) fn check_disk(&self, host: usize) -> Result<(), Broken> {
        let image = self.hosts[host].disk.image();
        if !image.meta.contains_key("datacenter") {
            return Ok(());
        }
        let changes = image.changes.iter().filter_map(|b| SignedChange::trust(b.clone()).ok());
        let stored: BTreeSet<String> = changes.map(|change| change.stamp().to_string()).collect();
        let kept = self.ledger.kept.iter().filter(|kept| kept.host == host);
        for kept in kept.filter(|kept| !self.ledger.may_be_gone(host, kept.at_ms)) {
            hold(Promise::AcknowledgedMeansKept, stored.contains(&kept.stamp), || {
                format!("h{host} acknowledged {kept:?}, and it is not on its disk")
            })?;
        }
        Ok(())
    }

    pub(super) fn membership(&self, host: usize) -> Option<Arc<Membership>> {
        self.hosts[host].node()?.membership()
    }
}

/// No two members show one name, and the one with the earliest claim to it shows it plainly: by the
/// law of `roster::precedence`, which is proved there against the whole history of a node.
fn names_are_unique(host: usize, roster: &Roster) -> Result<(), Broken> {
    let mut shown = BTreeSet::new();
    let twice = roster.current().find(|member| !shown.insert(&member.name));
    hold(Promise::NamesAreUnique, twice.is_none(), || {
        format!("h{host} shows two members as {:?}", twice.map(|member| &member.name))
    })?;
    let mut earliest = BTreeMap::new();
    for member in roster.current() {
        let claim = (member.claim, member.id, &member.name);
        let first = earliest.entry(&member.given_name).or_insert(claim);
        if (claim.0, claim.1) < (first.0, first.1) {
            *first = claim;
        }
    }
    let wrong = earliest.iter().find(|(given, (_, _, shown))| *given != shown);
    hold(Promise::NamesAreUnique, wrong.is_none(), || {
        format!("h{host} does not leave a name to the earliest claim: {wrong:?}")
    })
}
