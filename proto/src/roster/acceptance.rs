//! Members that came in beyond the uses of an invitation: they may let nobody in until they are
//! accepted.
//!
//! Two members that do not hear each other may each admit a node by an invitation that admits one.
//! Neither admitter is wrong, and neither newcomer is removed; but one newcomer may have used Join
//! Information that it found. So all nodes follow one rule:
//!
//! - The nodes that came by one invitation are ordered by the beginning of their memberships, then
//!   by their ids. Those beyond the number of uses that the issuer signed are *unaccepted*. A node
//!   that left or was removed since still counts, for it used the invitation.
//! - A node is unaccepted, too, if an unaccepted member let it in, or made its invitation, and that
//!   member's own membership had begun before.
//! - A member that was accepted is not unaccepted any more, and then neither are those that came in
//!   by it.
//!
//! An unaccepted member reads and writes like any other. It makes no invitation, no member honours
//! one that it signed, and it admits nobody; joiners that ask it go on to the next seed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::member::read_ending;
use super::records::setting;
use super::{Ending, Member, Roster};
use crate::id::{InviteId, NodeId};
use crate::replica::{Document, Edit};
use crate::time::Hlc;

/// The field of a member's record.
const ACCEPTED: &str = "accepted";

/// How many of the nodes that used the invitation before are named.
const NAMED_MAX: usize = 3;

/// Why a member may let nobody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unaccepted {
    /// Before it, as many nodes had come by its invitation as that admits.
    Beyond {
        /// The invitation.
        invite: InviteId,
        /// How many it admits.
        uses: u32,
    },
    /// This member let it in, or made its invitation, and is unaccepted itself.
    Through(NodeId),
}

/// Who accepted a member, if the acceptance was for the invitation by which the member came in.
pub(super) fn read(document: &Document, invite: Option<InviteId>) -> Option<Ending> {
    let value = document.value(ACCEPTED)?;
    let of = value.get("invite").and_then(Value::as_str).and_then(|text| text.parse().ok());
    (of == invite).then(|| read_ending(value))
}

impl Roster {
    /// The acceptance of a member: for [`member_path`](super::member_path). It holds for the
    /// invitation by which the member came in, and no other.
    pub fn accepting(member: &Member, by: NodeId, who: &str, at_ms: u64) -> Edit {
        let accepted = json!({"by": by, "who": who, "at_ms": at_ms, "invite": member.invite});
        setting([(ACCEPTED, accepted)])
    }

    /// Whether a member may accept others: a member that is not unaccepted itself may. Where no
    /// such member belongs any more, every member may, or nobody could be accepted ever again.
    pub fn may_accept(&self, id: &NodeId) -> bool {
        let is_accepted = |member: &Member| member.unaccepted.is_none();
        self.member(id).is_some_and(is_accepted) || !self.current().any(is_accepted)
    }

    /// Why a member may let nobody in, in words; none where it may, or does not belong.
    pub fn why_unaccepted(&self, member: &Member) -> Option<String> {
        match member.unaccepted.as_ref().filter(|_| member.is_current())? {
            Unaccepted::Beyond { invite, uses } => {
                let before = self.came_by(invite).take(*uses as usize).map(|(_, id)| id);
                let names: Vec<_> = before.take(NAMED_MAX).map(|id| self.name_of(&id)).collect();
                let nodes = if *uses == 1 { "node" } else { "nodes" };
                let more = if *uses as usize > NAMED_MAX { " and others" } else { "" };
                Some(format!(
                    "its invitation {} admits {uses} {nodes}, and {}{more} came by it before",
                    invite.short(),
                    names.join(", ")
                ))
            }
            Unaccepted::Through(other) => Some(format!(
                "it came in by {}, which came in beyond the uses of its invitation",
                self.name_of(other)
            )),
        }
    }

