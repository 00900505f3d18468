//! Who is alive: SWIM over datagrams, by the crate `foca`, taught by the roster.
//!
//! What this module promises beyond foca:
//! - Only members that the roster names are heard, asked or spoken of. A removed node stays out,
//!   whatever others gossip, and every datagram names the peer that it came from as its sender.
//! - A member that the roster names is sought until it is met, and one that is away is sought for
//!   ever, at a bounded rate: any partition heals by itself.
//! - A node that was declared down wrongly, or whose disk and boot number were rolled back, comes
//!   back by itself under a later life.
//! - A host that stood still does not hold its own deafness against others (see [`timers`]).
//! - What speaks for a death, such as a refused port, hastens the question and never is the answer.
//! - Whoever falls silent is asked by another member within a bounded time (see [`watch`]).
//! - An idle Data Center sends two probes and two answers per node and period, and nothing
//!   else.
//! - An input costs what it touches. What grows with the number of members is foca's own search by
//!   address, once for each news, and asking around while members are not met yet.
//!
//! The core holds no clock: every input says what time it is, and [`Liveness::next_deadline`] when
//! [`Liveness::expired`] is to be called. A later call does no harm.

mod codec;
mod doubt;
mod identity;
mod outside;
mod pace;
mod standing;
mod timers;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Foca, Header, Incarnation, Member, Message, NoCustomBroadcast, Timer};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use self::codec::{Opened, Wire};
use self::doubt::Doubt;
use self::identity::{BOOT_UNMET, Life};
use self::outside::{OUT_OF_TURN, Outside};
use self::timers::Alarm;
use crate::id::NodeId;
use crate::time::Now;

pub use self::codec::{DATAGRAM_MAX, can_wait};
pub use self::doubt::Evidence;
pub use self::standing::{LivenessEvent, Return, Standing, State, Tried, Why};

/// The incarnation under which a node is spread as down when it left on its own accord: nobody
/// reaches it by objecting to suspicions.
const INCARNATION_LEFT: Incarnation = Incarnation::MAX;

/// What is to be done after an input.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outputs {
    /// Datagrams of at most [`DATAGRAM_MAX`] bytes. They may be lost, and are dropped where there
    /// is no connection.
    pub send: Vec<(NodeId, Vec<u8>)>,
    /// What changed, in the order of the nodes' ids.
    pub notify: Vec<LivenessEvent>,
}

/// Why a datagram was not listened to. Nothing changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a liveness datagram of a version that this agent speaks.
    #[error("not a liveness datagram of a version that this agent speaks")]
    Malformed,
    /// It names another sender than the peer that it came from, or another receiver.
    #[error("the datagram names another sender or receiver")]
    Misattributed,
    /// It comes from, or is about, a node that the roster does not name: perhaps not yet.
    #[error("the roster names no such node")]
    Stranger,
}

/// The failure detector of one node.
pub struct Liveness {
    me: NodeId,
    foca: Foca<Life, Wire, StdRng, NoCustomBroadcast>,
    outside: Outside,
    /// Draws the members that are asked to try, where foca does not.
    rng: StdRng,
    /// Every member that the roster names, but this node.
    members: BTreeMap<NodeId, Entry>,
    /// Whether [`Alarm::Gossip`] is set.
    gossiping: bool,
    /// Whether [`Alarm::Watch`] is set.
    watching: bool,
    /// When news were passed on last.
    gossiped: Option<Duration>,
    /// Whether [`Alarm::Seek`] is set, and for when.
    seeking: Option<Duration>,
    /// The members that are away, by when they were last asked.
    away: BTreeSet<(Duration, NodeId)>,
    /// How many members are [`State::Unknown`].
    unknown: usize,
    /// When a member was last found to be away.
    away_since: Duration,
    /// The members of whom foca may have heard news that [`Liveness::settle`] did not see yet.
    touched: BTreeSet<NodeId>,
    /// Whether this node said goodbye. It is silent from then on.
    gone: bool,
    notify: Vec<LivenessEvent>,
}

/// A member, and what is needed to judge it.
struct Entry {
    standing: Standing,
    life: Option<Life>,
    incarnation: Incarnation,
    /// What speaks against it, while that is looked into or until it is alive again.
    doubt: Option<Doubt>,
    /// Until when nothing that speaks against it is listened to: it answered in spite of such.
    trusted_until: Duration,
    /// Whether it took this node for lost while it was away.
    missed_us: bool,
    reprieves: u8,
    /// When it was last asked while away.
    sought: Duration,
}

