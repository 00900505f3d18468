//! A world: hosts, wires and an order of events that its seed determines, promises checked after
//! each.

mod operators;
mod rest;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use peerage_proto::id::NodeId;
use peerage_proto::replica::Limits;

use self::trouble::Budget;
use super::dice::Dice;
use super::flaw::Flaw;
use super::host::{Fate, Host};
use super::ledger::Ledger;
use super::log::EventLog;
use super::network::{HostId, Message, Network};
use super::process::{Effect, Process};
use super::promise::{Broken, Promise, hold};

/// How long trouble lasts, in milliseconds of the world.
const TROUBLED_MS: u64 = 1500;

/// How many hosts may be admitted while there is trouble.
const NEWCOMERS: usize = 2;

/// How long a commit takes at most, in milliseconds; one in ten takes ten times as long.
const STORE_MS_MAX: u64 = 8;

/// How long an agent that leaves still talks, in milliseconds.
const LEAVING_MS: u64 = 100;

/// Within how many rounds of sessions between all the members must agree, once all is well.
const ROUNDS_MAX: usize = 20;

/// How many events may follow from one another before the world counts as never coming to rest.
const EVENTS_MAX: usize = 50_000;

/// What will happen.
#[derive(Debug)]
enum Event {
    Arrive(Message),
    Stored { host: HostId, run: u64 },
    Start(HostId),
    Stop { host: HostId, run: u64 },
    Work,
    Trouble,
    Compare,
}

/// How a world went.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub log: EventLog,
    /// The promise that broke, if one did; nothing happened after it.
    pub broken: Option<Broken>,
    /// How many writes were acknowledged.
    pub acknowledged: usize,
}

/// All of one world.
#[derive(Debug)]
pub struct World {
    time_ms: u64,
    hosts: Vec<Host>,
    ledger: Ledger,
    limits: Limits,
    dice: Dice,
    /// By when they happen, then by when they were scheduled.
    queue: BTreeMap<(u64, u64), Event>,
    /// How many events were scheduled so far.
    events: u64,
    /// How many sessions were opened so far, which numbers the next one.
    sessions: u64,
    network: Network,
    budget: Budget,
    /// The host on which an operator did something last.
    at_work: Option<HostId>,
    log: EventLog,
    flaw: Option<Flaw>,
}

impl World {
    /// Lets the world of a seed happen: a Data Center is founded, it grows, all goes wrong, all is
    /// well again, and nothing may be lost.
    pub fn run(seed: u64, flaw: Option<Flaw>) -> Outcome {
        let mut dice = Dice::new(seed);
        let members = dice.between(5, 7) as usize;
        let mut world = Self {
            time_ms: 0,
            hosts: (0..members + NEWCOMERS).map(Host::new).collect(),
            ledger: Ledger::default(),
            limits: limits(&mut dice),
            queue: BTreeMap::new(),
            events: 0,
            sessions: 0,
            network: Network::default(),
            budget: Budget::new(&mut dice),
            at_work: None,
            log: EventLog::new(),
            flaw,
            dice,
        };
        let broken = world.happen(members).err();
        let acknowledged = world.ledger.entries().filter(|(_, e)| e.acknowledged).count();
        Outcome { log: world.log, broken, acknowledged }
    }

    fn happen(&mut self, members: usize) -> Result<(), Broken> {
        self.found()?;
        for newcomer in 1..members {
            let seed = HostId(self.dice.below(newcomer as u64) as usize);
            self.admit(seed, HostId(newcomer))?;
            self.settle()?;
        }
        self.network = Network::bad(&mut self.dice);
        for event in [Event::Work, Event::Trouble, Event::Compare] {
            self.schedule(1, event);
        }
        self.settle()?;
        self.calm()?;
        rest::check(self)
    }

    fn found(&mut self) -> Result<(), Broken> {
        let founder = HostId(0);
        self.hosts[founder.0].disk.joined = true;
        self.start(founder);
        let (id, now) = (self.hosts[0].node_id(), self.hosts[0].now(0));
        let founding = operators::founding(&mut self.dice, id, now);
        self.write(founder, founding.into())?;
        self.settle()
    }

