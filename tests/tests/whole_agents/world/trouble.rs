//! What goes wrong: the weather, cuts, crashes, stops, disks that refuse or come back old, clocks,
//! and hosts that are gone for good.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage::store::MemoryDisk;
use peerage_proto::api::Wait;
use peerage_tests::sim::dice::Dice;
use peerage_tests::sim::promise::Broken;

use super::{LATENCY_CALM, LATENCY_WORST, SKEWS_MS, World, skew};
use crate::flaw::Flaw;
use crate::host::Ask;

/// How long a long cut lasts, and how often somebody writes meanwhile, in milliseconds. Agents keep
/// what they heard of a silent node for a quarter of an hour.
const PARTED_MS: (u64, u64) = (150_000, 1_300_000);
const PARTED_WORK_EVERY_MS: u64 = 40_000;

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there, running or about to be started again.
    There,
    /// It took itself out of the Data Center.
    Left,
    /// It is gone for good.
    Destroyed,
}

/// A copy of a disk.
#[derive(Debug)]
pub(super) struct Snapshot {
    taken_ms: u64,
    disk: MemoryDisk,
}

/// How often trouble that cannot be undone may still come.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many members may still leave, be removed or be destroyed: two always stay.
    members: u64,
    roll_backs: u64,
    /// Hosts whose disk refused something.
    disks_failed: BTreeSet<usize>,
    /// When stopped agents are started again, by host.
    starts_ms: Vec<(u64, usize)>,
    /// When the packets that are held from and to a host go on, by host.
    releases_ms: Vec<(u64, usize)>,
}

impl Budget {
    pub(super) fn new(dice: &mut Dice, members: usize) -> Self {
        Self {
            members: dice.below(3).min(members as u64 - 2),
            roll_backs: dice.below(2),
            disks_failed: BTreeSet::new(),
            starts_ms: Vec::new(),
            releases_ms: Vec::new(),
        }
    }

    /// Whether one more member may go.
    pub(super) fn spend_member(&mut self) -> bool {
        let left = self.members.checked_sub(1);
        self.members = left.unwrap_or(0);
        left.is_some()
    }

    pub(super) fn disk_failed(&self, host: usize) -> bool {
        self.disks_failed.contains(&host)
    }
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Weather,
    Part,
    PartOneWay,
    Join,
    Hold,
    Crash,
    Stop,
    Snapshot,
    RollBack,
    DiskFails,
    Destroy,
}