/// What led to a change.
#[derive(Clone, Copy)]
enum Cause {
    Told(NodeId),
    Silence,
}

impl Liveness {
    /// The detector of node `me` in its `boot`, which is larger than any before and not zero.
    pub fn new(me: NodeId, boot: u64, mut rng: StdRng) -> Self {
        let life = Life { node: me, boot: boot.max(BOOT_UNMET + 1), renewal: 0 };
        Self {
            me,
            rng: StdRng::from_rng(&mut rng),
            foca: Foca::new(life, pace::config(1), rng, Wire),
            outside: Outside::default(),
            members: BTreeMap::new(),
            gossiping: false,
            watching: false,
            gossiped: None,
            seeking: None,
            away: BTreeSet::new(),
            unknown: 0,
            away_since: Duration::ZERO,
            touched: BTreeSet::new(),
            gone: false,
            notify: Vec::new(),
        }
    }

    /// How every member but this node stands, by id.
    pub fn standings(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        self.members.iter().map(|(node, entry)| {
            (*node, Standing { rtt: self.outside.rtt(*node), ..entry.standing.clone() })
        })
    }

    /// When [`Liveness::expired`] is to be called, on the clock of [`Now::mono`]. It changes with
    /// every input.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.outside.timers.next_deadline()
    }

    /// By how much this host is slower than it should be, from 1 to 9: Lifeguard's local health
    /// multiplier. What can wait should, by as much.
    pub fn local_health_multiplier(&self) -> u32 {
        self.outside.timers.multiplier()
    }

    /// The roster's members are these; this node among them or not.
    pub fn members(&mut self, now: Now, members: &BTreeSet<NodeId>) -> Outputs {
        self.wake(now);
        if self.gone {
            return self.outputs();
        }
        let gone: Vec<NodeId> =
            self.members.keys().filter(|node| !members.contains(node)).copied().collect();
        for node in gone {
            self.forget(node);
        }
        if self.members.is_empty() {
            self.outside.timers.presume_late(pace::health_at_start(members.len()));
        }
        let patience = pace::unknown_patience(members.len());
        for node in members {
            if *node != self.me && !self.members.contains_key(node) {
                self.teach(*node, patience);
            }
        }
        self.foca
            .set_config(pace::config(self.members.len() + 1))
            .expect("only what foca lets change differs");
        self.settle(Cause::Silence);
        self.outputs()
    }

    /// A datagram came from the authenticated peer `from`.
    ///
    /// # Errors
    /// [`Refused`], for bytes of any content and length; nothing changed.
    pub fn heard(&mut self, now: Now, from: NodeId, datagram: &[u8]) -> Result<Outputs, Refused> {
        self.wake(now);
        let opened = Opened::parse(datagram).map_err(|_| Refused::Malformed)?;
        let Header { src, src_incarnation, dst, message } = &opened.header;
        if src.node != from || dst.node != self.me {
            return Err(Refused::Misattributed);
        }
        let about = match message {
            Message::PingReq { target: life, .. }
            | Message::IndirectPing { origin: life, .. }
            | Message::IndirectAck { target: life, .. }
            | Message::ForwardedAck { origin: life, .. } => Some(life.node),
            _ => None,
        };
        let known = |node: NodeId| self.members.contains_key(&node);
        if !src.is_credible() || !known(from) || !about.is_none_or(known) {
            return Err(Refused::Stranger);
        }
        if self.gone {
            return Ok(self.outputs());
        }

        self.outlive(&opened);
        let me = *self.foca.identity();
        let bytes = opened.filtered(|member| {
            let life = member.id();
            *life == me || (self.members.contains_key(&life.node) && life.is_credible())
        });
        let now = self.outside.now;
        if let Message::Ack(number) = message {
            self.outside.answered(from, *number);
            if *number == OUT_OF_TURN {
                self.vindicate(from);
            }
        }
        if let (Message::ForwardedAck { probe_number, .. }, Some(origin)) = (message, about) {
            self.outside.answered_through(origin, *probe_number);
            if *probe_number == OUT_OF_TURN {
                self.vindicate(origin);
            }
            if let Some(entry) = self.members.get_mut(&origin)
                && entry.standing.heard.is_none_or(|heard| heard + pace::PROBE_TIMEOUT < now)
            {
                entry.standing.through = Some(from);
            }
        }
        self.outside.heard_of(from);
        let entry = self.members.get_mut(&from).expect("it is known, as checked above");
        entry.standing.heard = Some(now);
        entry.standing.through = None;
        // Who takes this node for lost says so, or seeks it; and one that has just started asks
        // around, but that one has a life that is new.
        entry.missed_us |=
            entry.is_away() && matches!(message, Message::Announce | Message::TurnUndead);
        self.touch(&Member::new(*src, *src_incarnation, foca::State::Alive));
        for (member, _) in &opened.members {
            self.touch(member);
        }
        // foca's errors here are a peer's mistakes that do no harm, such as a probe that comes
        // back to where it began.
        let _ = self.foca.handle_data(&bytes, &mut self.outside);
        self.settle(Cause::Told(from));
        Ok(self.outputs())
    }

    /// A connection with `node` stands: if it was away it is asked at once.
    pub fn met(&mut self, now: Now, node: NodeId) -> Outputs {
        self.wake(now);
        let away = self.members.get(&node).is_some_and(Entry::is_away);
        if away && !self.gone {
            self.announce_to(node);
        }
        self.outputs()
    }

    /// The authenticated peer `node` said goodbye.
    pub fn left(&mut self, now: Now, node: NodeId) -> Outputs {
        self.wake(now);
        if self.gone {
            return self.outputs();
        }
        if let Some(entry) = self.members.get(&node) {
            match entry.life {
                Some(life) => {
                    self.apply(Member::new(life, INCARNATION_LEFT, foca::State::Down), true);
                }
                None => self.change(node, State::Left, Why::Goodbye),
            }
            self.settle(Cause::Told(node));
        }
        self.outputs()
    }

    /// Says goodbye to every member that is not away. This node is silent from then on, and asks
    /// for no more time.
    pub fn goodbye(&mut self, now: Now) -> Outputs {
        self.wake(now);
        let me = *self.foca.identity();
        let last_word = Member::new(me, INCARNATION_LEFT, foca::State::Down);
        for entry in self.members.values().filter(|entry| !self.gone && !entry.is_away()) {
            if let Some(life) = entry.life {
                let header = self.header(life, Message::Gossip);
                self.outside.send.push((life.node, codec::composed(&header, Some(&last_word))));
            }
        }
        self.gone = true;
        self.outside.timers.retain(|_| false);
        self.outputs()
    }

    /// The time of [`Liveness::next_deadline`] has come, or is past.
    pub fn expired(&mut self, now: Now) -> Outputs {
        self.wake(now);
        while let Some(alarm) = self.outside.timers.due(self.outside.now) {
            self.serve(alarm);
            // The next one may be about what this one brought.
            self.settle(Cause::Silence);
        }
        self.outputs()
    }

    fn serve(&mut self, alarm: Alarm) {
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
                    // It begins with what became of the probe before.
                    Timer::ProbeRandomMember(token) if self.outside.is_of_this_round(*token) => {
                        self.touched.extend(self.outside.probed());
                        self.outside.judge_probe();
                    }
                    _ => {}
                }
                // It fails for alarms of a time before this node was alone; they are over.
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

    /// Nobody met it in time; where this host is late, it has more.
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

    fn is_suspected(&self, suspect: &Life, incarnation: Incarnation) -> bool {
        self.members.get(&suspect.node).is_some_and(|entry| {
            entry.life == Some(*suspect)
                && entry.incarnation == incarnation
                && entry.standing.state == State::Suspect
        })
    }

    /// The member that accused another passes the verdict. Where it does not, because it stopped
    /// or its change of mind got lost, this node looks into it itself: no suspicion lasts.
    fn expect_verdict(&mut self, suspect: Life, incarnation: Incarnation) {
        let suspicion = pace::config(self.members.len() + 1).suspect_to_down_after;
        let apart = pace::LOOKERS_APART * u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        // It is no verdict but a question, so it may be too early.
        let wait = suspicion * pace::VERDICT_BY_OTHERS + apart.mul_f64(self.rng.random());
        let deadline = self.outside.now + wait;
        let looks = |alarm: &Alarm| matches!(alarm, Alarm::LookInto { .. });
        self.outside.timers.retain(|alarm| !(looks(alarm) && alarm.is_about(suspect.node)));
        self.outside.timers.set(deadline, Alarm::LookInto { suspect, incarnation });
    }

    fn teach(&mut self, node: NodeId, patience: Duration) {
        let standing = Standing {
            state: State::Unknown,
            since: self.outside.now,
            why: Why::Taught,
            boot: None,
            heard: None,
            rtt: None,
            through: None,
        };
        let entry = Entry {
            standing,
            life: None,
            incarnation: 0,
            doubt: None,
            trusted_until: Duration::ZERO,
            missed_us: false,
            reprieves: 0,
            sought: Duration::ZERO,
        };
        self.members.insert(node, entry);
        self.away.insert((Duration::ZERO, node));
        self.unknown += 1;
        let deadline = self.outside.now + patience;
        self.outside.timers.set(deadline, Alarm::GiveUp(node));
        self.seek_at(self.outside.now);
    }

    fn forget(&mut self, node: NodeId) {
        let Some(entry) = self.members.remove(&node) else { return };
        self.away.remove(&(entry.sought, node));
        self.unknown -= usize::from(entry.standing.state == State::Unknown);
        if let Some(life) = entry.life {
            self.apply(Member::new(life, INCARNATION_LEFT, foca::State::Down), false);
            let _ = self.foca.handle_timer(Timer::RemoveDown(life), &mut self.outside);
        }
        self.outside.forget(node);
    }

    /// Takes up a later life if others speak of one of this node's that is later than the present:
    /// its disk and its boot number were rolled back, and nobody would listen to it.
    fn outlive(&mut self, opened: &Opened<'_>) {
        let told = opened.members.iter().map(|(member, _)| *member.id());
        let latest = told.filter(|life| life.node == self.me).chain([opened.header.dst]).max();
        if let Some(life) = latest.and_then(|latest| self.foca.identity().beyond(&latest)) {
            let _ = self.foca.change_identity(life, &mut self.outside);
            self.outside.renewed = true;
        }
    }

    /// Asks a member directly, and tells it `news`.
    fn ask(&mut self, life: Life, news: Member<Life>) {
        let header = self.header(life, Message::Ping(OUT_OF_TURN));
        self.outside.asked_directly(life.node);
        self.outside.send.push((life.node, codec::composed(&header, Some(&news))));
    }

    fn apply(&mut self, member: Member<Life>, spread: bool) {
        self.touch(&member);
        self.foca
            .apply_many([member].into_iter(), spread, &mut self.outside)
            .expect("members have a binary form that fits");
    }

    fn header(&self, dst: Life, message: Message<Life>) -> Header<Life> {
        Header {
            src: *self.foca.identity(),
            src_incarnation: self.outside.incarnation,
            dst,
            message,
        }
    }

    /// Asks the members that are away and were not asked for the longest time.
    fn seek(&mut self) {
        let longest: Vec<_> = self.away.iter().take(pace::SEEK_FANOUT).copied().collect();
        for (_, node) in longest {
            self.announce_to(node);
        }
        if self.unknown > 0 {
            self.ask_around();
        }
    }

    /// Asks one that answered before who else is there: it names some twenty, while one that was
    /// not met yet takes a handshake for itself alone.
    fn ask_around(&mut self) {
        let met = self
            .members
            .values()
            .filter(|entry| entry.standing.state == State::Alive && entry.standing.heard.is_some());
        if let Some(life) = met.filter_map(|entry| entry.life).choose(&mut self.rng) {
            let _ = self.foca.announce(life, &mut self.outside);
        }
    }

    fn announce_to(&mut self, node: NodeId) {
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

    fn seek_at(&mut self, deadline: Duration) {
        if self.seeking.is_some_and(|set| set <= deadline) {
            return;
        }
        self.outside.timers.retain(|alarm| *alarm != Alarm::Seek);
        self.outside.timers.set(deadline, Alarm::Seek);
        self.seeking = Some(deadline);
    }

    /// Brings what foca believes into the standings, says what changed, and sets the alarms that
    /// the new state asks for.
    fn settle(&mut self, cause: Cause) {
        if self.gone {
            return;
        }
        // foca takes note of having company, or none, only here.
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
    fn touch(&mut self, member: &Member<Life>) {
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
                // It objected to what was found against it before.
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

    fn change(&mut self, node: NodeId, to: State, why: Why) {
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

    fn wake(&mut self, now: Now) {
        // A clock that goes back is a mistake of the shell; standing still is the harmless reading.
        self.outside.now = self.outside.now.max(now.mono);
        self.outside.timers.notice_stall(self.outside.now);
    }

    fn outputs(&mut self) -> Outputs {
        Outputs {
            send: std::mem::take(&mut self.outside.send),
            notify: std::mem::take(&mut self.notify),
        }
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

impl Entry {
    fn is_away(&self) -> bool {
        matches!(self.standing.state, State::Unknown | State::Down | State::Left)
    }

    /// It answered in spite of what spoke against it: more of that is not listened to for a while.
    fn trust(&mut self, doubt: Doubt, now: Duration) {
        self.trusted_until = self.trusted_until.max(now + doubt.evidence.rest());
    }
}

#[cfg(test)]
mod tests;