    /// Lets everything happen that is under way.
    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..EVENTS_MAX {
            let Some(((time_ms, _), event)) = self.queue.pop_first() else { return Ok(()) };
            self.time_ms = time_ms;
            self.take(event)?;
        }
        hold(Promise::AlwaysWritable, false, || "the world never comes to rest".into())
    }

    /// Ends all trouble, and lets the members compare until nothing changes any more.
    fn calm(&mut self) -> Result<(), Broken> {
        self.note(format_args!("all trouble ends"));
        self.network = Network::default();
        for id in self.host_ids() {
            self.hosts[id.0].disk_fails = false;
            if self.hosts[id.0].fate == Fate::There && self.hosts[id.0].process.is_none() {
                self.start(id);
            }
        }
        let mut before = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let state: Vec<_> = self.running().map(|p| (p.digest(), p.is_parked())).collect();
            if state == before {
                return Ok(());
            }
            before = state;
            for (a, b) in self.differing() {
                self.open_session(a, b)?;
                self.settle()?;
            }
        }
        hold(Promise::AlwaysWritable, false, || "the members never agree".into())
    }

    fn running(&self) -> impl Iterator<Item = &Process> {
        self.hosts.iter().filter_map(|host| host.process.as_ref())
    }

    fn host_ids(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId)
    }

    fn host_of(&self, node: NodeId) -> Option<HostId> {
        self.host_ids().find(|id| self.hosts[id.0].node_id() == node)
    }

    /// The pairs of running nodes that do not hold the same, where the first has the second in its
    /// roster.
    fn differing(&self) -> Vec<(HostId, HostId)> {
        let mut pairs = Vec::new();
        for a in self.host_ids() {
            let Some(from) = self.hosts[a.0].member() else { continue };
            for b in from.peers().into_iter().filter_map(|node| self.host_of(node)) {
                let to = self.hosts[b.0].process.as_ref();
                if to.is_some_and(|to| !to.is_parked() && to.digest() != from.digest()) {
                    pairs.push((a, b));
                }
            }
        }
        pairs
    }

    fn take(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Arrive(message) => self.arrive(message),
            Event::Stored { host, run } => self.stored(host, run),
            Event::Start(id) => {
                let host = &self.hosts[id.0];
                if host.process.is_none() && host.fate == Fate::There {
                    self.start(id);
                }
                self.hosts[id.0].check_kept()
            }
            Event::Stop { host, run } => {
                if self.run_of(host) == Some(run) {
                    self.note(format_args!("{host} has left"));
                    self.hosts[host.0].process = None;
                    self.hosts[host.0].fate = Fate::Left;
                }
                Ok(())
            }
            Event::Work => {
                self.again(5, 45, Event::Work);
                self.work()
            }
            Event::Trouble => {
                self.again(40, 160, Event::Trouble);
                self.trouble()
            }
            Event::Compare => {
                self.again(20, 60, Event::Compare);
                let pairs = self.differing();
                match self.dice.pick(&pairs).copied() {
                    Some((a, b)) => self.open_session(a, b),
                    None => Ok(()),
                }
            }
        }
    }

    fn run_of(&self, host: HostId) -> Option<u64> {
        self.hosts[host.0].process.as_ref().map(|p| p.run)
    }

    /// Schedules an event. Of the events of one millisecond, the one that was scheduled first
    /// happens first.
    fn schedule(&mut self, after_ms: u64, event: Event) {
        self.events += 1;
        self.queue.insert((self.time_ms + after_ms, self.events), event);
    }

    /// Schedules an event again while there is trouble.
    fn again(&mut self, low_ms: u64, high_ms: u64, event: Event) {
        let after_ms = self.dice.between(low_ms, high_ms);
        if self.time_ms + after_ms < TROUBLED_MS {
            self.schedule(after_ms, event);
        }
    }

    fn note(&mut self, event: fmt::Arguments<'_>) {
        self.log.note(self.time_ms, event);
    }

    fn incarnation(&mut self, id: HostId) -> u64 {
        match self.flaw {
            Some(Flaw::ReusesIncarnation) => id.0 as u64,
            _ => self.dice.draw(),
        }
    }

    fn start(&mut self, id: HostId) {
        let incarnation = self.incarnation(id);
        self.note(format_args!("{id} starts as incarnation {incarnation:016x}"));
        let (limits, flaw) = (self.limits.clone(), self.flaw);
        self.hosts[id.0].start(self.time_ms, incarnation, limits, flaw);
    }

    fn arrive(&mut self, message: Message) -> Result<(), Broken> {
        let from = self.hosts[message.from.0].node_id();
        let host = &mut self.hosts[message.to.0];
        let now = host.now(self.time_ms);
        let Some(process) = &mut host.process else { return Ok(()) };
        let text = message.to_string();
        let effects = process.receive(from, message.vouched, message.body, now);
        self.note(format_args!("{text}"));
        self.apply(message.to, effects)
    }

    /// A commit ends: it is on the disk, or the disk refuses it. After a refusal the agent goes on
    /// from what the disk holds, and the writes that waited have failed.
    fn stored(&mut self, id: HostId, run: u64) -> Result<(), Broken> {
        if self.run_of(id) != Some(run) {
            return Ok(());
        }
        let lies = self.flaw == Some(Flaw::DiskLies) && self.dice.chance(5);
        let host = &mut self.hosts[id.0];
        let now = host.now(self.time_ms);
        if std::mem::take(&mut host.disk_fails) {
            let (incarnation, limits) = (self.incarnation(id), self.limits.clone());
            self.note(format_args!("{id} cannot store, and is incarnation {incarnation:016x}"));
            self.hosts[id.0].fail_commit(self.time_ms, incarnation, limits);
            return self.hosts[id.0].check_kept();
        }
        let Some(process) = &mut host.process else { return Ok(()) };
        let ops = process.storing().map_or(&[][..], |commit| &commit.ops);
        host.disk.apply(&ops[..ops.len() - usize::from(lies && !ops.is_empty())]);
        let steps = ops.len();
        let effects = process.stored(now);
        self.note(format_args!("{id} has stored {steps} steps"));
        self.apply(id, effects)
    }

    /// Carries out what a process asks, after checking that it may.
    fn apply(&mut self, id: HostId, effects: Vec<Effect>) -> Result<(), Broken> {
        for effect in effects {
            self.hosts[id.0].check_speech(&effect)?;
            match effect {
                Effect::Send { to, vouched, body } => {
                    let Some(to) = self.host_of(to) else { continue };
                    let message = Message { from: id, to, vouched, body };
                    let (dice, now_ms) = (&mut self.dice, self.time_ms);
                    for arrival_ms in self.network.arrivals(dice, now_ms, &message) {
                        self.schedule(arrival_ms - now_ms, Event::Arrive(message.clone()));
                    }
                }
                Effect::Store => {
                    let run = self.run_of(id).expect("only a running process asks");
                    let slow = if self.dice.chance(10) { 10 } else { 1 };
                    let after_ms = self.dice.between(1, STORE_MS_MAX) * slow;
                    self.schedule(after_ms, Event::Stored { host: id, run });
                }
                Effect::Acknowledge(dot) => {
                    self.note(format_args!("{id} acknowledges {dot:?}"));
                    self.ledger.acknowledge(&dot);
                }
                Effect::Joined => self.hosts[id.0].disk.joined = true,
                Effect::LetIn(_) | Effect::Show(_) => {}
            }
        }
        self.hosts[id.0].check_kept()
    }

    fn open_session(&mut self, from: HostId, to: HostId) -> Result<(), Broken> {
        self.sessions += 1;
        let peer = self.hosts[to.0].node_id();
        let Some(process) = &mut self.hosts[from.0].process else { return Ok(()) };
        let effects = process.open_session(peer, self.sessions);
        self.apply(from, effects)
    }
}

/// A third of the worlds keep next to no history, so that it is forgotten all the time; in another
/// third there is so little room that history is forgotten for live changes, and writes are
/// refused.
fn limits(dice: &mut Dice) -> Limits {
    match dice.below(3) {
        0 => return Limits::default(),
        1 => {
            let total_bytes = dice.between(1_500, 6_000) as usize;
            return Limits { total_bytes, reserve_bytes: 20_000, ..Limits::default() };
        }
        _ => {}
    }
    Limits {
        history_changes: dice.below(3) as usize,
        history_age: Duration::ZERO,
        history_bytes: 0,
        ..Limits::default()
    }
}
