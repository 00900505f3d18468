//! What goes wrong in a world.

use super::{Event, World};
use crate::sim::dice::Dice;
use crate::sim::host::{Fate, Host};
use crate::sim::network::{HostId, Network};
use crate::sim::promise::Broken;

/// How often the rarest troubles come in one world.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// Disks that are rolled back.
    roll_backs: u64,
    /// Hosts that are destroyed.
    destructions: u64,
    /// Members that are removed.
    pub(super) removals: u64,
    /// Members that leave.
    pub(super) leavings: u64,
}

impl Budget {
    /// As much as the dice say.
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self {
            roll_backs: dice.below(3),
            destructions: dice.below(2),
            removals: dice.below(3),
            leavings: dice.below(2),
        }
    }
}

/// One trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Some hosts and the others do not hear each other, or only one way.
    Partition,
    /// All that was cut is joined.
    Heal,
    /// An agent is killed, and started again later.
    Crash,
    /// A host is restored from a snapshot.
    RollBack,
    /// A host is gone for good.
    Destroy,
    /// A clock jumps.
    Clock,
    /// A disk refuses a commit.
    DiskFails,
    /// Someone takes a snapshot of a disk; harmless for now.
    Snapshot,
}

impl Trouble {
    /// The next one.
    fn next(dice: &mut Dice) -> Self {
        dice.weighted(&[
            (6, Self::Partition),
            (4, Self::Heal),
            (4, Self::Crash),
            (2, Self::RollBack),
            (1, Self::Destroy),
            (3, Self::Clock),
            (3, Self::DiskFails),
            (4, Self::Snapshot),
        ])
    }
}

impl World {
    pub(super) fn trouble(&mut self) -> Result<(), Broken> {
        let trouble = Trouble::next(&mut self.dice);
        let any = HostId(self.dice.below(self.hosts.len() as u64) as usize);
        // Where something is under way there is more to break.
        let id = self.at_work.filter(|_| self.dice.chance(50)).unwrap_or(any);
        let host = &mut self.hosts[id.0];
        match trouble {
            Trouble::Partition => {
                let what = partition(&mut self.dice, &mut self.network, &self.hosts);
                self.note(format_args!("{what}"));
            }
            Trouble::Heal => {
                self.network.heal();
                self.note(format_args!("the network is whole"));
            }
            Trouble::Clock => {
                host.skew_ms = clock_error_ms(&mut self.dice);
                let skew_ms = host.skew_ms;
                self.note(format_args!("the clock of {id} is {skew_ms} ms ahead"));
            }
            Trouble::DiskFails => host.disk_fails = true,
            Trouble::Snapshot if host.member().is_some() => {
                host.images.push(host.disk.clone());
                self.note(format_args!("a snapshot of {id} is taken"));
            }
            Trouble::Crash => self.crash(id),
            Trouble::RollBack if self.budget.roll_backs > 0 && host.fate == Fate::There => {
                if let Some(image) = self.dice.pick(&host.images).cloned() {
                    self.budget.roll_backs -= 1;
                    self.crash(id);
                    self.note(format_args!("the disk of {id} is rolled back"));
                    self.hosts[id.0].roll_back(image);
                }
            }
            Trouble::Destroy if self.budget.destructions > 0 && self.has_company(id) => {
                self.budget.destructions -= 1;
                self.note(format_args!("{id} is destroyed"));
                self.hosts[id.0].process = None;
                self.hosts[id.0].fate = Fate::Destroyed;
            }
            _ => {}
        }
        Ok(())
    }

    fn has_company(&self, id: HostId) -> bool {
        let others = self.host_ids().filter(|other| *other != id);
        self.hosts[id.0].fate == Fate::There
            && others.filter(|other| self.hosts[other.0].member().is_some()).count() >= 2
    }

    /// Kills the agent, and starts it again later. What was being stored may be on the disk or
    /// not, but never in part.
    fn crash(&mut self, id: HostId) {
        let Some(process) = self.hosts[id.0].process.take() else { return };
        let stored = self.dice.chance(50);
        if let Some(commit) = process.storing().filter(|_| stored) {
            self.hosts[id.0].disk.apply(&commit.ops);
        }
        let after_ms = self.dice.between(5, 300);
        self.note(format_args!("{id} is killed (what it was storing is on its disk: {stored})"));
        self.schedule(after_ms, Event::Start(id));
    }
}

/// Cuts some hosts off from the others. In a third of all cases the cut is one way: the hosts that
/// are cut off still hear the others.
fn partition(dice: &mut Dice, network: &mut Network, hosts: &[Host]) -> String {
    let (left, right): (Vec<HostId>, Vec<HostId>) =
        (0..hosts.len()).map(HostId).partition(|_| dice.chance(40));
    let one_way = dice.chance(33);
    for a in &left {
        for b in &right {
            network.cut(*a, *b);
            if !one_way {
                network.cut(*b, *a);
            }
        }
    }
    let names: Vec<String> = left.iter().map(ToString::to_string).collect();
    let way = if one_way { "not heard by" } else { "parted from" };
    format!("{} {way} the others", names.join(" "))
}

/// A clock's new error, in milliseconds: none, a little, minutes, or hours, either way.
fn clock_error_ms(dice: &mut Dice) -> i64 {
    let most = *dice.pick(&[0, 900, 150_000, 3 * 3_600_000]).expect("there are four");
    let error = i64::try_from(dice.between(0, most)).expect("hours fit");
    if dice.chance(50) { error } else { -error }
}
