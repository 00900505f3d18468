//! Calls to nodes that were put out and may not know it: if the two sides of a partition each put
//! out the other, nobody else would tell them.
//!
//! A node that hears that it was put out puts itself aside, and nobody calls it again. A node that
//! was put out during a partition goes on, and may have put out this side in turn: then neither
//! side dials the other any more, since nobody dials a node that is not a member. So one node of
//! each side calls, ever more rarely for as long as nobody answers: the node on which the removal
//! was asked for or, where that node is gone, the one with the lowest id. If the call finds the
//! other side, the caller names that node in its vitals, and every member of the caller's side
//! calls it once for itself.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::backoff::Backoff;
use peerage_proto::id::NodeId;
use peerage_proto::roster::{Roster, Standing};
use tokio::time::{Instant, sleep};

use super::members::Members;
use super::objections::{Objections, is_aside};
use super::vitals::VitalsHandle;
use crate::mesh::{DialError, Mesh};

/// How often a node looks whether there is someone to call.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The first and the longest wait between two rounds of calls.
const CALL_WAIT: Duration = Duration::from_secs(10);
const CALL_WAIT_MAX: Duration = Duration::from_secs(600);
const BETWEEN_CALLS: Backoff = Backoff::new(CALL_WAIT, CALL_WAIT_MAX);

/// How many nodes are called in one round.
const CALLED_MAX: usize = 8;

/// Which nodes to call next, and when.
#[derive(Debug)]
struct Rounds {
    due: Instant,
    /// How many rounds there were since the waits began anew.
    rounds: u32,
    /// The nodes that were to be called at the last look.
    known: BTreeSet<NodeId>,
    /// The node that was called last: the next round begins with the id after it.
    last: Option<NodeId>,
}

impl Rounds {
    fn new(now: Instant) -> Self {
        Self { due: now, rounds: 0, known: BTreeSet::new(), last: None }
    }

    /// The nodes of `wanted` to call now, at most `CALLED_MAX` of them. Where one of `wanted` is
    /// new, the waits begin anew.
    fn next(&mut self, wanted: BTreeSet<NodeId>, now: Instant) -> Vec<NodeId> {
        if !wanted.is_subset(&self.known) {
            (self.due, self.rounds) = (now, 0);
        }
        self.known = wanted;
        if now < self.due || self.known.is_empty() {
            return Vec::new();
        }
        self.due = now + BETWEEN_CALLS.wait(self.rounds);
        self.rounds = self.rounds.saturating_add(1);
        let (behind, rest): (Vec<_>, Vec<_>) =
            self.known.iter().copied().partition(|node| Some(*node) <= self.last);
        let round: Vec<_> = rest.into_iter().chain(behind).take(CALLED_MAX).collect();
        self.last = round.last().copied();
        round
    }
}

/// Calls the nodes that were put out, and calls them back.
#[derive(Clone)]
pub struct Calling {
    members: Members,
    objections: Objections,
    vitals: VitalsHandle,
    mesh: Mesh,
}

impl Calling {
    /// The calls of this node. The vitals of the other members tell it which nodes their calls have
    /// found.
    pub(super) fn new(
        members: Members,
        objections: Objections,
        vitals: VitalsHandle,
        mesh: Mesh,
    ) -> Self {
        Self { members, objections, vitals, mesh }
    }

    /// Calls the nodes that were put out, where this node is the caller of its side.
    pub(super) async fn call_those_put_out(self) {
        let mut rounds = Rounds::new(Instant::now());
        // Nodes that know how they stand: they put themselves aside, or took another identity.
        let mut settled: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            sleep(LOOK_EVERY).await;
            let wanted = self.wanted(&settled);
            for node in rounds.next(wanted, Instant::now()) {
                // The gate notes the objection that a refusal carries. A node that accepts the dial
                // is refused by this one, and hears why when it dials back.
                match self.mesh.connect(node).await {
                    Err(DialError::WrongKey { is_self: false, .. }) => drop(settled.insert(node)),
                    Err(DialError::Refused(refusal)) if is_aside(refusal.code) => {
                        settled.insert(node);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Dials a node that was put out and that dials as if it were a member. It may have put out
    /// this node in turn, and this node does not learn that by refusing the dial. Only the caller
    /// of a side dials back.
    pub(crate) fn call_back(&self, peer: NodeId) {
        if !self.objections.is_known(&peer) && self.is_mine(&self.members.roster(), peer) {
            // The gate notes what the node answers. After a failed dial the mesh lets the node
            // rest, as any other.
            self.mesh.seek(peer);
        }
    }

    /// The nodes that this node is to call: those for which it is the caller of its side, and those
    /// that another member has found.
    fn wanted(&self, settled: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let roster = self.members.roster();
        let removed = roster.all().filter(|member| matches!(member.standing, Standing::Removed(_)));
        let mut open: BTreeSet<_> = removed.map(|member| member.id).collect();
        open.retain(|node| !settled.contains(node) && !self.objections.is_known(node));
        if open.is_empty() {
            return open;
        }
        let vitals = self.vitals.all().borrow().clone();
        let told = vitals.iter().filter(|(node, _)| roster.is_current(node));
        let found: BTreeSet<_> =
            told.flat_map(|(_, vital)| vital.vitals.objectors.clone()).collect();
        open.retain(|node| found.contains(node) || self.is_mine(&roster, *node));
        open
    }

    /// Whether this node is the one of its side that calls `node`, which was put out.
    fn is_mine(&self, roster: &Roster, node: NodeId) -> bool {
        let Some(Standing::Removed(ending)) = roster.member(&node).map(|member| &member.standing)
        else {
            return false;
        };
        let me = self.members.me;
        if ending.by == me {
            return true;
        }
        let alive = self.members.alive();
        !alive.contains(&ending.by) && alive.iter().all(|other| me < *other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(range: std::ops::Range<u8>) -> BTreeSet<NodeId> {
        range.map(|n| NodeId([n; 32])).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_grow_rare_and_begin_anew_for_one_that_is_put_out_later() {
        let begun = Instant::now();
        let mut rounds = Rounds::new(begun);
        let mut called = |hours: u64, wanted: BTreeSet<NodeId>, from: Instant| {
            let ticks = (0..hours * 360).map(|tick| from + LOOK_EVERY * tick as u32);
            ticks.filter(|now| !rounds.next(wanted.clone(), *now).is_empty()).count()
        };
        assert_eq!(called(1, BTreeSet::new(), begun), 0);
        let first_hour = called(1, nodes(1..2), begun);
        let second_hour = called(1, nodes(1..2), begun + Duration::from_secs(3_600));
        assert!((8..=14).contains(&first_hour), "{first_hour}");
        assert_eq!(second_hour, 6);
        let with_another = called(1, nodes(1..3), begun + Duration::from_secs(7_200));
        assert_eq!(with_another, first_hour);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_all_are_called_in_turn() {
        let mut now = Instant::now();
        let mut rounds = Rounds::new(now);
        let mut called = BTreeSet::new();
        for _ in 0..3 {
            let round = rounds.next(nodes(0..20), now);
            assert!(round.len() <= CALLED_MAX);
            called.extend(round);
            now += CALL_WAIT_MAX;
        }
        assert_eq!(called, nodes(0..20));
    }
}
