//! One node's record: what the roster holds of it, and how that is read out of its document.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use super::acceptance::{self, Unaccepted};
use super::name::NodeName;
use super::precedence::{Past, Place};
use crate::address::Address;
use crate::id::{InviteId, NodeId};
use crate::links::{ADDRESSES_MAX, canonical};
use crate::replica::{Document, Stamp};
use crate::time::Hlc;

/// How many addresses are kept at which a member was seen, beside those that it told.
pub const SEEN_MAX: usize = 2;

/// How many invitations of earlier memberships are kept of a node that leaves and comes back.
pub const USED_MAX: usize = 16;

/// How a member's membership ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The node on which it was asked.
    pub by: NodeId,
    /// Who asked there.
    pub who: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Where a node stands with the Data Center.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It belongs.
    Member,
    /// It went by itself; it may come back with Join Information.
    Left(Ending),
    /// It was removed, and its key stays out.
    Removed(Ending),
}

/// What the roster holds of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The name that it shows: its given one, with a suffix where another member shows that.
    pub name: String,
    /// The name that it was given.
    pub given_name: String,
    /// Whether it belongs, left or was removed.
    pub standing: Standing,
    /// Where it says that it is reached, the best address first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// The addresses from which its packets came to the member that admitted it, beside those that
    /// it told. They are tried after all others, since a router may have translated the node's
    /// address. Only the next admission replaces them; at most [`SEEN_MAX`].
    pub seen: Vec<SocketAddr>,
    /// When it was admitted; the latest time, if several members admitted it.
    pub admitted: Stamp,
    /// Since when it has belonged without a break: a node that is admitted again while it belongs,
    /// such as after a crash, keeps its place. This time decides which node used an invitation
    /// first.
    pub since: Hlc,
    /// Since when it claims its name, which decides between members that were given the same name.
    pub claim: Hlc,
    /// The node that admitted it; itself for the founder.
    pub admitted_by: NodeId,
    /// The invitation that admitted it; none for the founder.
    pub invite: Option<InviteId>,
    /// The invitations by which it came before it left, with the time at which that membership
    /// began: they stay used. The latest [`USED_MAX`] are kept.
    pub(super) used: Vec<(InviteId, Hlc)>,
    /// Who accepted it, though it came in beyond the uses of that invitation.
    pub accepted: Option<Ending>,
    /// Why it may let nobody in until it is accepted; none where it may.
    pub unaccepted: Option<Unaccepted>,
    /// What its next admission says of its past.
    pub(super) past: Past,
}

impl Member {
    /// Reads a member's record. A record without an admission (that change is still on its way)
    /// names no member, unless it says that the node was removed.
    pub(super) fn read(id: NodeId, document: &Document) -> Option<Self> {
        let removed = document.value("removed").map(read_ending);
        let said = |name: &str| document.fields().find(|(field, _, _)| field.as_str() == name);
        let (admission, left) = (said("admitted"), said("left"));
        let (admitted, stamp) = match (&admission, &removed) {
            (Some((_, value, change)), _) => ((*value).clone(), change.stamp()),
            (None, Some(_)) => (Value::Null, document.stamp()?),
            (None, None) => return None,
        };
        // The member that admitted it again may not have heard that it left: the later of the two
        // changes holds.
        let left = left.filter(|(_, _, change)| change.stamp() > stamp);
        let left = left.map(|(_, value, _)| read_ending(value));
        let given_name = match document.value("name").and_then(Value::as_str) {
            Some(name) if name.parse::<NodeName>().is_ok() => name.to_owned(),
            _ => format!("node-{}", id.short()),
        };
        let texts = |name: &str| {
            let list = document.value(name).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str)
        };
        let addresses = texts("addresses").filter_map(|text| text.parse().ok());
        let addresses = addresses.map(Address::canonical).take(ADDRESSES_MAX).collect();
        let seen = texts("seen").filter_map(|text| text.parse().ok());
        let seen = seen.map(canonical).take(SEEN_MAX).collect();
        let read_id = |name: &str| admitted.get(name).and_then(Value::as_str);
        let place = Place::read(document, &given_name);
        let invite = read_id("invite").and_then(|t| t.parse().ok());
        let used = admitted.get("used").and_then(Value::as_array).into_iter().flatten();
        let used = used.take(USED_MAX).filter_map(|used| {
            let (by, since) = (used.get(0)?.as_str()?, used.get(1)?.as_u64()?);
            Some((by.parse().ok()?, Hlc(since).min(stamp.at)))
        });
        let used = used.collect();
        Some(Self {
            id,
            name: given_name.clone(),
            given_name,
            standing: match (removed, left) {
                (Some(ending), _) => Standing::Removed(ending),
                (None, Some(ending)) => Standing::Left(ending),
                (None, None) => Standing::Member,
            },
            addresses,
            seen,
            admitted: stamp,
            since: place.since,
            claim: place.claim,
            admitted_by: read_id("by").and_then(|t| t.parse().ok()).unwrap_or(id),
            invite,
            used,
            accepted: acceptance::read(document, invite),
            unaccepted: None,
            past: place.past,
        })
    }

    /// Whether it belongs now.
    pub fn is_current(&self) -> bool {
        self.standing == Standing::Member
    }

    /// All places where it may be found: what it said itself first, then where it was seen.
    pub fn places(&self) -> Vec<Address> {
        let seen = self.seen.iter().copied().map(Address::Ip);
        let seen = seen.filter(|seen| !self.addresses.contains(seen));
        self.addresses.iter().cloned().chain(seen).collect()
    }

    /// When it used an invitation, if ever it did.
    pub(super) fn came_by(&self, invite: &InviteId) -> Option<Hlc> {
        let now = self.invite.iter().map(|by| (*by, self.since));
        let uses = now.chain(self.used.iter().copied());
        uses.filter(|(by, _)| by == invite).map(|(_, since)| since).min()
    }

    /// Each invitation that it used.
    pub(super) fn came_by_each(&self) -> BTreeSet<InviteId> {
        self.invite.into_iter().chain(self.used.iter().map(|(by, _)| *by)).collect()
    }

    /// What its next admission says of the invitations that it used.
    pub(super) fn used(&self, next: Option<InviteId>) -> Vec<(InviteId, Hlc)> {
        let goes_on = self.is_current() && self.invite == next;
        let now = self.invite.filter(|_| !goes_on).map(|by| (by, self.since));
        let mut used: Vec<_> = self.used.iter().copied().chain(now).collect();
        used.drain(..used.len().saturating_sub(USED_MAX));
        used
    }
}

/// Reads how a membership ended; a part that does not read is left empty.
pub(super) fn read_ending(value: &Value) -> Ending {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    Ending {
        by: text("by").parse().unwrap_or(NodeId([0; 32])),
        who: text("who").to_owned(),
        at_ms: value.get("at_ms").and_then(Value::as_u64).unwrap_or(0),
    }
}
