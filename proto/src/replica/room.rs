//! Room: which changes take it, which are forgotten to make it, and which writes are refused for
//! lack of it.
//!
//! *Live* changes count against the limit: those with a value that shows, or is in a conflict.
//! *History* is what is superseded: whole changes, and values in a live change. History may take
//! the room that is left. Where all changes together would take more than the limit, the oldest
//! history is forgotten first, earlier than the usual rule of 32 changes and 30 days says. A live
//! change then loses its superseded values (see [`super::change`]), but not the small ones, which
//! its signature needs. *Markers* are changes that only say that a field or a document is gone.
//! They stay, for they hide writes that did not know of them and come late. They are small, for
//! they carry no value, and they are never refused.
//!
//! A node forgets without asking others. It forgets a change once the vector covers the change and
//! the change is wholly superseded; the changes that stay name all that they superseded (see
//! [`super::document`]). A peer that lacks both gets the changes that stay, and the vector. An
//! abridged change is sent last, and a peer takes it only if it knows the changes that superseded
//! the values which are left out. So no member can take values away by leaving them out.
//!
//! A node refuses only its own writes. It merges a change that another node acknowledged, however
//! much room the change takes, or the nodes would never show the same. So memory is bounded only by
//! the limit that each writer checks against its own copy: each side of a partition can fill the
//! room that was left when the partition began. After the heal the live changes may then exceed the
//! limit. All history is forgotten then, and writes that add to the live changes are refused until
//! these are below the limit again.

use std::collections::{BTreeMap, BTreeSet};

use super::change::SignedChange;
use super::document::Yield;
use super::full::{Full, Holder};
use super::sizes::{Bytes, Sizes};
use super::vector::Dot;
use super::{Commit, Outputs, Replica, StoreOp, WriteError};
use crate::time::Hlc;

/// How many bytes are kept free of settings: for the Data Center's own records (members, rights,
/// invitations), and once more for repairs where the settings are full.
pub const RESERVE_BYTES: usize = 16_000_000;

/// From how many percent of the limit on a person is told that the settings are nearly full.
const SHORT_PERCENT: usize = 95;

/// Below how many percent of the limit that notice ends.
const AMPLE_PERCENT: usize = 90;

/// How many changes are forgotten at most by one step.
pub const FORGOTTEN_MAX: usize = 4096;

/// How many of the largest holders of room a refusal names.
const NAMED_MAX: usize = 3;

/// How much room a replica takes, and how much it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the settings take.
    pub settings: Sizes,
    /// What the Data Center's own records take.
    pub records: Sizes,
    /// How many bytes of live changes the settings may have.
    pub limit: usize,
    /// How many bytes are kept free of settings.
    pub reserve: usize,
}

impl Room {
    /// The notice that a person should make room, where the settings are nearly full. `stands`
    /// tells whether the notice was given before: it then stays until there is clearly more room.
    pub fn shortage(&self, stands: bool) -> Option<String> {
        let percent = if stands { AMPLE_PERCENT } else { SHORT_PERCENT };
        let short = self.settings.live >= self.limit / 100 * percent;
        short.then(|| {
            format!(
                "the settings are nearly full: of the {} that may live, more than {AMPLE_PERCENT} % \
                 do; what adds to them will be refused",
                Bytes(self.limit)
            )
        })
    }
}

/// What one kind of documents takes. Invariant: `sizes` is the sum over its documents.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) sizes: Sizes,
    /// The superseded changes, oldest first.
    superseded: BTreeSet<(Hlc, Dot)>,
    /// The changes that are not wholly superseded and have values that can be left out, oldest
    /// first.
    idle: BTreeSet<(Hlc, Dot)>,
}

impl Pool {
    /// The sizes of a document have changed from `before` to `after`.
    pub(super) fn moved(&mut self, before: Sizes, after: Sizes) {
        self.sizes += after;
        self.sizes -= before;
    }