    /// The nodes that came by an invitation, in the order in which they used it; also those that
    /// have come by another invitation since.
    fn came_by(&self, invite: &InviteId) -> impl Iterator<Item = (Hlc, NodeId)> {
        let came = self.all().filter_map(|m| Some((m.came_by(invite)?, m.id)));
        let mut came: Vec<_> = came.collect();
        came.sort_unstable();
        came.into_iter()
    }

    /// Notes at each member whether it is unaccepted.
    pub(super) fn settle_acceptance(&mut self) {
        let found = self.find_unaccepted();
        let altered: Vec<_> = self
            .all()
            .filter(|member| member.unaccepted.as_ref() != found.get(&member.id))
            .map(|member| member.id)
            .collect();
        for id in altered {
            let unaccepted = found.get(&id).cloned();
            self.alter(&id, |member| member.unaccepted = unaccepted);
        }
    }

    fn find_unaccepted(&self) -> BTreeMap<NodeId, Unaccepted> {
        let mut used: BTreeMap<InviteId, u32> = BTreeMap::new();
        for invite in self.all().flat_map(Member::came_by_each) {
            *used.entry(invite).or_default() += 1;
        }
        let mut found = BTreeMap::new();
        for (invite, used) in used {
            let uses = self.invite(&invite).and_then(|record| record.uses());
            let Some(uses) = uses.filter(|uses| used > *uses) else { continue };
            let beyond = self.came_by(&invite).skip(uses as usize).map(|(_, id)| id);
            // A node that has come by another invitation since is judged by that one.
            let counts = |m: &Member| m.invite == Some(invite) && m.accepted.is_none();
            let beyond = beyond.filter(|id| self.member(id).is_some_and(counts));
            found.extend(beyond.map(|id| (id, Unaccepted::Beyond { invite, uses })));
        }
        // Then come the nodes that unaccepted members let in, the nodes that those let in, and so
        // on. Each round finds one more, or is the last.
        while !found.is_empty() {
            let more = self.all().filter(|m| m.accepted.is_none() && !found.contains_key(&m.id));
            let more: Vec<_> =
                more.filter_map(|m| Some((m.id, self.through(m, &found)?))).collect();
            if more.is_empty() {
                break;
            }
            found.extend(more.into_iter().map(|(id, other)| (id, Unaccepted::Through(other))));
        }
        found
    }

