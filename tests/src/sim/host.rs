//! A host: a key, a disk, a clock that may be wrong, and the agent that runs on it, if one does.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Dot, Limits, Replica, Vector};
use peerage_proto::roster::Standing;
use peerage_proto::time::Now;

use super::disk::Disk;
use super::flaw::Flaw;
use super::network::{Body, Part};
use super::process::{Effect, Process};
use super::promise::{Broken, Promise, hold};

/// When every world begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The Data Center of every world.
pub const DATACENTER: DataCenterId = DataCenterId([7; 16]);

/// What became of the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there, its agent running or not.
    There,
    /// Its agent left the Data Center by its own will.
    Left,
    /// It was destroyed with its disk.
    Destroyed,
}

/// What a host must not lose while nobody rolls its disk back.
#[derive(Debug, Clone, Default)]
struct Held {
    /// How many commits had been applied to the disk.
    commits: u64,
    covered: Vector,
    scattered: BTreeSet<Dot>,
    removed: BTreeSet<NodeId>,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    key: Keypair,
    /// What it has stored.
    pub disk: Disk,
    /// Snapshots of its disk, earliest first.
    pub images: Vec<Disk>,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// The agent, if it runs.
    pub process: Option<Process>,
    /// What became of it.
    pub fate: Fate,
    /// Whether its disk refuses the next commit.
    pub disk_fails: bool,
    runs: u64,
    held: Held,
    /// The removals that the running process has heard of, stored or not.
    heard_removed: BTreeSet<NodeId>,
}

impl Host {
    /// A host with an empty disk.
    pub fn new(number: usize) -> Self {
        let byte = u8::try_from(number + 1).expect("a world has few hosts");
        Self {
            key: Keypair::from_seed([byte; 32]),
            disk: Disk::default(),
            images: Vec::new(),
            skew_ms: 0,
            process: None,
            fate: Fate::There,
            disk_fails: false,
            runs: 0,
            held: Held::default(),
            heard_removed: BTreeSet::new(),
        }
    }

    /// The node that it is.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// The time that it believes it is.
    pub fn now(&self, time_ms: u64) -> Now {
        Now {
            mono: Duration::from_millis(time_ms),
            wall_ms: (EPOCH_MS + time_ms).saturating_add_signed(self.skew_ms),
        }
    }

    /// Starts the agent from what the disk holds.
    pub fn start(&mut self, time_ms: u64, incarnation: u64, limits: Limits, flaw: Option<Flaw>) {
        let now = self.now(time_ms);
        let replica = self.disk.load(DATACENTER, self.key.clone(), limits, now);
        self.runs += 1;
        self.heard_removed.clear();
        self.process = Some(Process::new(self.runs, incarnation, replica, self.disk.joined, flaw));
    }

    /// The disk refused a commit: the agent goes on from what it holds, under another incarnation.
    pub fn fail_commit(&mut self, time_ms: u64, incarnation: u64, limits: Limits) {
        let stored = self.stored_replica(time_ms, limits);
        self.heard_removed.clear();
        if let Some(process) = &mut self.process {
            process.failed(stored, incarnation);
        }
    }

    /// Puts an earlier image on the disk, while the agent does not run: what was stored since is
    /// not expected to be there any more.
    pub fn roll_back(&mut self, image: Disk) {
        self.disk = image;
        self.held = Held::default();
    }

    /// The agent, if it runs and knows that it belongs and was not removed.
    pub fn member(&self) -> Option<&Process> {
        self.process.as_ref().filter(|p| p.is_member() && !p.is_parked())
    }

    /// The replica that would come back if the agent were started again now.
    pub fn stored_replica(&self, time_ms: u64, limits: Limits) -> Replica {
        self.disk.load(DATACENTER, self.key.clone(), limits, self.now(time_ms))
    }

    /// Checks that nothing was lost since the last time, and remembers what is held now.
    pub fn check_kept(&mut self) -> Result<(), Broken> {
        if self.disk.commits() != self.held.commits {
            self.check_disk()?;
        }
        let disk = &self.disk;
        if let Some(process) = &self.process {
            let durable = process.replica().durable_vector();
            hold(Promise::CommitBeforeSpeech, disk.covered().dominates(durable), || {
                format!("{durable:?} is called durable; the disk holds {:?}", disk.covered())
            })?;
            let is_out = |id: &NodeId| {
                let member = process.roster().member(id);
                member.is_some_and(|m| matches!(m.standing, Standing::Removed(_)))
            };
            let heard = disk.removed().iter().chain(&self.heard_removed);
            let back = heard.copied().find(|id| !is_out(id));
            hold(Promise::RemovedStaysRemoved, back.is_none(), || {
                format!("{back:?} was removed, and is back in the roster")
            })?;
            let out = process.roster().all().map(|m| m.id).filter(is_out);
            self.heard_removed.extend(out.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Checks that after a commit the disk still holds all that it held before.
    fn check_disk(&mut self) -> Result<(), Broken> {
        let (disk, held) = (&self.disk, &self.held);
        let covered = disk.covered().dominates(&held.covered);
        let kept = covered && held.scattered.iter().all(|dot| disk.holds(dot));
        hold(Promise::AcknowledgedMeansKept, kept, || {
            format!("the disk held {:?}, now only {:?}", held.covered, disk.covered())
        })?;
        hold(Promise::RemovedStaysRemoved, disk.removed().is_superset(&held.removed), || {
            format!("the disk forgot a removal: {:?} of {:?}", disk.removed(), held.removed)
        })?;
        self.held = Held {
            commits: disk.commits(),
            covered: disk.covered().clone(),
            scattered: disk.scattered().copied().collect(),
            removed: disk.removed().clone(),
        };
        Ok(())
    }

    /// Checks that what leaves the agent is on the disk. (The admissions that vouch for the agent
    /// are left out: other nodes wrote them and stored them.)
    pub fn check_speech(&self, effect: &Effect) -> Result<(), Broken> {
        let missing = match effect {
            Effect::Acknowledge(dot) if !self.disk.holds(dot) => {
                return Err(Broken {
                    promise: Promise::AcknowledgedMeansKept,
                    found: format!("the write {dot:?} has returned and is not on the disk"),
                });
            }
            Effect::Show(dots) => {
                let missing = dots.iter().find(|dot| !self.disk.holds(dot));
                missing.map(|dot| format!("what the write {dot:?} says"))
            }
            Effect::LetIn(node) => {
                let known = self.disk.removed().contains(node) || self.heard_removed.contains(node);
                return hold(Promise::RemovedStaysRemoved, !known, || {
                    format!("{node:?} was let in where its removal is known")
                });
            }
            Effect::Send { body: Body::Push(change) | Body::Refusal(change), .. } => {
                (!self.disk.holds(&change.dot)).then(|| format!("the change {change:?}"))
            }
            Effect::Send { body: Body::Part { part, .. }, .. } => match part {
                Part::Open(vector) | Part::End(vector) => {
                    let stored = self.disk.covered().dominates(vector);
                    (!stored).then(|| format!("the vector {vector:?}"))
                }
                Part::Changes(changes) => {
                    let missing = changes.iter().find(|change| !self.disk.holds(&change.dot));
                    missing.map(|change| format!("the change {change:?}"))
                }
            },
            _ => None,
        };
        hold(Promise::CommitBeforeSpeech, missing.is_none(), || {
            format!("{} was told and is not on the disk", missing.unwrap_or_default())
        })
    }
}