impl World<'_> {
    /// Lets one thing go wrong.
    pub(super) fn trouble(&mut self) -> Result<(), Broken> {
        let trouble = self.dice.weighted(&[
            (5, Trouble::Weather),
            (5, Trouble::Part),
            (3, Trouble::PartOneWay),
            (7, Trouble::Join),
            (4, Trouble::Hold),
            (8, Trouble::Crash),
            (3, Trouble::Stop),
            (4, Trouble::Snapshot),
            (2, Trouble::RollBack),
            (3, Trouble::DiskFails),
            (1, Trouble::Destroy),
        ]);
        let host = self.dice.below(self.hosts.len() as u64) as usize;
        let runs = self.lives[host].runs;
        match trouble {
            Trouble::Weather => self.weather(),
            Trouble::Part => self.part(false),
            Trouble::PartOneWay => self.part(true),
            Trouble::Join => self.join_all(),
            Trouble::Hold => self.hold(host),
            Trouble::Crash if runs => {
                self.crash(host)?;
                self.start_later(host);
            }
            Trouble::Stop if runs => drop(self.ask(host, Ask::Stop)),
            Trouble::Snapshot if self.members().contains(&host) => {
                let taken_ms = self.now_ms();
                let disk = self.hosts[host].disk.snapshot();
                self.lives[host].snapshot = Some(Snapshot { taken_ms, disk });
                self.note(format_args!("a copy of the disk of h{host} is taken"));
            }
            Trouble::RollBack if runs && self.budget.roll_backs > 0 => {
                let Some(snapshot) = self.lives[host].snapshot.take() else { return Ok(()) };
                self.budget.roll_backs -= 1;
                self.crash(host)?;
                let now_ms = self.now_ms();
                self.note(format_args!("h{host} is as it was at {} ms", snapshot.taken_ms));
                self.hosts[host].disk.roll_back(&snapshot.disk);
                self.ledger.rolled_back(host, snapshot.taken_ms, now_ms);
                self.lives[host].fate = Fate::There;
                self.lives[host].seen.forget();
                self.start_later(host);
            }
            Trouble::DiskFails if runs => {
                self.note(format_args!("the disk of h{host} takes no more, once"));
                self.hosts[host].disk.refuse_once();
                self.budget.disks_failed.insert(host);
            }
            Trouble::Destroy
                if self.members().contains(&host)
                    && self.is_not_the_last(host)
                    && self.budget.spend_member() =>
            {
                self.crash(host)?;
                self.note(format_args!("h{host} is destroyed"));
                self.lives[host].fate = Fate::Destroyed;
                self.lives[host].token = None;
                self.ledger.destroyed(host);
            }
            _ => {}
        }
        Ok(())
    }

    /// Changes what the network does to packets, for all alike.
    pub(super) fn weather(&mut self) {
        let latency_ms = [30, 80, LATENCY_WORST.as_millis() as u64];
        let latency_ms = *self.dice.pick(&latency_ms).expect("there are three");
        let loss_percent = *self.dice.pick(&[0, 0, 3, 10]).expect("there are four");
        let twice_percent = self.dice.below(3);
        self.note(format_args!(
            "packets take up to {latency_ms} ms, {loss_percent} % get lost, {twice_percent} % come \
             twice"
        ));
        self.sim.set_max_message_latency(Duration::from_millis(latency_ms));
        self.air.turn(loss_percent, twice_percent);
    }

    /// Parts some hosts from the others, mostly both ways.
    pub(super) fn part_some(&mut self) {
        let one_way = self.dice.chance(30);
        self.part(one_way);
    }

    /// Parts some hosts from the others. Where one way only is cut, the first still hear the
    /// others.
    fn part(&mut self, one_way: bool) {
        let dice = &mut self.dice;
        let (left, right): (Vec<usize>, Vec<usize>) =
            (0..self.hosts.len()).partition(|_| dice.chance(40));
        for a in &left {
            for b in &right {
                let (a, b) = (self.hosts[*a].ip(), self.hosts[*b].ip());
                match one_way {
                    true => self.sim.partition_oneway(a, b),
                    false => self.sim.partition(a, b),
                }
            }
        }
        let how = if one_way { "are not heard by" } else { "are cut from" };
        self.note(format_args!("hosts {left:?} {how} {right:?}"));
    }

    /// Joins what was cut.
    fn join_all(&mut self) {
        for a in 0..self.hosts.len() {
            for b in 0..a {
                self.sim.repair(self.hosts[a].ip(), self.hosts[b].ip());
            }
        }
        self.note(format_args!("the network is whole"));
    }

    /// Holds all packets from and to a host for a while, as if it were frozen.
    fn hold(&mut self, host: usize) {
        let for_ms = self.dice.between(200, 5_000);
        self.note(format_args!("h{host} is frozen for {for_ms} ms"));
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.sim.hold(self.hosts[host].ip(), self.hosts[other].ip());
        }
        self.budget.releases_ms.push((self.now_ms() + for_ms, host));
    }

    pub(super) fn release_what_is_due(&mut self) {
        let now_ms = self.now_ms();
        let releases = std::mem::take(&mut self.budget.releases_ms);
        let (due, rest): (Vec<_>, Vec<_>) = releases.into_iter().partition(|(at, _)| *at <= now_ms);
        self.budget.releases_ms = rest;
        for (_, host) in due {
            self.note(format_args!("h{host} thaws"));
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                self.sim.release(self.hosts[host].ip(), self.hosts[other].ip());
            }
        }
    }

    /// Parts the hosts for so long that all they keep of each other in memory may have run out.
    pub(super) fn stay_parted(&mut self) -> Result<(), Broken> {
        self.part(false);
        let end_ms = self.now_ms() + self.dice.between(PARTED_MS.0, PARTED_MS.1);
        while self.now_ms() < end_ms {
            self.step()?;
            self.start_what_is_due();
            if self.now_ms().is_multiple_of(PARTED_WORK_EVERY_MS) {
                let members = self.members();
                if let Some(host) = self.dice.pick(&members).copied() {
                    self.write(host, Wait::Local);
                }
            }
        }
        Ok(())
    }

    /// Kills the agent of a host, and looks at what its disk holds.
    fn crash(&mut self, host: usize) -> Result<(), Broken> {
        self.note(format_args!("h{host} is killed"));
        self.sim.crash(self.hosts[host].ip());
        self.stopped(host);
        self.hosts[host].disk.crash();
        self.check_disk(host)
    }

    /// Notes that no agent runs on a host any more.
    pub(super) fn stopped(&mut self, host: usize) {
        self.lives[host].runs = false;
        self.hosts[host].clear();
        self.pending.retain(|_, pending| pending.host != host);
        if !self.budget.starts_ms.iter().any(|(_, due)| *due == host) {
            self.start_later(host);
        }
    }

    fn start_later(&mut self, host: usize) {
        self.budget.starts_ms.retain(|(_, due)| *due != host);
        let most_ms = if self.dice.chance(30) { 15_000 } else { 2_000 };
        let at_ms = self.now_ms() + self.dice.between(10, most_ms);
        self.budget.starts_ms.push((at_ms, host));
    }

    pub(super) fn start_what_is_due(&mut self) {
        let now_ms = self.now_ms();
        let starts = std::mem::take(&mut self.budget.starts_ms);
        let (due, rest): (Vec<_>, Vec<_>) = starts.into_iter().partition(|(at, _)| *at <= now_ms);
        self.budget.starts_ms = rest;
        for (_, host) in due {
            self.start(host);
        }
    }

    fn start(&mut self, host: usize) {
        if self.lives[host].runs || self.lives[host].fate == Fate::Destroyed {
            return;
        }
        if self.dice.chance(20) {
            let most_ms = *self.dice.pick(&SKEWS_MS).expect("there are three");
            let skew_ms = skew(&mut self.dice, most_ms);
            self.hosts[host].set_skew_ms(skew_ms);
            self.note(format_args!("the clock of h{host} is {skew_ms} ms ahead"));
        }
        self.note(format_args!("h{host} starts"));
        self.lives[host].runs = true;
        self.sim.bounce(self.hosts[host].ip());
    }

    /// Ends all trouble.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("all trouble ends"));
        self.air.turn(0, 0);
        self.sim.set_max_message_latency(LATENCY_CALM);
        self.join_all();
        if self.flaw == Some(Flaw::NeverHeals)
            && let Some(cut) = self.members().first().copied()
        {
            for other in (0..self.hosts.len()).filter(|other| *other != cut) {
                self.sim.partition(self.hosts[cut].ip(), self.hosts[other].ip());
            }
        }
        self.budget.starts_ms.clear();
        self.budget.releases_ms.clear();
        (0..self.hosts.len()).for_each(|host| self.start(host));
    }
}
