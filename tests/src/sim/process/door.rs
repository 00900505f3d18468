//! Which nodes a process lets in, and what it does with what they send.

use peerage_proto::id::NodeId;
use peerage_proto::replica::SignedChange;
use peerage_proto::roster::{self, Member, Standing};
use peerage_proto::time::Now;

use super::session::Place;
use super::{Effect, Process, Then};
use crate::sim::flaw::Flaw;
use crate::sim::network::Body;

impl Process {
    /// Takes a message that came over the wires. The sender is authenticated, as QUIC does it.
    pub fn receive(
        &mut self,
        from: NodeId,
        vouched: Vec<SignedChange>,
        body: Body,
        now: Now,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.meet(from, vouched, body, now, &mut effects);
        self.step(now, &mut effects);
        effects
    }

    /// Merges the admissions that a stranger shows, one after the other; a member must have written
    /// each. Then takes the stranger's message.
    pub(super) fn meet(
        &mut self,
        from: NodeId,
        vouched: Vec<SignedChange>,
        body: Body,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_parked() {
            return;
        }
        let mut vouched = vouched.into_iter();
        if self.roster.member(&from).is_none()
            && let Some(change) = vouched.find(|change| self.trusts(change.dot.writer.node))
        {
            let change = verified(&change);
            self.shown.insert(change.dot);
            self.desk.merge_proof([change], false, now);
            let vouched = vouched.collect();
            return self.desk.answer_after_commit(Then::Meet { from, vouched, body });
        }
        self.hear(from, body, now, effects);
    }

    fn hear(&mut self, from: NodeId, body: Body, now: Now, effects: &mut Vec<Effect>) {
        let standing = self.roster.member(&from).map(|m| &m.standing);
        match standing {
            Some(Standing::Removed(_)) if self.flaw != Some(Flaw::AdmitsTheRemoved) => {
                // Two nodes that removed each other must not refuse each other's refusals for ever.
                if !matches!(body, Body::Refusal(_)) {
                    self.refuse(from);
                }
                return;
            }
            Some(Standing::Left(_)) => return,
            None if !self.trusts(from) => return,
            _ => {}
        }
        effects.push(Effect::LetIn(from));
        match body {
            Body::Push(change) | Body::Refusal(change) => self.merge([change], now),
            Body::Part { session, from_run, to_run, index, part } => {
                let place = Place { from, session, from_run, to_run, index };
                self.take_part(place, part, now, effects);
            }
        }
    }

    /// Whether this node believes another one: a member. A node that has not joined yet believes a
    /// stranger, too, for it knows no members and dialled the seed itself.
    fn trusts(&self, node: NodeId) -> bool {
        self.roster.member(&node).map_or(!self.joined, Member::is_current)
    }

    /// Shows a removed node the change that removed it, once that is stored here.
    fn refuse(&mut self, to: NodeId) {
        let document = self.replica().document(&roster::member_path(&to));
        let removal = document.and_then(|d| d.fields().find(|(f, _, _)| f.as_str() == "removed"));
        if let Some((_, _, change)) = removal {
            let body = Body::Refusal(change.clone());
            self.desk.answer_after_commit(Then::Send { to, body });
        }
    }

    pub(super) fn merge(&mut self, changes: impl IntoIterator<Item = SignedChange>, now: Now) {
        let changes = changes.into_iter().map(|change| verified(&change));
        let all = self.desk.merge(changes, false, now);
        assert!(all, "no host of a simulated world leaves out a value that shows");
    }
}

/// No host of a simulated world forges: a change that does not verify is our own mistake.
fn verified(sent: &SignedChange) -> SignedChange {
    SignedChange::verify(sent.bytes().clone()).expect("what a host sends is signed by its writer")
}
