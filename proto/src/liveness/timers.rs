//! The core's own alarm clock: what is due when, and what a stall of this host does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::Timer;

use super::identity::Life;
use crate::id::NodeId;

/// How late an alarm may be served before this host counts as stalled.
const STALL: Duration = Duration::from_millis(60);

/// The worst local health, as the multiplier's excess over 1 (Lifeguard's saturation value).
const HEALTH_WORST: u32 = 8;

/// How often a host that probes nobody counts as one step less late, if it seeks in time.
const FORGIVEN_BY_SEEKING: Duration = Duration::from_secs(3);

/// The most that probes without an answer add to the multiplier of verdicts: a node that is cut off
/// from all others still declares the last of them down 4.5 s after it asked.
const DEAFNESS_WORST: u32 = 4;

/// What is to be done at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Alarm {
    /// An alarm that foca set.
    Foca(Timer<Life>),
    /// Spread the news, while there are any.
    Gossip,
    /// Ask members that are away.
    Seek,
    /// Ask the probed member once more, if it is still this probe.
    AskAgain { number: u8 },
    /// Ask the member that this node watches.
    Watch,
    /// Ask the watched member again, unless it was heard of.
    AskWatched { node: NodeId, since: Duration, asks_left: u8 },
    /// Ask a member against which there is evidence.
    AskOutOfTurn(NodeId),
    /// Suspect a member against which there is evidence, if it did not answer.
    Accuse(NodeId),
    /// Tell a suspect that it is suspected, and ask it to object.
    Insist { suspect: Life, incarnation: u16 },
    /// Declare down a suspect of whose death there is evidence, if it did not object.
    Verdict { suspect: Life, incarnation: u16 },
    /// Ask a member that others suspect, if they did not come to a verdict.
    LookInto { suspect: Life, incarnation: u16 },
    /// Stop waiting for a member that the roster named and nobody met.
    GiveUp(NodeId),
}

impl Alarm {
    /// Whether the alarm is for something that this node itself does about a member; foca's own
    /// alarms are not.
    pub(super) fn is_about(&self, node: NodeId) -> bool {
        match self {
            Self::Insist { suspect, .. }
            | Self::Verdict { suspect, .. }
            | Self::LookInto { suspect, .. } => suspect.node == node,
            Self::GiveUp(about)
            | Self::AskOutOfTurn(about)
            | Self::Accuse(about)
            | Self::AskWatched { node: about, .. } => *about == node,
            Self::Foca(_) | Self::Gossip | Self::Seek | Self::AskAgain { .. } | Self::Watch => {
                false
            }
        }
    }

    /// Whether the alarm belongs to this node's private check of the evidence against a member.
    pub(super) fn doubts(&self, node: NodeId) -> bool {
        matches!(self, Self::AskOutOfTurn(_) | Self::Accuse(_)) && self.is_about(node)
    }

    /// Whether the alarm is for asking a watched member again.
    pub(super) fn watches(&self, node: NodeId) -> bool {
        matches!(self, Self::AskWatched { .. }) && self.is_about(node)
    }
}

/// Alarms in the order of their deadlines, and how well this host serves them.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// By deadline, then by the order in which they were set.
    queue: BTreeMap<(Duration, u64), Alarm>,
    next_seq: u64,
    health: u32,
    /// When `health` was lowered last.
    forgiven: Duration,
    /// The members whose probes had no answer since a probe was answered last.
    missed: BTreeSet<NodeId>,
    deafness: u32,
}

