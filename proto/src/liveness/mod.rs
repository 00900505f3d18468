//! Which members are alive: SWIM over datagrams, by the crate `foca`, among the members that the
//! roster names.
//!
//! What this module promises beyond foca:
//! - Only members that the roster names are heard, asked or spoken of. A removed node stays out,
//!   whatever others gossip, and every datagram names the peer that it came from as its sender.
//! - A member that the roster names is sought until it is met, and a member that is away is sought
//!   for ever, at a bounded rate: any partition heals by itself.
//! - A node that was declared down wrongly, or whose disk and boot number were rolled back, comes
//!   back by itself under a later life.
//! - A host that stood still does not hold its own deafness against others (see [`timers`]).
//! - Evidence of a death, such as a refused port, makes this node ask sooner, and is never a
//!   verdict by itself.
//! - A member that falls silent is asked by another member within a bounded time (see [`watch`]).
//! - An idle Data Center sends two probes and two answers per node and period, and nothing
//!   else.
//! - An input costs what it touches. Only this grows with the number of members: foca's own search
//!   by address, once for each piece of news, the draw of helpers when a member is doubted, and
//!   asking around while members are not met yet.
//!
//! The core holds no clock: every input says what time it is, and [`Liveness::next_deadline`] when
//! [`Liveness::expired`] is to be called. A later call does no harm.

mod alarms;
mod codec;
mod doubt;
mod hearing;
mod identity;
mod outside;
mod pace;
mod seeking;
mod settling;
mod standing;
mod taught;
#[cfg(test)]
mod tests;
mod timers;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foca::{Foca, Header, Incarnation, Member, Message, NoCustomBroadcast};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::codec::Wire;
use self::doubt::Doubt;
use self::identity::{BOOT_UNMET, Life};
use self::outside::{OUT_OF_TURN, Outside};
use self::settling::Cause;
use crate::id::NodeId;
use crate::time::Now;

pub use self::codec::{DATAGRAM_MAX, can_wait};
pub use self::doubt::Evidence;
pub use self::standing::{LivenessEvent, Return, Standing, State, Tried, Why};

/// The incarnation under which a node is spread as down when it left on its own accord: no node
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
    /// Whether [`timers::Alarm::Gossip`] is set.
    gossiping: bool,
    /// Whether [`timers::Alarm::Watch`] is set.
    watching: bool,
    /// When news were passed on last.
    gossiped: Option<Duration>,
    /// Whether [`timers::Alarm::Seek`] is set, and for when.
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
    /// The evidence against it, while this node looks into it or until the member is alive again.
    doubt: Option<Doubt>,
    /// Until when evidence against it is ignored, because it answered in spite of earlier evidence.
    trusted_until: Duration,
    /// Whether it took this node for lost while it was away.
    missed_us: bool,
    reprieves: u8,
    /// When it was last asked while away.
    sought: Duration,
}

impl Liveness {
    /// The detector of node `me` in its start number `boot`, which is larger than any before and
    /// not zero.
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
    /// multiplier. Work that can wait should wait as many times longer.
    pub fn local_health_multiplier(&self) -> u32 {
        self.outside.timers.multiplier()
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
            // The next alarm may depend on what this one changed.
            self.settle(Cause::Silence);
        }
        self.outputs()
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

impl Entry {
    fn is_away(&self) -> bool {
        matches!(self.standing.state, State::Unknown | State::Down | State::Left)
    }

    /// The member answered in spite of evidence against it: further evidence is ignored for a
    /// while.
    fn trust(&mut self, doubt: Doubt, now: Duration) {
        self.trusted_until = self.trusted_until.max(now + doubt.evidence.rest());
    }
}
