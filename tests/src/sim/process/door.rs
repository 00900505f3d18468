//! Who is let in, and what becomes of what they bring.

use peerage_proto::id::NodeId;
use peerage_proto::replica::{Outputs, SignedChange};
use peerage_proto::roster::{self, Member, Standing};
use peerage_proto::time::Now;

use super::session::Place;
use super::{Effect, Process, Then};
use crate::sim::flaw::Flaw;
use crate::sim::network::Body;

impl Process {
    /// Takes what came over the wires. The sender is authenticated, as QUIC does it.
    pub fn receive(
        &mut self,
        from: NodeId,
        vouched: &[SignedChange],
        body: Body,
        now: Now,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_parked() {
            return effects;
        }
        self.hear_vouching(from, vouched, now, &mut effects);
        let standing = self.roster.member(&from).map(|m| &m.standing);
        match standing {
            Some(Standing::Removed(_)) if self.flaw != Some(Flaw::AdmitsTheRemoved) => {
                // Two nodes that removed each other must not refuse each other's refusals for ever.
                if !matches!(body, Body::Refusal(_)) {
                    self.refuse(from, &mut effects);
                }
                return effects;
            }
            Some(Standing::Left(_)) => return effects,
            None if !self.trusts(from) => return effects,
            _ => {}
        }
        effects.push(Effect::LetIn(from));
        match body {
            Body::Push(change) | Body::Refusal(change) => self.merge(change, now, &mut effects),
            Body::Part { session, from_run, to_run, index, part } => {
                let place = Place { from, session, from_run, to_run, index };
                self.take_part(place, part, now, &mut effects);
            }
        }
        effects
    }

    /// Whether another's word counts here: a member's. One that has not joined yet knows no
    /// members, but the seed that it dialled itself.
    fn trusts(&self, node: NodeId) -> bool {
        self.roster.member(&node).map_or(!self.joined, Member::is_current)
    }

    /// Merges the admissions that a stranger shows, from the one whose writer is a member on.
    fn hear_vouching(
        &mut self,
        from: NodeId,
        vouched: &[SignedChange],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.roster.member(&from).is_some() {
            return;
        }
        for change in vouched.iter().map(verified) {
            if self.trusts(change.dot.writer.node) {
                self.shown.insert(change.dot);
                let outputs = self.replica.merge_proof(change, false, now);
                self.take(outputs, None, effects);
            }
        }
    }

    /// Shows a removed node the change that removed it, once that is stored here.
    fn refuse(&mut self, to: NodeId, effects: &mut Vec<Effect>) {
        let document = self.replica.document(&roster::member_path(&to));
        let removal = document.and_then(|d| d.fields().find(|(f, _, _)| f.as_str() == "removed"));
        let body = removal.map(|(_, _, change)| Body::Refusal(change.clone()));
        self.take(Outputs::default(), body.map(|body| Then::Send { to, body }), effects);
    }

    pub(super) fn merge(&mut self, change: SignedChange, now: Now, effects: &mut Vec<Effect>) {
        let outputs = self.replica.merge(verified(&change), false, now);
        assert!(!outputs.untaken, "no host of a simulated world leaves out a value that shows");
        self.take(outputs, None, effects);
    }
}

/// No host of a simulated world forges: what does not verify is our own mistake.
fn verified(sent: &SignedChange) -> SignedChange {
    SignedChange::verify(sent.bytes().clone()).expect("what a host sends is signed by its writer")
}
