//! Who belongs to the Data Center: a view of the replica's member records.
//!
//! A member is the document `@member/<node id>`. Its field `removed` is terminal (see
//! [`crate::replica::document`]): once any node has said it, it holds on every node that hears it,
//! for ever. Names are labels: where a partition let two members take one name, the one that claimed
//! it first shows it, on every node the same, and the other shows it with a suffix
//! ([`precedence`]). Where it let more in by one invitation than that admits, those who came beyond
//! let nobody in until they are accepted ([`acceptance`]).

mod acceptance;
mod invites;
mod precedence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::Address;
use crate::id::{InviteId, NodeId};
use crate::links::canonical;
use crate::replica::{Document, Edit, Field, Path, Replica, SignedChange, Stamp};
use crate::time::Hlc;

pub use self::acceptance::Unaccepted;
pub use self::invites::InviteRecord;
pub use crate::links::ADDRESSES_MAX;

use self::precedence::Place;

/// How long a node's name may be.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// How long a Data Center's name may be, in characters.
pub const DATACENTER_NAME_CHARS_MAX: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the name of a node.
    #[error(
        "{0:?} cannot name a node: take 1 to 63 letters, digits, '-', '_' or '.', the first a \
         letter or digit, without a '.' at the end or two in a row"
    )]
    Node(String),
    /// What every host calls itself.
    #[error(
        "{0:?} cannot name a node: every host calls itself so; take a name that is this one's alone"
    )]
    OfEveryHost(String),
    /// An address, or what programs read as one.
    #[error("{0:?} cannot name a node: it reads as an address; take a name with a letter in it")]
    Address(String),
    /// Not the name of a Data Center.
    #[error(
        "{0:?} cannot name a Data Center: take 1 to 64 characters, none of them control characters"
    )]
    DataCenter(String),
}

/// What every host calls itself, up to the first dot and in lower case: `localhost.localdomain`, too.
const OF_EVERY_HOST: [&str; 5] =
    ["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"];

/// A node's name: unique in its Data Center, and changeable. It shows as it was given; `Web1` and
/// `web1` are one name ([`one_name`]), as they are to DNS (RFC 4343). It may be a name of several
/// labels (`web1.example.org`), and have an underscore, which hosts have though RFC 1123 does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.parse::<IpAddr>().is_ok() || is_number(text) {
            return Err(NameError::Address(cut(text)));
        }
        let fits = text.len() <= NODE_NAME_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !text.ends_with('.')
            && !text.contains("..");
        if !fits {
            return Err(NameError::Node(cut(text)));
        }
        let label = text.split('.').next().unwrap_or_default();
        if OF_EVERY_HOST.iter().any(|name| one_name(name, label)) {
            return Err(NameError::OfEveryHost(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether a text is nothing but a number, or several with dots: `ping 10` asks 0.0.0.10, and a
/// browser reads a URL's host so.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Whether two texts are one name: letters count without their case.
pub fn one_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of a Data Center; blanks around it are cut.
///
/// # Errors
/// [`NameError::DataCenter`].
pub fn datacenter_name(text: &str) -> Result<String, NameError> {
    let name = text.trim();
    let fits = !name.is_empty()
        && name.chars().count() <= DATACENTER_NAME_CHARS_MAX
        && !name.chars().any(char::is_control);
    if fits { Ok(name.to_owned()) } else { Err(NameError::DataCenter(cut(text))) }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

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
    /// It was put out, and this key stays out.
    Removed(Ending),
}

/// What the roster holds of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The name that it shows: its own, or with a suffix where an earlier member has it.
    pub name: String,
    /// The name that it was given.
    pub given_name: String,
    /// Whether it belongs, left or was removed.
    pub standing: Standing,
    /// Where it says that it is reached, the best address first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// Where it answered the member that admitted it, beside what it said: the address from which its
    /// packets came there. It is tried after all others, since it may have been somebody's translation
    /// of the node's address. Only the next admission writes it anew; at most [`SEEN_MAX`].
    pub seen: Vec<SocketAddr>,
    /// When it was admitted; the latest time, if several members admitted it.
    pub admitted: Stamp,
    /// Since when it has belonged without a break: one that is admitted again while it belongs, such
    /// as after a crash, keeps its place. It decides who used an invitation first.
    pub since: Hlc,
    /// Since when it claims its name, which decides between those that were given the same.
    pub claim: Hlc,
    /// The node that admitted it; itself for the founder.
    pub admitted_by: NodeId,
    /// The invitation that admitted it; none for the founder.
    pub invite: Option<InviteId>,
    /// The invitations by which it came before it left, with the time at which that membership
    /// began: they stay used. The latest [`USED_MAX`] are kept.
    used: Vec<(InviteId, Hlc)>,
    /// Who accepted it, though it came in beyond the uses of that invitation.
    pub accepted: Option<Ending>,
    /// Why it may let nobody in until it is accepted; none where it may.
    pub unaccepted: Option<Unaccepted>,
    /// What its next admission says of before.
    past: precedence::Past,
}

impl Member {
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
    fn came_by(&self, invite: &InviteId) -> Option<Hlc> {
        let now = self.invite.iter().map(|by| (*by, self.since));
        let uses = now.chain(self.used.iter().copied());
        uses.filter(|(by, _)| by == invite).map(|(_, since)| since).min()
    }

    /// Each invitation that it used.
    fn came_by_each(&self) -> BTreeSet<InviteId> {
        self.invite.into_iter().chain(self.used.iter().map(|(by, _)| *by)).collect()
    }

    /// What its next admission says of the invitations that it used.
    fn used(&self, next: Option<InviteId>) -> Vec<(InviteId, Hlc)> {
        let goes_on = self.is_current() && self.invite == next;
        let now = self.invite.filter(|_| !goes_on).map(|by| (by, self.since));
        let mut used: Vec<_> = self.used.iter().copied().chain(now).collect();
        used.drain(..used.len().saturating_sub(USED_MAX));
        used
    }
}

/// At how many addresses beside those that it told a member was seen.
pub const SEEN_MAX: usize = 2;

/// How many invitations that it used before are kept of a node that leaves and comes back.
pub const USED_MAX: usize = 16;

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
        /// The names of those whose ids start so.
        candidates: Vec<String>,
    },
}

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
    /// A node came in beyond the uses of an invitation, or by one that did.
    Unaccepted(Member),
    /// A node that had is accepted.
    Accepted(Member),
}

