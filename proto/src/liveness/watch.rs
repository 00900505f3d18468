//! Each member watches the member that comes next by id, besides those that SWIM probes at random.
//!
//! SWIM draws the members that it probes, so perhaps nobody draws a silent member for many periods:
//! among 32 nodes, one silent member in 400 is not drawn for six periods. On a ring this cannot
//! happen: the member before a dead one asks it within [`pace::WATCH_PERIOD`]. Where that member
//! died as well, random probes find both, and then the next member before them watches. Suresh et
//! al., "Stable and Consistent Membership at Scale with Rapid" (2018), section 4.1, watch on rings
//! alone; here the ring only bounds what chance leaves.

use std::ops::Bound;
use std::time::Duration;

use foca::Member;

use super::doubt::Evidence;
use super::timers::Alarm;
use super::{Liveness, State, pace};
use crate::id::NodeId;

impl Liveness {
    /// Begins to watch, where there is more than one other member: a single one is probed all the
    /// time.
    pub(super) fn keep_watch(&mut self) {
        if !self.watching && self.foca.num_members() > 1 {
            self.watching = true;
            self.outside.timers.set(self.outside.now + pace::WATCH_PERIOD, Alarm::Watch);
        }
    }

    /// Asks the member that this node watches.
    pub(super) fn watch(&mut self) {
        self.watching = false;
        let since = self.outside.now;
        let is_asked = |node: NodeId| self.outside.timers.any(|alarm| alarm.watches(node));
        if let Some(watched) = self.watched().filter(|node| !is_asked(*node)) {
            self.ask_watched(watched, since, pace::WATCH_ASKS);
        }
        self.keep_watch();
    }

    /// Asks a member that was not heard of `since`, or doubts it when it was asked often enough.
    pub(super) fn ask_watched(&mut self, node: NodeId, since: Duration, asks_left: u8) {
        let Some(entry) = self.members.get(&node) else { return };
        let heard = entry.standing.heard.is_some_and(|heard| heard > since);
        let (Some(life), State::Alive, false) = (entry.life, entry.standing.state, heard) else {
            return;
        };
        let Some(asks_left) = asks_left.checked_sub(1) else {
            return self.doubt(node, Evidence::Missed);
        };
        self.ask(life, Member::new(life, entry.incarnation, foca::State::Alive));
        // A member whose round trip was never measured may be far away, and its answer to this
        // question does not measure it.
        let wait = match self.outside.rtt(node) {
            Some(_) => pace::ASK_WATCHED,
            None => pace::RTT_MAX / u32::from(pace::WATCH_ASKS),
        };
        let wait = self.outside.patience(wait, node, 1.5);
        let again = Alarm::AskWatched { node, since, asks_left };
        self.outside.timers.set(self.outside.now + wait, again);
    }

    /// The next member by id that is alive; after the last comes the first.
    fn watched(&self) -> Option<NodeId> {
        let after = self.members.range((Bound::Excluded(self.me), Bound::Unbounded));
        let mut ring = after.chain(self.members.range(..self.me));
        ring.find(|(_, entry)| entry.standing.state == State::Alive).map(|(node, _)| *node)
    }
}