    fn through(
        &self,
        member: &Member,
        unaccepted: &BTreeMap<NodeId, Unaccepted>,
    ) -> Option<NodeId> {
        let issuer = member.invite.and_then(|invite| self.invite(&invite)?.issuer());
        let by = [Some(member.admitted_by), issuer].into_iter().flatten();
        // A node is not affected if it was let in before the unaccepted member left and came back.
        let was_so = |id: &NodeId| self.member(id).is_some_and(|by| by.since <= member.since);
        by.into_iter().find(|id| *id != member.id && unaccepted.contains_key(id) && was_so(id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Keypair;
    use crate::replica::{Replica, SignedChange};
    use crate::roster::tests::{invitation, merge, replica, write};
    use crate::roster::{RosterEvent, invite_path, member_path};

    const INVITE: InviteId = InviteId([7; 32]);
    const OTHER: InviteId = InviteId([8; 32]);

    fn key(n: u8) -> Keypair {
        Keypair::from_seed([n; 32])
    }

    fn id(n: u8) -> NodeId {
        key(n).node_id()
    }

    fn admit(
        replica: &mut Replica,
        n: u8,
        by: u8,
        invite: Option<InviteId>,
        wall_ms: u64,
    ) -> SignedChange {
        let name = format!("pve-{n}").parse().unwrap();
        let edit = Roster::of(replica).admission(&id(n), &name, &[], id(by), invite, wall_ms);
        write(replica, &member_path(&id(n)), edit, wall_ms)
    }

    fn invite(replica: &mut Replica, issuer: u8, invite: InviteId, uses: u32) -> SignedChange {
        let edit = Roster::inviting(&invitation(&key(issuer), invite, uses));
        write(replica, &invite_path(&invite), edit, 10)
    }

    fn accept(replica: &mut Replica, n: u8, by: u8) {
        let roster = Roster::of(replica);
        let edit = Roster::accepting(roster.member(&id(n)).unwrap(), id(by), "root", 9000);
        write(replica, &member_path(&id(n)), edit, 9000);
    }

    fn unaccepted(replica: &Replica) -> Vec<u8> {
        let roster = Roster::of(replica);
        (1..20).filter(|n| roster.member(&id(*n)).is_some_and(|m| m.unaccepted.is_some())).collect()
    }

    /// The founder, and its invitation for one node.
    fn founded() -> Replica {
        let mut a = replica(1);
        admit(&mut a, 1, 1, None, 1);
        invite(&mut a, 1, INVITE, 1);
        a
    }

    #[test]
    fn of_two_that_came_by_an_invitation_for_one_the_later_is_unaccepted_until_it_is_accepted() {
        let mut a = founded();
        let mut b = replica(2);
        let later = admit(&mut b, 4, 2, Some(INVITE), 2000);
        let before = Roster::of(&a);
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        assert_eq!(unaccepted(&a), [] as [u8; 0]);
        merge(&mut a, later);
        assert_eq!(unaccepted(&a), [4]);
        let roster = Roster::of(&a);
        let why = roster.why_unaccepted(roster.member(&id(4)).unwrap()).unwrap();
        assert!(why.contains("admits 1 node, and pve-3 came by it before"), "{why}");
        let told =
            |event: &RosterEvent| matches!(event, RosterEvent::Unaccepted(m) if m.id == id(4));
        assert!(roster.events_since(&before).iter().any(told));

        accept(&mut a, 4, 1);

        assert_eq!(unaccepted(&a), [] as [u8; 0]);
        let told = |event: &RosterEvent| matches!(event, RosterEvent::Accepted(m) if m.id == id(4));
        assert!(Roster::of(&a).events_since(&roster).iter().any(told));
    }

    #[test]
    fn one_that_left_or_was_removed_used_the_invitation_all_the_same() {
        let mut a = founded();
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        write(&mut a, &member_path(&id(3)), Roster::removal(id(1), "root", 1500), 1500);
        admit(&mut a, 4, 1, Some(INVITE), 2000);
        assert_eq!(unaccepted(&a), [4]);
    }

    /// A member let a node in, and made an invitation, before anyone could know that it is
    /// unaccepted.
    #[test]
    fn whom_an_unaccepted_member_brought_is_unaccepted_with_it_and_accepted_with_it() {
        let mut a = founded();
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        admit(&mut a, 4, 1, Some(INVITE), 2000);
        admit(&mut a, 5, 4, None, 3000);
        invite(&mut a, 4, OTHER, 5);
        admit(&mut a, 6, 1, Some(OTHER), 4000);
        admit(&mut a, 7, 6, None, 5000);
        assert_eq!(unaccepted(&a), [4, 5, 6, 7]);
        accept(&mut a, 6, 1);
        assert_eq!(unaccepted(&a), [4, 5]);
        accept(&mut a, 4, 1);
        assert_eq!(unaccepted(&a), [] as [u8; 0]);
    }

    /// The founder left, and came back by an invitation that was used already. Then every node that
    /// it had ever let in could let nobody in any more.
    #[test]
    fn whom_a_member_let_in_before_it_came_back_beyond_the_uses_is_not_affected() {
        let mut a = founded();
        admit(&mut a, 3, 1, None, 1000);
        write(&mut a, &member_path(&id(1)), Roster::leaving(id(1), "root", 2000), 2000);
        admit(&mut a, 4, 3, Some(INVITE), 2500);
        admit(&mut a, 1, 3, Some(INVITE), 3000);
        assert_eq!(unaccepted(&a), [1]);
        admit(&mut a, 5, 1, None, 4000);
        assert_eq!(unaccepted(&a), [1, 5]);
    }

    /// The first node that used an invitation left, and came back by another one. Then the second
    /// node counted as rightly admitted, and the first invitation had a use left.
    #[test]
    fn an_invitation_stays_used_by_who_comes_back_by_another_one() {
        let mut a = founded();
        invite(&mut a, 1, OTHER, 1);
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        admit(&mut a, 4, 1, Some(INVITE), 2000);
        assert_eq!(unaccepted(&a), [4]);
        for at in [3000, 4000] {
            write(&mut a, &member_path(&id(3)), Roster::leaving(id(3), "root", at), at);
            admit(&mut a, 3, 1, Some(OTHER), at + 500);
        }
        assert_eq!(unaccepted(&a), [4]);
        let used: Vec<_> = Roster::of(&a).admitted_with(&INVITE).collect();
        assert_eq!(used.len(), 2);
    }

    #[test]
    fn an_acceptance_holds_for_one_coming_and_not_for_the_next() {
        let mut a = founded();
        invite(&mut a, 1, OTHER, 1);
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        admit(&mut a, 5, 1, Some(OTHER), 1000);
        admit(&mut a, 4, 1, Some(INVITE), 2000);
        accept(&mut a, 4, 1);
        write(&mut a, &member_path(&id(4)), Roster::leaving(id(4), "root", 9500), 9500);
        admit(&mut a, 4, 1, Some(OTHER), 9600);
        assert_eq!(unaccepted(&a), [4]);
    }

    #[test]
    fn the_unaccepted_accept_nobody_unless_nobody_else_is_left() {
        let mut a = founded();
        admit(&mut a, 3, 1, Some(INVITE), 1000);
        admit(&mut a, 4, 1, Some(INVITE), 2000);
        let may = |a: &Replica| [1, 3, 4].map(|n| Roster::of(a).may_accept(&id(n)));
        assert_eq!(may(&a), [true, true, false]);
        for n in [1, 3] {
            write(&mut a, &member_path(&id(n)), Roster::removal(id(4), "root", 3000), 3000);
        }
        assert!(Roster::of(&a).may_accept(&id(4)));
    }

    #[test]
    fn an_invitation_for_any_number_or_of_unknown_terms_holds_nobody_back() {
        let mut a = founded();
        for n in 3..6 {
            admit(&mut a, n, 1, Some(OTHER), 1000 + u64::from(n));
        }
        assert_eq!(unaccepted(&a), [] as [u8; 0]);
        // The record comes later than the admissions.
        invite(&mut a, 1, OTHER, 2);
        assert_eq!(unaccepted(&a), [5]);
    }

    proptest! {
        /// In whatever order nodes hear the changes, they find the same members unaccepted: as many
        /// as came beyond the uses.
        #[test]
        fn all_agree_on_who_came_beyond_the_uses(
            times in prop::collection::vec(100..105u64, 1..8),
            uses in 1..4u32,
            turn in any::<prop::sample::Index>(),
        ) {
            let mut writers = [replica(1), replica(2)];
            let mut changes = vec![invite(&mut writers[0], 1, INVITE, uses)];
            for (n, at) in times.iter().enumerate() {
                let writer = &mut writers[n % 2];
                changes.push(admit(writer, 10 + n as u8, 1, Some(INVITE), *at));
            }
            let mut found = Vec::new();
            for turned in [false, true] {
                let mut hearer = replica(9);
                if turned {
                    let middle = turn.index(changes.len());
                    changes.rotate_left(middle);
                }
                for change in &changes {
                    merge(&mut hearer, change.clone());
                }
                found.push(unaccepted(&hearer));
            }
            prop_assert_eq!(&found[0], &found[1]);
            prop_assert_eq!(found[0].len(), times.len().saturating_sub(uses as usize));
        }
    }
}
