//! What foca asks of the world: sent datagrams and alarms, collected until the input is handled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Codec, Message, Notification, Runtime, Timer, TimerToken};

use super::codec::{self, Wire};
use super::identity::Life;
use super::pace;
use super::standing::Tried;
use super::timers::{Alarm, Timers};
use crate::id::NodeId;

/// The number in the probes that this node sends without foca. foca uses it, too, once in 256
/// probes, so no round trip is measured by it.
pub(super) const OUT_OF_TURN: u8 = 0;

/// The probe that waits for an answer.
struct Probe {
    number: u8,
    target: NodeId,
    datagram: Vec<u8>,
    repeats_left: u8,
}

/// What became of foca's latest probe.
struct Probed {
    node: NodeId,
    number: u8,
    since: Duration,
    /// Whether the member answered, itself or through another.
    answered: bool,
}

/// What was tried to hear of a member.
struct Try {
    since: Duration,
    probes: u32,
    /// At most [`pace::HELPERS_NAMED_MAX`].
    through: Vec<NodeId>,
}

/// foca's runtime, and what is measured on the way through it.
#[derive(Default)]
pub(super) struct Outside {
    pub(super) now: Duration,
    pub(super) timers: Timers,
    pub(super) send: Vec<(NodeId, Vec<u8>)>,
    /// This node's incarnation, as it last left in a header.
    pub(super) incarnation: u16,
    /// Whether this node took up a new life, because it was declared down.
    pub(super) renewed: bool,
    /// The members that foca told of. Emptied with every input.
    pub(super) touched: BTreeSet<NodeId>,
    probed: Option<Probed>,
    /// The token in the alarms of foca's present series of probes.
    round: Option<TimerToken>,
    /// What was tried since a member was last heard of. Bounded by the roster.
    tried: BTreeMap<NodeId, Try>,
    probe: Option<Probe>,
    /// The latest direct probe of each member that was not answered yet, and when it was sent, each
    /// time. Bounded by the roster.
    asked: BTreeMap<NodeId, (u8, Vec<Duration>)>,
    /// Round trips, quick to grow and slow to shrink. Bounded by the roster.
    rtts: BTreeMap<NodeId, Duration>,
}

