//! What is done when an alarm is due: probes go out, suspicions become verdicts, and members that
//! were never met are given up.

use std::time::Duration;

use foca::{Incarnation, Member, Timer};
use rand::RngExt;

use super::doubt::Evidence;
use super::identity::Life;
use super::timers::Alarm;
use super::{Liveness, State, Why, pace};
use crate::id::NodeId;

impl Liveness {
    pub(super) fn serve(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Foca(timer) => {
                match &timer {
                    Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                        // foca would tell the member that it is down even if it had objected.
                        if !self.is_suspected(member_id, *incarnation) {
                            return;
                        }
                        if let Some(wait) = self.reprieve(member_id.node) {
                            self.outside.timers.set(self.outside.now + wait, Alarm::Foca(timer));
                            return;
                        }
                        self.touched.insert(member_id.node);
                    }
                    // foca begins a new probe by judging the one before, so it is judged here, too.
                    Timer::ProbeRandomMember(token) if self.outside.is_of_this_round(*token) => {
                        self.touched.extend(self.outside.probed());
                        self.outside.judge_probe();
                    }
                    _ => {}
                }
                // foca refuses an alarm that was set before this node was alone: it is out of date.
                let _ = self.foca.handle_timer(timer, &mut self.outside);
            }
            Alarm::Gossip => {
                self.gossiping = false;
                self.gossiped = Some(self.outside.now);
                let _ = self.foca.gossip(&mut self.outside);
            }
            Alarm::Seek => {
                self.seeking = None;
                self.seek();
            }
            Alarm::AskAgain { number } => self.outside.ask_again(number),
            Alarm::Insist { suspect, incarnation } => {
                if self.is_suspected(&suspect, incarnation) {
                    self.ask(suspect, Member::new(suspect, incarnation, foca::State::Suspect));
                    let wait = self.outside.patience(pace::INSIST, suspect.node, 1.5);
                    let again = Alarm::Insist { suspect, incarnation };
                    self.outside.timers.set(self.outside.now + wait, again);
                }
            }
            Alarm::Watch => self.watch(),
            Alarm::AskWatched { node, since, asks_left } => {
                self.ask_watched(node, since, asks_left);
            }
            Alarm::AskOutOfTurn(node) => self.ask_out_of_turn(node),
            Alarm::Accuse(node) => self.accuse(node),
            Alarm::Verdict { suspect, incarnation } => {
                if !self.is_suspected(&suspect, incarnation) {
                    return;
                }
                match self.reprieve(suspect.node) {
                    Some(wait) => {
                        let again = Alarm::Verdict { suspect, incarnation };
                        self.outside.timers.set(self.outside.now + wait, again);
                    }
                    None => self.apply(Member::new(suspect, incarnation, foca::State::Down), true),
                }
            }
            Alarm::LookInto { suspect, incarnation } => {
                if self.is_suspected(&suspect, incarnation) {
                    self.doubt(suspect.node, Evidence::Missed);
                    self.expect_verdict(suspect, incarnation);
                }
            }
            Alarm::GiveUp(node) => self.give_up(node),
        }
    }

    /// Declares a member down that nobody met in time. Where this host is late, the member has more
    /// time.
    fn give_up(&mut self, node: NodeId) {
        let Some(entry) = self.members.get(&node) else { return };
        if entry.standing.state != State::Unknown {
            return;
        }
        let patience = pace::unknown_patience(self.members.len());
        let deadline = entry.standing.since + patience * self.outside.timers.multiplier();
        if self.outside.now < deadline {
            self.outside.timers.set(deadline, Alarm::GiveUp(node));
        } else {
            self.change(node, State::Down, Why::NeverHeard);
        }
    }

    /// How long a verdict on `node` waits, if it was heard from since it was suspected: it lives,
    /// and its objection is on the way.
    fn reprieve(&mut self, node: NodeId) -> Option<Duration> {
        let entry = self.members.get_mut(&node)?;
        let suspected = entry.standing.state == State::Suspect;
        let heard_since = entry.standing.heard.is_some_and(|heard| heard > entry.standing.since);
        if !suspected || !heard_since || entry.reprieves == pace::REPRIEVES_MAX {
            return None;
        }
        entry.reprieves += 1;
        Some(self.outside.patience(pace::PROBE_TIMEOUT, node, 4.0))
    }

    pub(super) fn is_suspected(&self, suspect: &Life, incarnation: Incarnation) -> bool {
        self.members.get(&suspect.node).is_some_and(|entry| {
            entry.life == Some(*suspect)
                && entry.incarnation == incarnation
                && entry.standing.state == State::Suspect
        })
    }

    /// The member that accused another passes the verdict. Where it does not, because it stopped or
    /// its change of mind got lost, this node looks into it itself, so that no suspicion lasts for
    /// ever.
    pub(super) fn expect_verdict(&mut self, suspect: Life, incarnation: Incarnation) {
        let suspicion = pace::config(self.members.len() + 1).suspect_to_down_after;
        let apart = pace::LOOKERS_APART * u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        // At the deadline this node only asks a question, so it may come too early.
        let wait = suspicion * pace::VERDICT_BY_OTHERS + apart.mul_f64(self.rng.random());
        let deadline = self.outside.now + wait;
        let looks = |alarm: &Alarm| matches!(alarm, Alarm::LookInto { .. });
        self.outside.timers.retain(|alarm| !(looks(alarm) && alarm.is_about(suspect.node)));
        self.outside.timers.set(deadline, Alarm::LookInto { suspect, incarnation });
    }
}