/// The Data Center's members, as one replica knows them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roster {
    /// The Data Center's name; empty where it is not known yet.
    pub datacenter_name: String,
    /// Shared with the rosters before and after: most of them are the same.
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
    /// at the cost of those and of a glance at the others.
    pub fn after<'p>(
        &self,
        replica: &Replica,
        changed: impl IntoIterator<Item = &'p Path>,
    ) -> Self {
        let mut roster = self.clone();
        for path in changed {
            let document = replica.document(path).filter(|document| document.exists());
            if let Some(id) = member_at(path) {
                match document.and_then(|document| member(id, document)) {
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

    /// The current member that has a name, or else one that was given it.
    pub fn holder_of(&self, name: &str) -> Option<&Member> {
        let given = || self.current().find(|m| one_name(&m.given_name, name));
        self.current().find(|m| one_name(&m.name, name)).or_else(given)
    }

    /// The member that shows the name which this one was given, too; `None` where it shows it
    /// itself, or does not belong.
    pub fn holder_above(&self, member: &Member) -> Option<&Member> {
        let clashes = member.is_current() && member.name != member.given_name;
        clashes
            .then(|| self.current().find(|other| one_name(&other.name, &member.given_name)))
            .flatten()
    }

    /// The member that a person means by a name, an id, or the beginning of an id. Of those that
    /// share a name, the current one.
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

    /// What people want to hear of the way from an earlier roster to this.
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

/// The record of the Data Center itself.
pub fn datacenter_path() -> Path {
    "@datacenter".parse().expect("the path is well-formed")
}

/// The record of a member.
pub fn member_path(id: &NodeId) -> Path {
    format!("@member/{id}").parse().expect("an id in hex is a well-formed part of a path")
}

/// The record of an invitation.
pub fn invite_path(id: &InviteId) -> Path {
    format!("@invite/{id}").parse().expect("an id in hex is a well-formed part of a path")
}

/// The writes that the roster is made of, each for the path that is named above.
impl Roster {
    /// The founding of a Data Center: for [`datacenter_path`].
    pub fn founding(name: &str, at_ms: u64) -> Edit {
        setting([("name", json!(name)), ("founded_ms", json!(at_ms))])
    }

    /// The admission of a node: for [`member_path`]. One that left before comes back by it.
    pub fn admission(
        &self,
        id: &NodeId,
        name: &NodeName,
        addresses: &[Address],
        by: NodeId,
        invite: Option<InviteId>,
        at_ms: u64,
    ) -> Edit {
        let mut admitted = json!({"by": by, "invite": invite, "at_ms": at_ms});
        for (field, said) in self.place_kept(id) {
            admitted[field] = said;
        }
        let used = self.member(id).map(|member| member.used(invite)).unwrap_or_default();
        if !used.is_empty() {
            admitted["used"] = json!(used);
        }
        let mut edit = setting([
            ("name", json!(name)),
            ("addresses", json!(addresses)),
            ("admitted", admitted),
        ]);
        if self.member(id).is_some_and(|m| matches!(m.standing, Standing::Left(_))) {
            edit.unset.insert(field("left"));
        }
        edit
    }

    /// With the addresses at which the node answered beside those that it told, in an admission of it;
    /// what an earlier admission said of that is gone.
    pub fn seen_at(&self, id: &NodeId, seen: &[SocketAddr], mut admission: Edit) -> Edit {
        let seen: Vec<String> = seen.iter().take(SEEN_MAX).map(SocketAddr::to_string).collect();
        if !seen.is_empty() {
            admission.set.insert(field("seen"), json!(seen));
        } else if self.member(id).is_some_and(|member| !member.seen.is_empty()) {
            admission.unset.insert(field("seen"));
        }
        admission
    }

    /// The going of a node by its own will: for [`member_path`].
    pub fn leaving(by: NodeId, who: &str, at_ms: u64) -> Edit {
        setting([("left", ending(by, who, at_ms))])
    }

    /// The putting out of a node: for [`member_path`].
    pub fn removal(by: NodeId, who: &str, at_ms: u64) -> Edit {
        setting([("removed", ending(by, who, at_ms))])
    }

    /// Another name: for [`member_path`].
    pub fn renaming(name: &NodeName) -> Edit {
        setting([("name", json!(name))])
    }

    /// Other addresses, the best first: for [`member_path`].
    pub fn addressing(addresses: &[Address]) -> Edit {
        setting([("addresses", json!(addresses))])
    }
}

fn setting<const N: usize>(fields: [(&'static str, Value); N]) -> Edit {
    let set = fields.into_iter().map(|(name, value)| (field(name), value)).collect();
    Edit { set, ..Edit::default() }
}

fn field(name: &'static str) -> Field {
    name.parse().expect("the roster's own field names are well-formed")
}

fn ending(by: NodeId, who: &str, at_ms: u64) -> Value {
    json!({"by": by, "who": who, "at_ms": at_ms})
}

/// The node whose record is at a path; an id may be written in several ways, and one counts.
fn member_at(path: &Path) -> Option<NodeId> {
    let id = path.as_str().strip_prefix("@member/")?.parse().ok()?;
    (*path == member_path(&id)).then_some(id)
}

fn invite_at(path: &Path) -> Option<InviteId> {
    let id = path.as_str().strip_prefix("@invite/")?.parse().ok()?;
    (*path == invite_path(&id)).then_some(id)
}

/// Reads a member's record. One without an admission (its change is still on its way) is nobody,
/// unless it is known to be removed.
fn member(id: NodeId, document: &Document) -> Option<Member> {
    let removed = document.value("removed").map(read_ending);
    let said = |name: &str| document.fields().find(|(field, _, _)| field.as_str() == name);
    let (admission, left) = (said("admitted"), said("left"));
    let (admitted, stamp) = match (&admission, &removed) {
        (Some((_, value, change)), _) => ((*value).clone(), change.stamp()),
        (None, Some(_)) => (Value::Null, document.stamp()?),
        (None, None) => return None,
    };
    // Who admitted it again need not have heard yet that it left: the later of the two holds.
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
    Some(Member {
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

fn read_ending(value: &Value) -> Ending {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    Ending {
        by: text("by").parse().unwrap_or(NodeId([0; 32])),
        who: text("who").to_owned(),
        at_ms: value.get("at_ms").and_then(Value::as_u64).unwrap_or(0),
    }
}

/// The changes that vouch for a node to one that has not heard of it: its admission, that of the
/// node which admitted it, and so on towards the founder, at most `links` of them, nearest last.
pub fn admission_chain(replica: &Replica, node: &NodeId, links: usize) -> Vec<SignedChange> {
    let mut chain = Vec::new();
    let mut next = *node;
    while chain.len() < links {
        let document = replica.document(&member_path(&next));
        let admission =
            document.and_then(|d| d.fields().find(|(field, _, _)| field.as_str() == "admitted"));
        let Some((_, _, change)) = admission else { break };
        chain.push(change.clone());
        if change.dot.writer.node == next {
            break;
        }
        next = change.dot.writer.node;
    }
    chain.reverse();
    chain
}

/// The change by which the membership of a node ended; none where it did not end.
pub fn ending_of(replica: &Replica, node: &NodeId) -> Option<SignedChange> {
    let document = replica.document(&member_path(node))?;
    let field = match member(*node, document)?.standing {
        Standing::Member => return None,
        Standing::Left(_) => "left",
        Standing::Removed(_) => "removed",
    };
    let (_, _, change) = document.fields().find(|(name, _, _)| name.as_str() == field)?;
    Some(change.clone())
}

/// The admissions of current members that a node wrote, at most `most`: the latest, in the order in
/// which they were written.
pub fn admissions_by(replica: &Replica, node: &NodeId, most: usize) -> Vec<SignedChange> {
    let documents = replica.documents("@member/");
    let standing = documents.filter(|(path, document)| {
        member_at(path).and_then(|id| member(id, document)).is_some_and(|m| m.is_current())
    });
    let mut admissions: Vec<_> = standing
        .filter_map(|(_, d)| d.fields().find(|(name, _, _)| name.as_str() == "admitted"))
        .map(|(_, _, change)| change.clone())
        .filter(|change| change.dot.writer.node == *node)
        .collect();
    admissions.sort_by_key(|change| change.stamp());
    let surplus = admissions.len().saturating_sub(most);
    admissions.split_off(surplus)
}
