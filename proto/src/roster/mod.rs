//! Who belongs to the Data Center: a view of the replica's member records.
//!
//! A member is the document `@member/<node id>`. Its field `removed` is terminal (see
//! [`crate::replica::document`]): once any node has set it, it holds on every node that hears of
//! it, for ever. Names are labels: where a partition let two members take one name, the member that
//! claimed it first shows it, on every node the same, and the other member shows it with a suffix
//! ([`precedence`]). Where a partition let more nodes in by one invitation than that admits, the
//! nodes beyond its uses may let nobody in until they are accepted ([`acceptance`]).

mod acceptance;
mod events;
mod evidence;
mod invites;
mod member;
mod name;
mod precedence;
mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::name::cut;
use self::records::{invite_at, member_at};
use crate::id::{InviteId, NodeId};
use crate::replica::{Path, Replica};

pub use self::acceptance::Unaccepted;
pub use self::events::RosterEvent;
pub use self::evidence::{admission_chain, admissions_by, ending_of};
pub use self::invites::InviteRecord;
pub use self::member::{Ending, Member, SEEN_MAX, Standing, USED_MAX};
pub use self::name::{
    DATACENTER_NAME_CHARS_MAX, NODE_NAME_BYTES_MAX, NameError, NodeName, datacenter_name, one_name,
};
pub use self::records::{datacenter_path, invite_path, member_path};
pub use crate::links::ADDRESSES_MAX;

/// Why a text names no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nobody has that name or id.
    #[error("no node is named {0:?}, and no node's id starts so")]
    Nobody(String),
    /// The beginning of several ids.
    #[error("{text:?} is the beginning of the ids of {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked.
        text: String,
        /// The names of the nodes whose ids start so.
        candidates: Vec<String>,
    },
}

/// The Data Center's members, as one replica knows them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roster {
    /// The Data Center's name; empty where it is not known yet.
    pub datacenter_name: String,
    /// Each member is shared with earlier and later rosters, for most members do not change.
    members: BTreeMap<NodeId, Arc<Member>>,
    invites: BTreeMap<InviteId, InviteRecord>,
}

impl Roster {
    /// Reads the roster out of a replica.
    pub fn of(replica: &Replica) -> Self {
        let records = ["@member/", "@invite/"].map(|kind| replica.documents(kind));
        let paths = records.into_iter().flatten().map(|(path, _)| path);
        Self::default().after(replica, paths.chain([&datacenter_path()]))
    }

    /// The roster after the documents at these paths have changed, as [`Roster::of`] would read it,
    /// at the cost of reading those, and of one pass over the other members.
    pub fn after<'p>(
        &self,
        replica: &Replica,
        changed: impl IntoIterator<Item = &'p Path>,
    ) -> Self {
        let mut roster = self.clone();
        for path in changed {
            let document = replica.document(path).filter(|document| document.exists());
            if let Some(id) = member_at(path) {
                match document.and_then(|document| Member::read(id, document)) {
                    Some(member) => roster.members.insert(id, Arc::new(member)),
                    None => roster.members.remove(&id),
                };
            } else if let Some(id) = invite_at(path) {
                match document.map(|document| InviteRecord::read(id, document)) {
                    Some(invite) => roster.invites.insert(id, invite),
                    None => roster.invites.remove(&id),
                };
            } else if *path == datacenter_path() {
                let name = document.and_then(|document| document.value("name")?.as_str());
                name.unwrap_or_default().clone_into(&mut roster.datacenter_name);
            }
        }
        roster.settle_names();
        roster.settle_acceptance();
        roster
    }

    fn alter(&mut self, id: &NodeId, alter: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(id) {
            alter(Arc::make_mut(member));
        }
    }

    /// All nodes that were ever admitted, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|member| &**member)
    }

    /// The nodes that belong now.
    pub fn current(&self) -> impl Iterator<Item = &Member> {
        self.all().filter(|m| m.is_current())
    }

    /// The nodes that belong now, without this one.
    pub fn others(&self, me: NodeId) -> impl Iterator<Item = NodeId> {
        self.current().map(|member| member.id).filter(move |id| *id != me)
    }

    /// What is known of a node; none for a stranger.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id).map(|member| &**member)
    }

    /// Whether a node belongs now.
    pub fn is_current(&self, id: &NodeId) -> bool {
        self.member(id).is_some_and(Member::is_current)
    }

    /// The name that a node shows; the beginning of its id where it is a stranger.
    pub fn name_of(&self, id: &NodeId) -> String {
        self.members.get(id).map_or_else(|| id.short(), |member| member.name.clone())
    }

    /// The current member that shows a name, or else one that was given it.
    pub fn holder_of(&self, name: &str) -> Option<&Member> {
        let given = || self.current().find(|m| one_name(&m.given_name, name));
        self.current().find(|m| one_name(&m.name, name)).or_else(given)
    }

    /// The member that shows the name which `member` was given, too; `None` where `member` shows
    /// the name itself, or does not belong.
    pub fn holder_above(&self, member: &Member) -> Option<&Member> {
        let clashes = member.is_current() && member.name != member.given_name;
        clashes
            .then(|| self.current().find(|other| one_name(&other.name, &member.given_name)))
            .flatten()
    }

    /// The member that a person means by a name, an id, or the beginning of an id. Of members that
    /// share a name, it is the current one.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, text: &str) -> Result<&Member, ResolveError> {
        let named = |m: &&Member| one_name(&m.name, text);
        let by_name = self.current().find(named).or_else(|| self.all().filter(named).last());
        if let Some(member) = by_name {
            return Ok(member);
        }
        let start = text.to_ascii_lowercase();
        let by_id = self.all().filter(|m| m.id.to_string().starts_with(&start));
        let by_id: Vec<_> = by_id.filter(|_| text.len() >= 4).collect();
        match by_id[..] {
            [member] => Ok(member),
            [] => Err(ResolveError::Nobody(cut(text))),
            _ => Err(ResolveError::Ambiguous {
                text: cut(text),
                candidates: by_id.iter().map(|m| m.name.clone()).collect(),
            }),
        }
    }

    /// The invitations on record, in the order of their ids.
    pub fn invites(&self) -> impl Iterator<Item = &InviteRecord> {
        self.invites.values()
    }

    /// What is recorded of an invitation.
    pub fn invite(&self, id: &InviteId) -> Option<&InviteRecord> {
        self.invites.get(id)
    }

    /// The nodes that an invitation admitted.
    pub fn admitted_with(&self, id: &InviteId) -> impl Iterator<Item = NodeId> {
        self.members.values().filter(move |m| m.came_by(id).is_some()).map(|m| m.id)
    }
}