impl Timers {
    pub(super) fn set(&mut self, deadline: Duration, alarm: Alarm) {
        self.queue.insert((deadline, self.next_seq), alarm);
        self.next_seq += 1;
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the next alarm that is due.
    pub(super) fn due(&mut self, now: Duration) -> Option<Alarm> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, alarm) = self.queue.pop_first()?;
        let forgives = match alarm {
            Alarm::Foca(Timer::ProbeRandomMember(_)) => true,
            // A host that has nobody to probe still seeks.
            Alarm::Seek => now >= self.forgiven + FORGIVEN_BY_SEEKING,
            _ => false,
        };
        if forgives {
            self.health = self.health.saturating_sub(1);
            self.forgiven = now;
        }
        Some(alarm)
    }

    /// How many alarms are set.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether foca's next probe begins before this time.
    #[cfg(test)]
    pub(super) fn probes_before(&self, time: Duration) -> bool {
        let is_probe = |alarm: &Alarm| matches!(alarm, Alarm::Foca(Timer::ProbeRandomMember(_)));
        self.queue.iter().any(|((due, _), alarm)| *due < time && is_probe(alarm))
    }

    /// Whether an alarm is set that `is` accepts.
    pub(super) fn any(&self, is: impl Fn(&Alarm) -> bool) -> bool {
        self.queue.values().any(is)
    }

    /// foca's next probe begins at `deadline`, unless it is set for later.
    pub(super) fn put_off_probe(&mut self, deadline: Duration) {
        let is_probe = |alarm: &Alarm| matches!(alarm, Alarm::Foca(Timer::ProbeRandomMember(_)));
        let set = self.queue.iter().find(|(_, alarm)| is_probe(alarm)).map(|(key, _)| *key);
        if let Some(key) = set.filter(|(set, _)| *set < deadline)
            && let Some(alarm) = self.queue.remove(&key)
        {
            self.set(deadline, alarm);
        }
    }

    /// Drops the alarms that `keep` refuses.
    pub(super) fn retain(&mut self, keep: impl Fn(&Alarm) -> bool) {
        self.queue.retain(|_, alarm| keep(alarm));
    }

    /// Notices that this host stood still: an alarm waits since longer than [`STALL`]. During the
    /// stall this host did not listen, so the silence counts against nobody: all alarms move by the
    /// length of the stall. A host that stalls again and again judges slower, up to ninefold: the
    /// Local Health Multiplier of Dadgar et al., "Lifeguard: Local Health Awareness for More
    /// Accurate Failure Detection" (2018), section IV-A.
    pub(super) fn notice_stall(&mut self, now: Duration) {
        let Some(late) = self.next_deadline().and_then(|due| now.checked_sub(due)) else {
            return;
        };
        if late < STALL {
            return;
        }
        // One step more than the probe that is due will take off.
        self.health = (self.health + 2).min(HEALTH_WORST);
        let stale = std::mem::take(&mut self.queue);
        self.queue =
            stale.into_iter().map(|((due, seq), alarm)| ((due + late, seq), alarm)).collect();
    }

    /// Assumes that this host is late by so many steps, until it shows otherwise.
    pub(super) fn presume_late(&mut self, health: u32) {
        self.health = self.health.max(health.min(HEALTH_WORST));
    }

    /// Takes note of what became of a probe. If one member does not answer, the fault may be its
    /// own. If several members in a row do not answer, this host may be cut off or deaf, so each
    /// further one makes its verdicts slower, and each answer makes them quicker: Lifeguard's
    /// failed probes, counted only where they cannot be the fault of one member. Questions go on at
    /// their pace, so that a host that is truly alone finds out in bounded time.
    pub(super) fn judge_probe(&mut self, node: NodeId, answered: bool) {
        if answered {
            self.missed.clear();
            self.deafness = self.deafness.saturating_sub(1);
        } else if self.missed.insert(node) && self.missed.len() > 1 {
            self.deafness = (self.deafness + 1).min(DEAFNESS_WORST);
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.missed.remove(&node);
    }

    /// How many times as long as usual this host waits before a verdict.
    pub(super) fn verdict_multiplier(&self) -> u32 {
        1 + (self.health + self.deafness).min(HEALTH_WORST)
    }

    /// How many times as long as usual this host waits for others.
    pub(super) fn multiplier(&self) -> u32 {
        1 + self.health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stall_moves_all_alarms_and_keeps_their_distance() {
        let mut timers = Timers::default();
        timers.set(100 * MS, Alarm::Seek);
        timers.set(300 * MS, Alarm::Gossip);
        timers.notice_stall(5_000 * MS);
        assert_eq!(timers.due(5_000 * MS), Some(Alarm::Seek));
        assert_eq!(timers.due(5_199 * MS), None);
        assert_eq!(timers.due(5_200 * MS), Some(Alarm::Gossip));
        assert!(timers.multiplier() > 1);
    }

    #[test]
    fn only_several_silent_members_in_a_row_make_a_verdict_slower() {
        let mut timers = Timers::default();
        let id = |n: u8| NodeId([n; 32]);
        for _ in 0..5 {
            timers.judge_probe(id(1), false);
        }
        assert_eq!(timers.verdict_multiplier(), 1, "it may well be dead");
        timers.judge_probe(id(2), false);
        assert_eq!(timers.verdict_multiplier(), 2);
        timers.judge_probe(id(3), true);
        assert_eq!(timers.verdict_multiplier(), 1);
        for n in 0..100 {
            timers.judge_probe(id(n), false);
        }
        assert_eq!(timers.verdict_multiplier(), 1 + DEAFNESS_WORST);
        assert_eq!(timers.multiplier(), 1, "it goes on asking");
    }

    #[test]
    fn health_comes_back_with_probes_in_time() {
        let mut timers = Timers::default();
        for n in 0..20 {
            timers.set(n * 1_000 * MS, Alarm::Seek);
            timers.notice_stall((n * 1_000 + 500) * MS);
            assert!(timers.due((n * 1_000 + 500) * MS).is_some());
        }
        assert_eq!(timers.multiplier(), 1 + HEALTH_WORST);
        for n in 0..10 {
            timers.set(n * MS, Alarm::Foca(Timer::ProbeRandomMember(0)));
            timers.due(n * MS);
        }
        assert_eq!(timers.multiplier(), 1);
    }

    #[test]
    fn health_comes_back_without_anybody_to_probe() {
        let mut timers = Timers::default();
        timers.presume_late(HEALTH_WORST);
        let mut seek = |at: Duration| {
            timers.set(at, Alarm::Seek);
            timers.due(at);
            timers.multiplier()
        };
        let soon = (1..=20).map(|n| seek(n * 100 * MS)).last();
        assert!(soon >= Some(HEALTH_WORST), "one in a while, however often it seeks");
        let later = (3..=30).map(|n| seek(n * 1_000 * MS)).last();
        assert_eq!(later, Some(1));
    }
}