impl Outside {
    /// The round trip to a member, as far as it was measured.
    pub(super) fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.rtts.get(&node).copied()
    }

    /// The member that was probed last.
    pub(super) fn probed(&self) -> Option<NodeId> {
        self.probed.as_ref().map(|probed| probed.node)
    }

    /// Whether an alarm belongs to foca's present series of probes. With a new life, a new series
    /// begins.
    pub(super) fn is_of_this_round(&self, token: TimerToken) -> bool {
        self.round == Some(token)
    }

    /// The time of the latest probe is over.
    pub(super) fn judge_probe(&mut self) {
        if let Some(probed) = self.probed.take() {
            self.timers.judge_probe(probed.node, probed.answered);
        }
    }

    /// What was tried since `node` was last heard of.
    pub(super) fn tried(&self, node: NodeId) -> Tried {
        let Some(tried) = self.tried.get(&node) else { return Tried::default() };
        Tried {
            probes: tried.probes,
            over: self.now.saturating_sub(tried.since),
            through: tried.through.clone(),
        }
    }

    pub(super) fn asked_directly(&mut self, node: NodeId) {
        self.tries(node).probes += 1;
    }

    pub(super) fn asked_through(&mut self, node: NodeId, helper: NodeId) {
        let through = &mut self.tries(node).through;
        if through.len() < pace::HELPERS_NAMED_MAX && !through.contains(&helper) {
            through.push(helper);
        }
    }

    /// A member was heard: what was tried before is of no more interest.
    pub(super) fn heard_of(&mut self, node: NodeId) {
        self.tried.remove(&node);
    }

    fn tries(&mut self, node: NodeId) -> &mut Try {
        let since = self.now;
        self.tried.entry(node).or_insert_with(|| Try { since, probes: 0, through: Vec::new() })
    }

    /// Takes note that a member answered through another one that was asked to try.
    pub(super) fn answered_through(&mut self, node: NodeId, number: u8) {
        self.answered_somehow(node, number);
        self.heard_of(node);
    }

    /// A member has answered, directly or through another one. If it answered foca's latest probe,
    /// the next probe waits until the period ends.
    fn answered_somehow(&mut self, node: NodeId, number: u8) {
        let Some(probed) = self.probed.as_mut().filter(|probed| probed.node == node) else {
            return;
        };
        probed.answered = true;
        if probed.number == number {
            let timeout = pace::PROBE_TIMEOUT * self.timers.multiplier();
            self.timers.put_off_probe(probed.since + pace::PROBE_PERIOD.max(timeout));
        }
    }

    /// How long a verdict on a member waits: `base`, or more if the way to it is long, or this host
    /// slow or perhaps deaf.
    pub(super) fn patience_of_verdict(&self, base: Duration, node: NodeId) -> Duration {
        let rtt = self.rtt(node).unwrap_or(pace::RTT_UNMEASURED);
        base.max(rtt * 4) * self.timers.verdict_multiplier()
    }

    /// How long to wait for a member: `base`, or more if the way to it is long or this host slow.
    pub(super) fn patience(&self, base: Duration, node: NodeId, round_trips: f64) -> Duration {
        let rtt = self.rtt(node).unwrap_or_default();
        base.max(rtt.mul_f64(round_trips)) * self.timers.multiplier()
    }

    /// Takes note of the answer to a direct probe.
    pub(super) fn answered(&mut self, node: NodeId, number: u8) {
        self.answered_somehow(node, number);
        if self.probe.as_ref().is_some_and(|p| p.number == number && p.target == node) {
            self.probe = None;
            self.timers.retain(|alarm| *alarm != Alarm::AskAgain { number });
        }
        if self.asked.get(&node).is_some_and(|(asked, _)| *asked == number)
            && let Some((_, sent)) = self.asked.remove(&node)
        {
            // Nobody can tell which copy of the probe the answer is for. Count from the latest
            // copy, unless the round trip would then be far shorter than ever. Counting from the
            // first copy would add the waits after lost copies to the round trip, and so make the
            // next waits longer still.
            let known = self.rtts.get(&node).copied();
            let ages = sent.iter().rev().map(|sent| self.now.saturating_sub(*sent));
            let credible = |age: &Duration| *age >= known.unwrap_or_default() / 4;
            let Some(sample) = ages.clone().find(credible).or(ages.clone().next_back()) else {
                return;
            };
            // A member that stood still answers late; it is no farther away for that.
            let sample = sample.min(pace::RTT_MAX);
            let known = known.unwrap_or(sample);
            self.rtts.insert(node, sample.max((known * 7 + sample) / 8));
        }
    }

    /// Sends the probe `number` once more, if it still waits.
    pub(super) fn ask_again(&mut self, number: u8) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number) else {
            return;
        };
        let target = probe.target;
        self.send.push((target, probe.datagram.clone()));
        if let Some((_, sent)) = self.asked.get_mut(&target) {
            sent.push(self.now);
        }
        probe.repeats_left -= 1;
        if probe.repeats_left == 0 {
            self.probe = None;
        } else {
            self.set_ask_again(number, target);
        }
        self.asked_directly(target);
    }

    /// Starts to insist on an answer of a suspect, once.
    pub(super) fn insist(&mut self, suspect: Life, incarnation: u16) {
        let alarm = Alarm::Insist { suspect, incarnation };
        self.timers.retain(|other| *other != alarm);
        self.timers.set(self.now, alarm);
    }

    /// Forgets what was measured of a member, and what is due about it.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.asked.remove(&node);
        self.rtts.remove(&node);
        self.tried.remove(&node);
        self.timers.forget(node);
        if self.probe.as_ref().is_some_and(|probe| probe.target == node) {
            self.probe = None;
        }
        self.timers.retain(|alarm| !alarm.is_about(node));
    }

    /// Whether a probe waits for its answer.
    #[cfg(test)]
    pub(super) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    fn set_ask_again(&mut self, number: u8, target: NodeId) {
        let wait = self.patience(pace::ASK_AGAIN, target, 1.5);
        self.timers.set(self.now + wait, Alarm::AskAgain { number });
    }
}

impl Runtime<Life> for Outside {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        match notification {
            Notification::Rejoin(_) => self.renewed = true,
            Notification::MemberUp(life)
            | Notification::MemberDown(life)
            | Notification::Rename(_, life) => {
                self.touched.insert(life.node);
            }
            _ => {}
        }
    }

    fn send_to(&mut self, to: Life, data: &[u8]) {
        let datagram = codec::sealed(data);
        if let Ok(header) = Wire.decode_header(data) {
            self.incarnation = header.src_incarnation;
            if let Message::PingReq { target, .. } = header.message {
                self.asked_through(target.node, to.node);
            }
            if let Message::Ping(number) = header.message {
                self.probed =
                    Some(Probed { node: to.node, number, since: self.now, answered: false });
                self.asked_directly(to.node);
                if number != OUT_OF_TURN {
                    self.asked.insert(to.node, (number, vec![self.now]));
                }
                self.probe = Some(Probe {
                    number,
                    target: to.node,
                    datagram: datagram.clone(),
                    repeats_left: pace::ASK_AGAIN_MAX,
                });
                self.set_ask_again(number, to.node);
            }
        }
        self.send.push((to.node, datagram));
    }

    fn submit_after(&mut self, timer: Timer<Life>, after: Duration) {
        let wait = match &timer {
            Timer::SendIndirectProbe { probed_id, .. } => self.patience(after, probed_id.node, 1.5),
            Timer::ProbeRandomMember(token) => {
                self.round = Some(*token);
                match &self.probe {
                    Some(probe) => self.patience(after, probe.target, 4.0),
                    None => after * self.timers.multiplier(),
                }
            }
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                // foca suspects it as of now.
                self.touched.insert(member_id.node);
                self.insist(*member_id, *incarnation);
                self.patience_of_verdict(after, member_id.node)
            }
            _ => after,
        };
        self.timers.set(self.now + wait, Alarm::Foca(timer));
    }
}
