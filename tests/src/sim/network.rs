//! The wires between the hosts: they lose, delay, double and reorder, and can be cut one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use peerage_proto::replica::{SignedChange, Vector};

use super::dice::Dice;

/// How long a message is on its way at most while the network is calm, in milliseconds.
const CALM_DELAY_MS_MAX: u64 = 3;

/// How long a message is held back at most, so that others overtake it.
const HELD_BACK_MS_MAX: u64 = 400;

/// A host, by its number in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0)
    }
}

/// What is on its way from one host to another.
#[derive(Debug, Clone)]
pub struct Message {
    /// The host that sent it.
    pub from: HostId,
    /// The host that it is for.
    pub to: HostId,
    /// The changes that admitted the sender, for a receiver that has not heard of it.
    pub vouched: Vec<SignedChange>,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum Body {
    /// A change that its sender has just stored.
    Push(SignedChange),
    /// One part of a session. Each side sends its parts in order, as on a stream, and no stream
    /// outlives the two processes that it joins.
    Part {
        /// The session.
        session: u64,
        /// The run of the process that sends it.
        from_run: u64,
        /// The run of the process that it is for; none for the first part of a session, which any
        /// run may answer.
        to_run: Option<u64>,
        /// The number of this part on its side, from 0.
        index: usize,
        /// What it carries.
        part: Part,
    },
    /// The receiver was removed, by this change.
    Refusal(SignedChange),
}

/// What each side of an anti-entropy session sends: first an opening, then changes, then the end.
#[derive(Debug, Clone)]
pub enum Part {
    /// What the sender holds.
    Open(Vector),
    /// Changes that the other lacks.
    Changes(Vec<SignedChange>),
    /// What the other side holds once it has stored the changes.
    End(Vector),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{} ", self.from, self.to)?;
        match &self.body {
            Body::Push(change) => write!(f, "push {:?}", change.dot),
            Body::Refusal(_) => write!(f, "refusal"),
            Body::Part { session, index, part, .. } => match part {
                Part::Open(_) => write!(f, "session {session} part {index}: open"),
                Part::Changes(c) => {
                    write!(f, "session {session} part {index}: {} changes", c.len())
                }
                Part::End(_) => write!(f, "session {session} part {index}: end"),
            },
        }
    }
}

/// The state of the wires.
#[derive(Debug, Clone, Default)]
pub struct Network {
    cut: BTreeSet<(HostId, HostId)>,
    /// In percent.
    loss: u64,
    doubling: u64,
    holding_back: u64,
    /// When the last part of each session arrives, by the side that sends it.
    last_parts: BTreeMap<(u64, HostId), u64>,
}

impl Network {
    /// A network that is as bad as the dice say.
    pub fn bad(dice: &mut Dice) -> Self {
        Self {
            loss: *dice.pick(&[0, 2, 10, 25]).expect("there are four"),
            doubling: *dice.pick(&[0, 5, 20]).expect("there are three"),
            holding_back: *dice.pick(&[0, 5, 20]).expect("there are three"),
            ..Self::default()
        }
    }

    /// Cuts the way from one host to another, not back.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    /// Joins all that was cut.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Whether nothing gets from one host to another now.
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// When each copy of a message that leaves now arrives; none where the message is lost. The
    /// parts of a session stay in order, as on a stream: a lost part leaves a gap, which ends the
    /// session.
    pub fn arrivals(&mut self, dice: &mut Dice, now_ms: u64, message: &Message) -> Vec<u64> {
        if self.is_cut(message.from, message.to) || dice.chance(self.loss) {
            return Vec::new();
        }
        let copies = if dice.chance(self.doubling) { 2 } else { 1 };
        let mut arrival = || match dice.chance(self.holding_back) {
            true => now_ms + dice.between(1, HELD_BACK_MS_MAX),
            false => now_ms + dice.between(1, CALM_DELAY_MS_MAX),
        };
        let mut arrivals: Vec<u64> = (0..copies).map(|_| arrival()).collect();
        if let Body::Part { session, .. } = message.body {
            let last = self.last_parts.entry((session, message.from)).or_default();
            for arrival in &mut arrivals {
                *arrival = (*arrival).max(*last);
                *last = *arrival;
            }
        }
        arrivals
    }
}