    /// Notes what a document can forget from now on.
    pub(super) fn can_yield(&mut self, yields: Vec<Yield>) {
        for one in yields {
            match one {
                Yield::Whole(stamp, dot) => {
                    self.idle.remove(&(stamp.at, dot));
                    self.superseded.insert((stamp.at, dot));
                }
                Yield::Part(stamp, dot) => drop(self.idle.insert((stamp.at, dot))),
            }
        }
    }
}

impl Replica {
    /// How much room is taken, and how much may be. Where the live records exceed the reserve, the
    /// excess is taken off the limit of the settings.
    pub fn room(&self) -> Room {
        let (settings, records) = (self.settings.sizes, self.records.sizes);
        let reserve = self.limits.reserve_bytes;
        let limit = self.limits.total_bytes.saturating_sub(records.live.saturating_sub(reserve));
        Room { settings, records, limit, reserve }
    }

    /// How many bytes of live changes the records may have: the reserve, and what the settings
    /// leave.
    fn records_limit(&self) -> usize {
        let left = self.limits.total_bytes.saturating_sub(self.settings.sizes.live);
        self.limits.reserve_bytes + left
    }

    /// Whether a commit of this node has room. A commit that adds no live bytes always has, and so
    /// has a change that only takes away, or that writes to a record which is there already. A
    /// change that settles a conflict, or makes its document no larger, may use the reserve.
    pub(super) fn room_for<'c>(
        &self,
        changes: impl Iterator<Item = &'c SignedChange> + Clone,
    ) -> Result<(), WriteError> {
        for reserved in [false, true] {
            let (pool, limit) = match reserved {
                true => (&self.records, self.records_limit()),
                false => (&self.settings, self.room().limit),
            };
            let of_kind = || changes.clone().filter(|c| c.path.is_reserved() == reserved);
            let bytes: usize = of_kind().map(|change| change.bytes().len()).sum();
            let freed: usize = of_kind().map(|change| self.freed_by(change)).sum();
            let live = pool.sizes.live;
            let after = (live + bytes).saturating_sub(freed);
            if after <= limit.max(live) {
                continue;
            }
            let for_repairs = reserved || after <= limit + self.limits.reserve_bytes;
            let adds = |change: &&SignedChange| {
                !(change.set.is_empty() || for_repairs && self.repairs(change))
            };
            if let Some(change) = of_kind().find(adds) {
                return Err(WriteError::Full(Box::new(Full {
                    path: change.path.clone(),
                    more: after - live,
                    live,
                    limit,
                    history: pool.sizes.history,
                    largest: self.largest(reserved),
                })));
            }
        }
        Ok(())
    }

    fn freed_by(&self, change: &SignedChange) -> usize {
        self.documents.get(&change.path).map_or(0, |document| document.freed_by(change))
    }

    /// Whether a change makes its document no larger, or settles a conflict, or is of a record.
    fn repairs(&self, change: &SignedChange) -> bool {
        self.documents.get(&change.path).is_some_and(|document| {
            let now = || document.size_with(&BTreeMap::new(), &BTreeSet::new());
            change.path.is_reserved()
                || document.is_contested(change.set.keys().chain(&change.unset))
                || document.size_with(&change.set, &change.unset) <= now()
        })
    }

    /// The documents that take most; computed only where a write is refused.
    fn largest(&self, reserved: bool) -> Vec<Holder> {
        let mut holders: BTreeMap<&str, Holder> = BTreeMap::new();
        for (path, document) in &self.documents {
            let live = document.sizes().live;
            if path.is_reserved() != reserved || live == 0 {
                continue;
            }
            let prefix = path.as_str().split('/').next().unwrap_or_default();
            let holder = holders.entry(prefix).or_insert_with(|| Holder {
                prefix: prefix.to_owned(),
                documents: 0,
                live: 0,
                largest: path.clone(),
                largest_live: 0,
            });
            holder.documents += 1;
            holder.live += live;
            if live > holder.largest_live {
                (holder.largest, holder.largest_live) = (path.clone(), live);
            }
        }
        let mut holders: Vec<_> = holders.into_values().collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.live));
        holders.truncate(NAMED_MAX);
        holders
    }

    /// Forgets the oldest history where all that is kept takes more room than it may.
    pub(super) fn yield_history(&mut self, commit: &mut Commit) {
        let Room { settings, records, limit, reserve } = self.room();
        self.let_go(false, settings.total().saturating_sub(limit), commit);
        let for_records = reserve.max(records.live);
        self.let_go(true, records.total().saturating_sub(for_records), commit);
    }

    /// Forgets all history of the settings, however much room there is: `peerage settings compact`.
    /// One call forgets at most [`FORGOTTEN_MAX`] changes, so callers repeat it until nothing is
    /// forgotten.
    pub fn compact(&mut self) -> Outputs {
        let mut outputs = Outputs::default();
        self.let_go(false, usize::MAX, &mut outputs.commit);
        outputs
    }

    /// Forgets the oldest of history, until that many bytes are free: superseded changes, then
    /// superseded values of the others. The Data Center's own records stay whole, for they are
    /// evidence.
    fn let_go(&mut self, reserved: bool, bytes: usize, commit: &mut Commit) {
        if bytes == 0 {
            return;
        }
        let aim = self.pool(reserved).sizes.total().saturating_sub(bytes);
        for _ in 0..FORGOTTEN_MAX {
            // A change above the vector must stay: it would be taken for a new one if it came again.
            let pool = if reserved { &self.records } else { &self.settings };
            let settled = |(_, dot): &&(Hlc, Dot)| self.vector.covers(dot);
            let superseded = pool.superseded.iter().find(settled).copied();
            let idle = || pool.idle.iter().find(settled).copied().filter(|_| !reserved);
            match superseded.map(|oldest| (oldest, true)).or_else(|| Some((idle()?, false))) {
                Some((oldest, true)) => self.forget_one(reserved, oldest, commit),
                Some((oldest, false)) => self.abridge_one(oldest, commit),
                None => return,
            }
            if self.pool(reserved).sizes.total() <= aim {
                return;
            }
        }
    }

    fn pool(&mut self, reserved: bool) -> &mut Pool {
        if reserved { &mut self.records } else { &mut self.settings }
    }

    fn forget_one(&mut self, reserved: bool, oldest: (Hlc, Dot), commit: &mut Commit) {
        self.pool(reserved).superseded.remove(&oldest);
        let Some(change) = self.change(&oldest.1).cloned() else { return };
        let Some(document) = self.documents.get_mut(&change.path) else { return };
        let before = document.sizes();
        document.forget(change.stamp(), change.dot);
        let after = document.sizes();
        self.forget_all(reserved, before, after, &[change], commit);
    }

    /// Leaves the superseded values out of a change of the settings, and has the disk keep the
    /// abridged change in its place.
    fn abridge_one(&mut self, oldest: (Hlc, Dot), commit: &mut Commit) {
        self.settings.idle.remove(&oldest);
        let Some(change) = self.change(&oldest.1).cloned() else { return };
        let Some(document) = self.documents.get_mut(&change.path) else { return };
        let before = document.sizes();
        let abridged = document.abridge(change.stamp(), change.dot);
        let after = document.sizes();
        self.settings.moved(before, after);
        commit.ops.extend(abridged.map(StoreOp::Abridge));
    }

    /// Has the disk forget the changes that their document has forgotten. The sizes are those of
    /// the document.
    pub(super) fn forget_all(
        &mut self,
        reserved: bool,
        before: Sizes,
        after: Sizes,
        forgotten: &[SignedChange],
        commit: &mut Commit,
    ) {
        let pool = self.pool(reserved);
        pool.moved(before, after);
        for change in forgotten {
            pool.superseded.remove(&(change.at, change.dot));
        }
        for Dot { writer, seq } in forgotten.iter().map(|change| change.dot) {
            // Without this, the gap among the writer's changes would look like a change that was
            // not seen.
            let seen = self.vector.seen(&writer);
            if self.stored_seen.seen(&writer) < seq {
                self.stored_seen.raise(writer, seen);
                commit.ops.push(StoreOp::Seen(writer, seen));
            }
            commit.ops.push(StoreOp::Forget(Dot { writer, seq }));
        }
    }
}
