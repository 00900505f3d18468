//! A world: whole agents on hosts of a simulated network, and an order of events that its seed
//! determines. A Data Center is founded, the others storm in, all goes wrong, all is well again;
//! then everything must come to rest within a bound, and nothing may be lost.

mod ledger;
mod operators;
mod promises;
mod rest;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerage::api::Answer;
use peerage_tests::sim::dice::Dice;
use peerage_tests::sim::log::EventLog;
use peerage_tests::sim::promise::{Broken, Promise, hold};
use turmoil::Sim;

use self::ledger::Ledger;
use self::promises::Seen;
use self::trouble::{Budget, Fate, Snapshot};
use crate::flaw::Flaw;
use crate::host::{Ask, Host, Said};
use crate::panics;
use crate::wire::Air;

/// How far the simulated network and its hosts go in one step.
const STEP: Duration = Duration::from_millis(5);

/// How long a packet takes at least.
const LATENCY_MIN: Duration = Duration::from_millis(1);

/// How long a packet takes at most: where all is well, and in the worst of times.
const LATENCY_CALM: Duration = Duration::from_millis(30);
const LATENCY_WORST: Duration = Duration::from_millis(300);

/// How many hosts there are at least and at most, without the stranger, which nobody lets in.
const HOSTS: (u64, u64) = (3, 7);

/// How long an agent may take to start.
const START_MAX_MS: u64 = 5_000;

/// How long all hosts may take to join, at once and in bad weather.
const STORM_MAX_MS: u64 = 120_000;

/// How long trouble lasts.
const TROUBLED_MS: (u64, u64) = (20_000, 45_000);

/// How many of 100 worlds have, at the end of their trouble, a cut that lasts for minutes.
const LONG_CUT_PERCENT: u64 = 6;

/// How often the promises are checked against what is seen from outside.
const LOOK_EVERY_MS: u64 = 100;

/// How far ahead or behind a clock is at most. Each world takes one of these bounds.
const SKEWS_MS: [i64; 3] = [0, 900, 20_000];

/// How a world went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What happened.
    pub(crate) log: EventLog,
    /// A number that differs where any event or any byte on the network differs.
    pub(crate) digest: u64,
    /// How many packets were sent.
    pub(crate) packets: u64,
    /// How long the world lasted.
    pub(crate) lasted_ms: u64,
    /// How long it took from the end of all trouble until everything was at rest.
    pub(crate) rest_ms: u64,
    /// How many writes were acknowledged.
    pub(crate) acknowledged: usize,
    /// The promise that broke, if one did; nothing happened after it.
    pub(crate) broken: Option<Broken>,
}

/// An order without an answer yet.
#[derive(Debug)]
struct Pending {
    host: usize,
    ask: Ask,
    asked_ms: u64,
}

/// What the world knows of a host beside the host itself.
#[derive(Debug)]
struct Life {
    runs: bool,
    fate: Fate,
    /// The token that it was told to join with; it tries again until it is in, or refused for good.
    token: Option<String>,
    snapshot: Option<Snapshot>,
    seen: Seen,
}

pub(crate) struct World<'a> {
    sim: Sim<'a>,
    hosts: Vec<Arc<Host>>,
    lives: Vec<Life>,
    air: Arc<Air>,
    dice: Dice,
    budget: Budget,
    ledger: Ledger,
    pending: BTreeMap<u64, Pending>,
    answered: BTreeMap<u64, Answer<Said>>,
    orders: u64,
    writes: u64,
    /// Join Information that members gave out.
    tokens: Vec<String>,
    looked_ms: u64,
    rest_ms: u64,
    log: EventLog,
    flaw: Option<Flaw>,
}

