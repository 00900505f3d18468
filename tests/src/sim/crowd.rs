//! Many failure detectors on one simulated network, for what grows with their number: what an idle
//! node sends, how soon all know of a death, how soon all see all after a cold start.
//!
//! The cores are the real ones. The network delays every datagram a little and loses some; time is
//! simulated, so that counts and times are exact and the same for a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::{Liveness, LivenessEvent, Outputs, State};
use peerage_proto::time::Now;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How long a datagram takes, at least and at most.
const LATENCY: std::ops::Range<Duration> = Duration::from_micros(200)..Duration::from_millis(1);

/// After a cold start agents are up within this time of each other.
const STARTS_WITHIN: Duration = Duration::from_secs(1);

enum Event {
    Start(usize),
    Alarm(usize),
    Arrival { to: usize, from: NodeId, datagram: Vec<u8> },
}

struct Node {
    id: NodeId,
    core: Liveness,
    up: bool,
    /// For when its next alarm is queued.
    alarm: Option<Duration>,
    /// How many others it believes to be alive.
    alive: usize,
}

/// What all nodes together have sent so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The nodes and their network.
pub struct Crowd {
    nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
    /// By time, then by the order in which they came about.
    queue: BTreeMap<(Duration, u64), Event>,
    next_seq: u64,
    now: Duration,
    rng: StdRng,
    loss: f64,
    sent: Sent,
    /// How often a node that was up was called down.
    false_downs: u64,
}

impl Crowd {
    /// A crowd of `nodes` nodes that start within a second, each with all others in its roster. The
    /// network loses the share `loss` of the datagrams.
    pub fn new(nodes: usize, loss: f64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids: BTreeSet<NodeId> = (0..nodes).map(|_| NodeId(rng.random())).collect();
        let node = |id: &NodeId| Node {
            id: *id,
            core: Liveness::new(*id, 1, StdRng::seed_from_u64(rng.random())),
            up: false,
            alarm: None,
            alive: 0,
        };
        let nodes: Vec<Node> = ids.iter().map(node).collect();
        let mut crowd = Self {
            index: ids.iter().enumerate().map(|(at, id)| (*id, at)).collect(),
            queue: BTreeMap::new(),
            next_seq: 0,
            now: Duration::ZERO,
            loss,
            sent: Sent::default(),
            false_downs: 0,
            rng: StdRng::seed_from_u64(rng.random()),
            nodes,
        };
        for at in 0..crowd.nodes.len() {
            let when = STARTS_WITHIN.mul_f64(crowd.rng.random());
            crowd.enqueue(when, Event::Start(at));
        }
        crowd
    }

    /// The time since the first node could start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// How often a node that was up was called down so far.
    pub fn false_downs(&self) -> u64 {
        self.false_downs
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until every node that is up takes `alive` others for alive; at most `bound`.
    /// Answers how long it took.
    pub fn until_all_see(&mut self, alive: usize, bound: Duration) -> Option<Duration> {
        let started = self.now;
        while self.nodes.iter().any(|node| node.up && node.alive != alive)
            || self.nodes.iter().all(|node| !node.up)
        {
            // Checking all nodes after each event would take longer than the events.
            for _ in 0..self.nodes.len() {
                if self.now > started + bound {
                    return None;
                }
                self.step();
            }
        }
        Some(self.now - started)
    }

    /// Kills a node, which says no goodbye.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at].up = false;
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else { return };
        self.now = at;
        let now = Now { mono: at, wall_ms: 0 };
        match event {
            Event::Start(at) => {
                self.nodes[at].up = true;
                let members = self.index.keys().copied().collect();
                let outputs = self.nodes[at].core.members(now, &members);
                self.carry_out(at, outputs);
            }
            Event::Alarm(at) => {
                let node = &mut self.nodes[at];
                // Skips an alarm if the core has changed its deadline since the alarm was queued.
                if node.up && node.alarm == Some(self.now) {
                    node.alarm = None;
                    let outputs = node.core.expired(now);
                    self.carry_out(at, outputs);
                }
            }
            Event::Arrival { to, from, datagram } => {
                if self.nodes[to].up
                    && let Ok(outputs) = self.nodes[to].core.heard(now, from, &datagram)
                {
                    self.carry_out(to, outputs);
                }
            }
        }
    }

    fn carry_out(&mut self, at: usize, outputs: Outputs) {
        for LivenessEvent { node, from, to, .. } in outputs.notify {
            let counts = |state| usize::from(matches!(state, State::Alive | State::Suspect));
            self.nodes[at].alive = self.nodes[at].alive + counts(to) - counts(from);
            let is_up = self.nodes[self.index[&node]].up;
            self.false_downs += u64::from(to == State::Down && is_up);
        }
        let from = self.nodes[at].id;
        for (to, datagram) in outputs.send {
            self.sent.datagrams += 1;
            self.sent.bytes += datagram.len() as u64;
            let to = self.index[&to];
            if !self.rng.random_bool(self.loss) {
                let arrives = self.now + self.rng.random_range(LATENCY);
                self.enqueue(arrives, Event::Arrival { to, from, datagram });
            }
        }
        let node = &mut self.nodes[at];
        let next = node.core.next_deadline().map(|deadline| deadline.max(self.now));
        if next != node.alarm {
            node.alarm = next;
            if let Some(deadline) = next {
                self.enqueue(deadline, Event::Alarm(at));
            }
        }
    }

    fn enqueue(&mut self, at: Duration, event: Event) {
        self.queue.insert((at, self.next_seq), event);
        self.next_seq += 1;
    }
}
