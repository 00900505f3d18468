//! Each member watches the one that comes after it by id, besides those that chance gives it.
//!
//! SWIM draws whom it probes, so a member that falls silent may be drawn by nobody for many periods:
//! among 32, one in 400 for six of them. A ring has no such tail: whoever dies is asked within
//! [`pace::WATCH_PERIOD`] by the one before it. Where that one died as well, chance finds both, and
//! then the next one watches. Suresh et al., "Stable and Consistent Membership at Scale with
//! Rapid" (2018), section 4.1, watch on rings alone; here the ring only bounds what chance leaves.

use std::ops::Bound;
use std::time::Duration;

use foca::Member;

use super::doubt::Evidence;
use super::timers::Alarm;
use super::{Liveness, State, pace};
use crate::id::NodeId;

impl Liveness {
    /// Begins to watch, where there are more members than probes alone look at all the time.
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
        // One that was never measured may be far away; its answer here measures nothing.
        let wait = match self.outside.rtt(node) {
            Some(_) => pace::ASK_WATCHED,
            None => pace::RTT_MAX / u32::from(pace::WATCH_ASKS),
        };
        let wait = self.outside.patience(wait, node, 1.5);
        let again = Alarm::AskWatched { node, since, asks_left };
        self.outside.timers.set(self.outside.now + wait, again);
    }

    /// The next one by id that is alive; after the last comes the first.
    fn watched(&self) -> Option<NodeId> {
        let after = self.members.range((Bound::Excluded(self.me), Bound::Unbounded));
        let mut ring = after.chain(self.members.range(..self.me));
        ring.find(|(_, entry)| entry.standing.state == State::Alive).map(|(node, _)| *node)
    }
}
