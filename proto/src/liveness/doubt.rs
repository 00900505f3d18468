//! What this node does about evidence that a member died, before a probe of that member failed.
//!
//! A refused port may be the truth: the process died and its host says so. It may also come from an
//! agent that starts anew, from a firewall between two hosts, or from a forger. So this node first
//! checks in private: it asks the member directly, more than once, and through others. Only a
//! member that gives no answer is suspected. It is told so like any suspect, and after a refusal it
//! is declared down sooner than for silence alone. A member that answers is not doubted again for a
//! while, so nobody can make this node do more than ask.

use std::time::Duration;

use foca::{Member, Message};
use rand::RngExt;

use super::identity::Life;
use super::outside::OUT_OF_TURN;
use super::timers::Alarm;
use super::{Liveness, Outputs, State, codec, pace};
use crate::id::NodeId;
use crate::time::Now;

/// Evidence of a member's death, besides a probe of foca's without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It did not answer the member that watches it.
    Missed,
    /// It was dialled and did not answer, or its connection broke. This is a kind of silence, so it
    /// has as much time to object as a member that missed a probe.
    Unreachable,
    /// Its host answered that nobody listens at its port.
    Refused,
}

impl Evidence {
    /// How long the member is asked in private, and how long it may take to object after that.
    fn patience(self, suspicion: Duration) -> (Duration, Duration) {
        match self {
            Self::Missed => (pace::PROBE_TIMEOUT - pace::PROBE_DIRECT, suspicion),
            Self::Unreachable => (pace::PROBE_TIMEOUT, suspicion),
            Self::Refused => (pace::EVIDENCE_PROBE, pace::EVIDENCE_SUSPICION),
        }
    }

    /// For how long further evidence is ignored after the member answered. [`Evidence::Missed`] is
    /// never ignored: this node found it by its own question, so nobody can forge it.
    pub(super) fn rest(self) -> Duration {
        match self {
            Self::Missed => Duration::ZERO,
            Self::Unreachable | Self::Refused => pace::EVIDENCE_REST,
        }
    }
}

/// Evidence that is being looked into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    pub(super) evidence: Evidence,
}

impl Liveness {
    /// There is evidence that `node` died. It is asked at once, directly and through others. If it
    /// does not answer it is suspected, and declared down if it does not object: 0.3 s after a
    /// refusal.
    pub fn evidence(&mut self, now: Now, node: NodeId, evidence: Evidence) -> Outputs {
        self.wake(now);
        if !self.gone {
            self.doubt(node, evidence);
        }
        self.outputs()
    }

    pub(super) fn doubt(&mut self, node: NodeId, evidence: Evidence) {
        let now = self.outside.now;
        if let Some(entry) = self.members.get_mut(&node)
            && matches!(entry.standing.state, State::Alive | State::Suspect)
            && (evidence == Evidence::Missed || now >= entry.trusted_until)
            && entry.doubt.is_none_or(|doubt| doubt.evidence < evidence)
        {
            entry.doubt = Some(Doubt { evidence });
            self.outside.timers.retain(|alarm| !alarm.doubts(node));
            self.ask_others(node);
            self.ask_out_of_turn(node);
            let suspicion = pace::config(self.members.len() + 1).suspect_to_down_after;
            let (mut probe, _) = evidence.patience(suspicion);
            if self.outside.rtt(node).is_none() {
                probe = probe.max(pace::RTT_UNMEASURED.mul_f64(1.5));
            }
            let wait = self.outside.patience(probe, node, 1.5);
            self.outside.timers.set(now + wait, Alarm::Accuse(node));
        }
    }

    /// The member answered, so it lives: drops the evidence against it.
    pub(super) fn vindicate(&mut self, node: NodeId) {
        let now = self.outside.now;
        self.outside.timers.retain(|alarm| !alarm.watches(node));
        let Some(entry) = self.members.get_mut(&node) else { return };
        if let Some(doubt) = entry.doubt.take() {
            entry.trust(doubt, now);
            self.outside.timers.retain(|alarm| !alarm.doubts(node));
        }
    }

    pub(super) fn ask_out_of_turn(&mut self, node: NodeId) {
        let Some(entry) = self.members.get(&node).filter(|entry| entry.doubt.is_some()) else {
            return;
        };
        // Other members may suspect it already. Then this question tells it so, and it can object.
        let state = match entry.standing.state {
            State::Suspect => foca::State::Suspect,
            _ => foca::State::Alive,
        };
        if let Some(life) = entry.life {
            self.ask(life, Member::new(life, entry.incarnation, state));
        }
        let wait = self.outside.patience(pace::ASK_OUT_OF_TURN, node, 1.5);
        self.outside.timers.set(self.outside.now + wait, Alarm::AskOutOfTurn(node));
    }

    /// Nobody got an answer: the member is suspected, and told so.
    pub(super) fn accuse(&mut self, node: NodeId) {
        let Some(entry) = self.members.get(&node) else { return };
        let (Some(doubt), Some(life), incarnation) = (entry.doubt, entry.life, entry.incarnation)
        else {
            return;
        };
        let suspicion = pace::config(self.members.len() + 1).suspect_to_down_after;
        let (_, base) = doubt.evidence.patience(suspicion);
        self.outside.timers.retain(|alarm| !alarm.doubts(node));
        self.apply(Member::new(life, incarnation, foca::State::Suspect), true);
        self.outside.insist(life, incarnation);
        self.ask_others(node);
        let wait = self.outside.patience_of_verdict(base, node);
        let verdict = Alarm::Verdict { suspect: life, incarnation };
        self.outside.timers.set(self.outside.now + wait, verdict);
    }

    /// Asks a few other members to try.
    fn ask_others(&mut self, node: NodeId) {
        let Some(target) = self.members.get(&node).and_then(|entry| entry.life) else { return };
        let mut helpers: Vec<Life> = Vec::with_capacity(pace::FANOUT);
        let mut seen = 0;
        // Each member that is alive is drawn with the same chance, in one pass.
        for (other, entry) in &self.members {
            let Some(life) = entry.life.filter(|_| entry.standing.state == State::Alive) else {
                continue;
            };
            if *other == node {
                continue;
            }
            seen += 1;
            if helpers.len() < pace::FANOUT {
                helpers.push(life);
            } else if let Some(place) = helpers.get_mut(self.rng.random_range(0..seen)) {
                *place = life;
            }
        }
        for helper in helpers {
            let header =
                self.header(helper, Message::PingReq { target, probe_number: OUT_OF_TURN });
            self.outside.asked_through(node, helper.node);
            self.outside.send.push((helper.node, codec::composed(&header, None)));
        }
    }
}