impl World<'_> {
    /// Lets the world of a seed happen. What agents set aside when they leave goes below `backups`,
    /// the only place outside memory that any of them touches.
    pub(crate) fn run(seed: u64, flaw: Option<Flaw>, backups: &Path) -> Outcome {
        let mut dice = Dice::new(seed);
        let members = dice.between(HOSTS.0, HOSTS.1) as usize;
        let air = Air::new(Dice::new(dice.draw()));
        let mut sim = turmoil::Builder::new()
            .rng_seed(dice.draw())
            .tick_duration(STEP)
            .simulation_duration(Duration::from_secs(24 * 3600))
            .min_message_latency(LATENCY_MIN)
            .max_message_latency(LATENCY_CALM)
            .udp_capacity(4096)
            .build();
        let skew_ms = *dice.pick(&SKEWS_MS).expect("there are three");
        let hosts: Vec<_> = (0..=members)
            .map(|number| {
                let skew_ms = skew(&mut dice, skew_ms);
                let backups = backups.join(number.to_string());
                Host::new(number, dice.draw(), skew_ms, flaw, air.clone(), backups)
            })
            .collect();
        for host in &hosts {
            let host = host.clone();
            sim.host(host.ip(), move || host.clone().live());
        }
        let budget = Budget::new(&mut dice, members);
        let mut world = World {
            sim,
            lives: hosts.iter().map(|_| Life::new()).collect(),
            hosts,
            air,
            dice,
            budget,
            ledger: Ledger::default(),
            pending: BTreeMap::new(),
            answered: BTreeMap::new(),
            orders: 0,
            writes: 0,
            tokens: Vec::new(),
            looked_ms: 0,
            rest_ms: 0,
            log: EventLog::new(),
            flaw,
        };
        let broken = world.happen(members).err();
        let (packets, digest) = world.air.sent();
        Outcome {
            digest: digest ^ world.log.digest().rotate_left(1),
            packets,
            lasted_ms: world.now_ms(),
            rest_ms: world.rest_ms,
            acknowledged: world.ledger.kept.len(),
            broken,
            log: world.log,
        }
    }

    fn happen(&mut self, members: usize) -> Result<(), Broken> {
        let late = self.dice.below(2.min(members as u64 - 2) + 1) as usize;
        let early = members - late;
        self.note(format_args!("{early} hosts come in at once, {late} later, and one never"));
        while self.hosts.iter().any(|host| host.node().is_none()) {
            self.step()?;
            hold(Promise::AlwaysWritable, self.now_ms() < START_MAX_MS, || {
                "not all agents start".into()
            })?;
        }
        self.found()?;
        self.weather();
        self.storm(early)?;
        self.be_troubled(early..members)?;
        if self.dice.chance(LONG_CUT_PERCENT) {
            self.stay_parted()?;
        }
        self.heal();
        self.come_to_rest()?;
        self.check_what_was_kept()?;
        self.stay_quiet()?;
        self.try_the_door()
    }

    /// Lets the network and every agent go on for one step.
    fn step(&mut self) -> Result<(), Broken> {
        let stepped = self.sim.step().map(drop).map_err(|error| error.to_string());
        let failure = stepped.err().or_else(panics::first);
        hold(Promise::AlwaysWritable, failure.is_none(), || {
            format!("an agent failed: {}", failure.unwrap_or_default())
        })?;
        for host in 0..self.hosts.len() {
            for (number, answer) in self.hosts[host].answers() {
                self.take(host, number, answer)?;
            }
            if let Some(cause) = self.hosts[host].gave_up() {
                // It is started again later, as after a crash.
                self.note(format_args!("the agent of h{host} gives up: {cause}"));
                self.stopped(host);
                hold(Promise::AlwaysWritable, self.budget.disk_failed(host), || {
                    format!("the agent of h{host} gave up: {cause}")
                })?;
            }
        }
        if self.now_ms() >= self.looked_ms + LOOK_EVERY_MS {
            self.looked_ms = self.now_ms();
            self.look()?;
        }
        Ok(())
    }

    /// Goes on until the answer to an order is there. `None` where the agent stopped meanwhile.
    fn answer(&mut self, number: u64) -> Result<Option<Answer<Said>>, Broken> {
        while self.pending.contains_key(&number) {
            self.step()?;
        }
        Ok(self.answered.remove(&number))
    }

    /// Asks the agent of a host, and waits for what it says.
    fn ask_and_wait(&mut self, host: usize, ask: Ask) -> Result<Option<Answer<Said>>, Broken> {
        let number = self.ask(host, ask);
        self.answer(number)
    }

    fn now_ms(&self) -> u64 {
        self.sim.elapsed().as_millis() as u64
    }

    fn note(&mut self, event: fmt::Arguments<'_>) {
        self.log.note(self.sim.elapsed().as_millis() as u64, event);
    }
}

impl Life {
    fn new() -> Self {
        Self { runs: true, fate: Fate::There, token: None, snapshot: None, seen: Seen::default() }
    }
}

/// How wrong one clock is, in a world whose clocks are wrong by at most `most_ms`.
fn skew(dice: &mut Dice, most_ms: i64) -> i64 {
    dice.between(0, 2 * most_ms as u64) as i64 - most_ms
}
