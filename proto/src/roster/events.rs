//! What people want to hear of how the roster changes.

use super::{Ending, Member, Roster, Standing};

/// A change of the roster that people want to hear of.
#[derive(Debug, Clone, PartialEq)]
pub enum RosterEvent {
    /// A node was admitted.
    Joined(Member),
    /// A node left.
    Left(Member, Ending),
    /// A node was removed.
    Removed(Member, Ending),
    /// A node shows another name; the earlier one comes with it.
    Renamed(Member, String),
    /// A node came in beyond the uses of an invitation, or through a member that did.
    Unaccepted(Member),
    /// A node that came in so is accepted.
    Accepted(Member),
}

impl Roster {
    /// The changes from an earlier roster to this one that people want to hear of.
    pub fn events_since(&self, earlier: &Self) -> Vec<RosterEvent> {
        let mut events = Vec::new();
        for member in self.all() {
            let before = earlier.member(&member.id);
            match &member.standing {
                standing if before.is_some_and(|b| b.standing == *standing) => {}
                Standing::Member => events.push(RosterEvent::Joined(member.clone())),
                Standing::Left(e) => events.push(RosterEvent::Left(member.clone(), e.clone())),
                Standing::Removed(e) => {
                    events.push(RosterEvent::Removed(member.clone(), e.clone()));
                }
            }
            let before_name = before.filter(|b| b.name != member.name && member.is_current());
            events
                .extend(before_name.map(|b| RosterEvent::Renamed(member.clone(), b.name.clone())));
            let was_held = before.is_some_and(|b| b.is_current() && b.unaccepted.is_some());
            match (was_held, member.is_current(), &member.unaccepted) {
                (false, true, Some(_)) => events.push(RosterEvent::Unaccepted(member.clone())),
                (true, true, None) => events.push(RosterEvent::Accepted(member.clone())),
                _ => {}
            }
        }
        events
    }
}
