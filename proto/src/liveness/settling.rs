//! Settling: after an input, what foca believes is taken over into the members' standings, with the
//! reason why.

#[cfg(test)]
use std::collections::BTreeSet;
use std::time::Duration;

use foca::{Incarnation, Member};

use super::doubt::Evidence;
use super::identity::Life;
use super::timers::Alarm;
use super::{INCARNATION_LEFT, Liveness, LivenessEvent, Return, State, Why, pace};
use crate::id::NodeId;

/// What led to a change.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    Told(NodeId),
    Silence,
}

impl Liveness {
    /// Brings what foca believes into the standings, says what changed, and sets the alarms that
    /// the new state asks for.
    pub(super) fn settle(&mut self, cause: Cause) {
        if self.gone {
            return;
        }
        // Only in this call does foca notice whether it has other members.
        let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.outside);
        let mut touched = std::mem::take(&mut self.touched);
        touched.append(&mut self.outside.touched);
        if !touched.is_empty() {
            let believed = self.foca.iter_membership_state();
            let believed = believed.filter(|member| touched.contains(&member.id().node));
            let mut believed: Vec<Member<Life>> = believed.cloned().collect();
            believed.sort_unstable_by_key(|member| member.id().node);
            for member in believed {
                self.conclude(&member, cause);
            }
        }
        #[cfg(test)]
        self.assert_settled();

        let now = self.outside.now;
        if std::mem::take(&mut self.outside.renewed) {
            self.seek_at(now);
        }
        self.keep_watch();
        if !self.gossiping && self.foca.num_members() > 0 && self.foca.updates_backlog() > 0 {
            self.gossiping = true;
            // The first news after a calm leave at once, those of a storm together.
            let deadline = self.gossiped.map_or(now, |last| now.max(last + pace::GOSSIP));
            self.outside.timers.set(deadline, Alarm::Gossip);
        }
        if self.unknown > 0 {
            self.seek_at(now + pace::SEEK_UNKNOWN * self.outside.timers.multiplier());
        } else if !self.away.is_empty() {
            let lately = now < self.away_since + pace::LONG_AWAY;
            self.seek_at(now + if lately { pace::SEEK_AWAY } else { pace::SEEK_LONG_AWAY });
        }
    }

    /// Every belief of foca's is in the standings.
    #[cfg(test)]
    fn assert_settled(&self) {
        for member in self.foca.iter_membership_state() {
            let Some(entry) = self.members.get(&member.id().node) else { continue };
            let believed = (Some(*member.id()), member.incarnation());
            assert_eq!((entry.life, entry.incarnation), believed);
            assert_eq!(entry.standing.state, state_of(member.state(), member.incarnation()));
        }
        let away = self.members.iter().filter(|(_, entry)| entry.is_away());
        let away: BTreeSet<_> = away.map(|(node, entry)| (entry.sought, *node)).collect();
        assert_eq!(self.away, away);
        let states = self.members.values().map(|entry| entry.standing.state);
        assert_eq!(self.unknown, states.filter(|state| *state == State::Unknown).count());
    }

    /// Notes that foca is about to be told `member`, unless all of it is known.
    pub(super) fn touch(&mut self, member: &Member<Life>) {
        let node = member.id().node;
        let Some(entry) = self.members.get(&node) else { return };
        let news = match entry.life {
            Some(life) if life == *member.id() => {
                let (state, incarnation) = (member.state(), member.incarnation());
                incarnation > entry.incarnation
                    || state_of(state, incarnation) > entry.standing.state
            }
            Some(life) => life < *member.id(),
            None => true,
        };
        if news {
            self.touched.insert(node);
        }
    }

    fn conclude(&mut self, member: &Member<Life>, cause: Cause) {
        let now = self.outside.now;
        let life = *member.id();
        let Some(entry) = self.members.get_mut(&life.node) else { return };
        let to = state_of(member.state(), member.incarnation());
        let from = entry.standing.state;
        let restarted = entry.life.is_some_and(|known| known.boot != life.boot);
        let first = entry.life.is_none();
        let renewed = (entry.life, entry.incarnation) != (Some(life), member.incarnation());
        entry.life = Some(life);
        entry.incarnation = member.incarnation();
        entry.standing.boot = Some(life.boot);
        if to == State::Suspect && matches!(cause, Cause::Told(_)) && (renewed || from != to) {
            if from == to {
                // The member objected to the suspicion before.
                entry.doubt = None;
            }
            self.expect_verdict(life, member.incarnation());
        }
        let Some(entry) = self.members.get_mut(&life.node) else { return };
        if from == to && !(restarted && to == State::Alive) {
            return;
        }
        let silent = entry.standing.heard.map(|heard| now.saturating_sub(heard));
        let refused = entry.doubt.is_some_and(|doubt| doubt.evidence == Evidence::Refused);
        let tried = || self.outside.tried(life.node);
        let why = match to {
            State::Alive if restarted || (entry.is_away() && !first) => {
                let after =
                    if entry.is_away() { now - entry.standing.since } else { Duration::ZERO };
                let how = match (restarted, entry.missed_us) {
                    (true, _) => Return::Restarted,
                    (false, true) => Return::CutOff,
                    (false, false) => Return::SameBoot,
                };
                Why::Back { after, how }
            }
            State::Alive if from == State::Suspect => Why::Answered,
            State::Alive => Why::Met,
            State::Left => Why::Goodbye,
            _ => match cause {
                Cause::Silence if refused => Why::Refused { tried: tried() },
                Cause::Silence => Why::NoAnswer { tried: tried() },
                Cause::Told(by) => Why::Told { by, silent },
            },
        };
        self.change(life.node, to, why);
    }

    pub(super) fn change(&mut self, node: NodeId, to: State, why: Why) {
        let now = self.outside.now;
        let Some(entry) = self.members.get_mut(&node) else { return };
        let was_away = entry.is_away();
        let from = std::mem::replace(&mut entry.standing.state, to);
        self.unknown -= usize::from(from == State::Unknown);
        self.unknown += usize::from(to == State::Unknown);
        entry.standing.since = now;
        entry.standing.why = why.clone();
        if to != State::Suspect {
            entry.reprieves = 0;
        }
        if to == State::Alive {
            entry.missed_us = false;
            if let Some(doubt) = entry.doubt.take().filter(|_| why == Why::Answered) {
                entry.trust(doubt, now);
            }
            self.outside.heard_of(node);
        }
        if entry.is_away() {
            entry.standing.through = None;
            entry.doubt = None;
            self.away.insert((entry.sought, node));
            self.away_since = now;
        } else if was_away {
            self.away.remove(&(entry.sought, node));
        }
        self.notify.push(LivenessEvent { node, from, to, why });
    }
}

/// What foca's belief means here.
fn state_of(state: foca::State, incarnation: Incarnation) -> State {
    match (state, incarnation) {
        (foca::State::Alive, _) => State::Alive,
        (foca::State::Suspect, _) => State::Suspect,
        (foca::State::Down, INCARNATION_LEFT) => State::Left,
        (foca::State::Down, _) => State::Down,
    }
}
