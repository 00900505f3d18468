//! Seeking: members that are away are asked for ever, at a bounded rate, so that any partition heals.

use std::time::Duration;

use rand::seq::IteratorRandom;

use super::identity::Life;
use super::timers::Alarm;
use super::{Liveness, State, pace};
use crate::id::NodeId;

impl Liveness {
    /// Asks the members that are away and were not asked for the longest time.
    pub(super) fn seek(&mut self) {
        let longest: Vec<_> = self.away.iter().take(pace::SEEK_FANOUT).copied().collect();
        for (_, node) in longest {
            self.announce_to(node);
        }
        if self.unknown > 0 {
            self.ask_around();
        }
    }

    /// Asks a member that answered before which other members there are. It names about twenty,
    /// while asking a member that was not met yet costs a handshake and finds only that member.
    fn ask_around(&mut self) {
        let met = self
            .members
            .values()
            .filter(|entry| entry.standing.state == State::Alive && entry.standing.heard.is_some());
        if let Some(life) = met.filter_map(|entry| entry.life).choose(&mut self.rng) {
            let _ = self.foca.announce(life, &mut self.outside);
        }
    }

    pub(super) fn announce_to(&mut self, node: NodeId) {
        let now = self.outside.now;
        if let Some(entry) = self.members.get_mut(&node) {
            if self.away.remove(&(entry.sought, node)) {
                self.away.insert((now, node));
            }
            entry.sought = now;
            let life = entry.life.unwrap_or_else(|| Life::unmet(node));
            let _ = self.foca.announce(life, &mut self.outside);
        }
    }

    pub(super) fn seek_at(&mut self, deadline: Duration) {
        if self.seeking.is_some_and(|set| set <= deadline) {
            return;
        }
        self.outside.timers.retain(|alarm| *alarm != Alarm::Seek);
        self.outside.timers.set(deadline, Alarm::Seek);
        self.seeking = Some(deadline);
    }
}
