//! Which member shows a name that several members were given.
//!
//! # The law
//!
//! A name belongs to the member with the earliest claim to it; of two claims of one moment, to the
//! lower id. All other members show it with a suffix.
//!
//! - A *membership* begins with an admission of a node that is out, and ends when the node leaves
//!   or is removed. An admission of a node that belongs already (its first answer was lost, and it
//!   asked again) begins no new one. Of admissions that did not know of each other the earliest
//!   counts.
//! - A *claim* begins when the node gets the name: with the admission that begins its membership,
//!   or with the last renaming since. Being admitted again changes nothing about it.
//! - A node that leaves gives up its name. When it comes back, it claims the name anew, behind the
//!   members that took it meanwhile.
//! - A node that takes the place of a member which is removed for it (`join --replace`) takes over
//!   that member's claim.
//!
//! Two sides of a partition may both admit, rename or let go of one node. Then all nodes agree on
//! one result once they hold the same changes, but it need not be what the node's whole history
//! gives.
//!
//! Nodes must decide this without history. So the admission of a present member says when the
//! member was admitted before, since when it claims its name, and when it was renamed last. The
//! admission of a node that left says when it left, and an admission in another member's place says
//! since when that member claimed the name. If the node had left and its admitter had not heard of
//! it, what the admission says of the earlier membership is void.
//!
//! Names are compared without their case.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Member, Roster, one_name};
use crate::id::NodeId;
use crate::replica::{Document, Edit, SignedChange, Stamp};
use crate::time::Hlc;

/// The fields in which an admission tells of the past: when the node was admitted to the membership
/// that goes on, since when it claims which name, when it was renamed last, and when it left last.
const BEFORE: &str = "before";
const CLAIM: &str = "claim";
const RENAMED: &str = "renamed";
const LEFT: &str = "after";

/// How many earlier admissions an admission names: the first, and the latest of the others.
const BEFORE_MAX: usize = 4;

/// Since when a node has its membership and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) since: Hlc,
    pub(super) claim: Hlc,
    pub(super) past: Past,
}

/// What the next admission of a node says of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The times at which it was admitted to the membership that goes on, earliest first.
    admissions: Vec<Hlc>,
    /// When it was given its name by a renaming; none where an admission gave it the name.
    renamed: Option<Hlc>,
    /// When it left last, if it ever did.
    left: Option<Hlc>,
}

impl Place {
    /// Reads the place of a member from its record, which gives it the name `given`.
    pub(super) fn read(document: &Document, given: &str) -> Self {
        let admissions = || setting(document, "admitted");
        let left = setting(document, "left").map(|(change, _)| change.at);
        let left = left.chain(admissions().filter_map(|(_, said)| hlc(said.get(LEFT)?))).max();
        let names: Vec<_> = setting(document, "name")
            .filter(|(_, name)| name.as_str() == Some(given))
            .map(|(change, _)| (change.stamp(), !change.set.contains_key("admitted")))
            .collect();
        let admissions: Vec<_> = admissions()
            .map(|(change, said)| Admission::read(change, said, left, &names))
            .collect();
        let Some(shown) = admissions.last() else {
            let at = document.stamp().map_or(Hlc::ZERO, |stamp| stamp.at);
            return Self { since: at, claim: at, past: Past { left, ..Past::default() } };
        };
        let (named, by_renaming) = names.last().copied().unwrap_or((shown.at, false));
        let valid = || admissions.iter().filter(|admission| !admission.is_over);
        let mut times: Vec<Hlc> = valid().flat_map(|a| a.times.iter().copied()).collect();
        times.sort_unstable();
        times.dedup();
        let since = times.first().copied().unwrap_or(shown.at.at);
        let renamed = valid().filter_map(|a| a.renamed).chain(by_renaming.then_some(named.at));
        let renamed = renamed.filter(|renamed| *renamed > since).max();
        let claim = valid().map(|a| a.claim(given, &names)).min().unwrap_or(since);
        let claim = claim.max(renamed.unwrap_or(claim));
        if times.len() > BEFORE_MAX {
            times.drain(1..=times.len() - BEFORE_MAX);
        }
        Self { since, claim, past: Past { admissions: times, renamed, left } }
    }

    /// The fields by which another admission of a node keeps the node's place.
    fn kept(member: &Member) -> Vec<(&'static str, Value)> {
        let Past { admissions, renamed, left } = &member.past;
        let left = left.map(|left| (LEFT, json!(left)));
        let belongs = member
            .is_current()
            .then(|| [(BEFORE, json!(admissions)), claim(&member.given_name, member.claim)]);
        let renamed = renamed.filter(|_| belongs.is_some()).map(|at| (RENAMED, json!(at)));
        belongs.into_iter().flatten().chain(renamed).chain(left).collect()
    }
}

fn hlc(value: &Value) -> Option<Hlc> {
    value.as_u64().map(Hlc)
}

fn claim(name: &str, at: Hlc) -> (&'static str, Value) {
    (CLAIM, json!({"name": name, "at": at}))
}

/// The siblings of a field that set a value, earliest first.
fn setting<'a>(
    document: &'a Document,
    field: &'static str,
) -> impl Iterator<Item = (&'a SignedChange, &'a Value)> {
    document.siblings(field).filter_map(move |change| Some((change, change.set.get(field)?)))
}

/// One admission, as it counts after the latest leaving.
struct Admission<'a> {
    at: Stamp,
    /// When the node was admitted to the same membership: the times that the admission names, and
    /// its own.
    times: Vec<Hlc>,
    /// The name that the admission says the node claims, and since when; none where it does not say
    /// so.
    said: Option<(&'a str, Hlc)>,
    renamed: Option<Hlc>,
    /// Whether this very change gave the name of the record.
    names: bool,
    /// Whether the membership that it belongs to has ended.
    is_over: bool,
}

impl<'a> Admission<'a> {
    fn read(
        change: &'a SignedChange,
        value: &'a Value,
        left: Option<Hlc>,
        names: &[(Stamp, bool)],
    ) -> Self {
        let at = change.stamp();
        let before = |value: &Value| hlc(value).map(|said| said.min(at.at));
        let is_before = |time: &Hlc| left.is_some_and(|left| *time <= left);
        let earlier = value.get(BEFORE).and_then(Value::as_array).into_iter().flatten();
        let earlier: Vec<Hlc> = earlier.take(BEFORE_MAX).filter_map(before).collect();
        // Its admitter did not know that the membership had ended, so what it says of that is void.
        let is_void = earlier.iter().any(is_before);
        let said = value.get(CLAIM).filter(|_| !is_void).and_then(|claim| {
            let name = claim.get("name")?.as_str()?;
            Some((name, before(claim.get("at")?)?))
        });
        let times = earlier.into_iter().filter(|time| !is_before(time)).chain([at.at]).collect();
        Self {
            at,
            times,
            said,
            renamed: value.get(RENAMED).filter(|_| !is_void).and_then(before),
            names: names.contains(&(at, false)),
            is_over: left.is_some_and(|left| at.at <= left),
        }
    }

    /// Since when this admission claims the name `given`, which the changes in `names` gave.
    fn claim(&self, given: &str, names: &[(Stamp, bool)]) -> Hlc {
        // An admission does not set the name where the record gave it already.
        let before = names.iter().rfind(|(named, _)| *named <= self.at).or(names.last());
        let named = before.map_or(self.at.at, |(named, _)| named.at);
        let since = self.times.iter().min().copied().unwrap_or(self.at.at);

        match self.said {
            Some((name, at)) if one_name(name, given) => at,
            // The node belongs already, under another name.
            Some(_) if self.names => self.at.at,
            None if self.names => since,
            _ => named.max(since),
        }
    }
}

impl Roster {
    /// Gives every name to the member with the earliest claim.
    pub(super) fn settle_names(&mut self) {
        // Names that differ only in case are one name.
        let folded = |member: &Member| member.given_name.to_ascii_lowercase();
        let mut holders: BTreeMap<String, (Hlc, NodeId)> = BTreeMap::new();
        for member in self.current() {
            let claim = (member.claim, member.id);
            let holder = holders.entry(folded(member)).or_insert(claim);
            *holder = (*holder).min(claim);
        }
        let renamed = |member: &Member| {
            let holder = holders.get(&folded(member));
            let clashes = member.is_current() && holder.is_some_and(|(_, id)| *id != member.id);
            if clashes {
                // No name has a '~', so this one is nobody else's.
                let name = format!("{}~{}", member.given_name, member.id.short());
                (member.name != name).then_some((member.id, name))
            } else {
                let given = &member.given_name;
                (member.name != *given).then(|| (member.id, given.clone()))
            }
        };
        let renamed: Vec<_> = self.all().filter_map(renamed).collect();
        for (id, name) in renamed {
            self.alter(&id, |member| member.name = name);
        }
    }

    /// The fields by which the admission of a known node tells of its past.
    pub(super) fn place_kept(&self, id: &NodeId) -> Vec<(&'static str, Value)> {
        self.member(id).map(Place::kept).unwrap_or_default()
    }

    /// The admission with the claim of the member `replaced`, if the node takes over that member's
    /// name.
    pub fn in_place_of(&self, replaced: &NodeId, mut admission: Edit) -> Edit {
        let Some(member) = self.member(replaced).filter(|member| member.is_current()) else {
            return admission;
        };
        let name = admission.set.get("name").and_then(Value::as_str);
        let takes_its_name = name.is_some_and(|name| one_name(name, &member.given_name));
        if let Some(admitted) = admission.set.get_mut("admitted").filter(|_| takes_its_name) {
            let (field, claim) = claim(&member.given_name, member.claim);
            admitted[field] = claim;
        }
        admission
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::Keypair;
    use crate::replica::{Actor, Replica};
    use crate::roster::tests::{merge, replica, write};
    use crate::roster::{NodeName, member_path};
    use crate::time::Now;

    fn id(n: u8) -> NodeId {
        Keypair::from_seed([n; 32]).node_id()
    }

    fn admit(replica: &mut Replica, n: u8, name: &str, wall_ms: u64) -> SignedChange {
        let edit = admission(replica, n, name, wall_ms);
        write(replica, &member_path(&id(n)), edit, wall_ms)
    }

    fn admission(replica: &Replica, n: u8, name: &str, wall_ms: u64) -> Edit {
        let name: NodeName = name.parse().unwrap();
        Roster::of(replica).admission(&id(n), &name, &[], replica.node_id(), None, wall_ms)
    }

    fn leave(replica: &mut Replica, n: u8, wall_ms: u64) -> SignedChange {
        write(replica, &member_path(&id(n)), Roster::leaving(id(n), "root", wall_ms), wall_ms)
    }

    fn rename(replica: &mut Replica, n: u8, name: &str, wall_ms: u64) -> SignedChange {
        let edit = Roster::renaming(&name.parse().unwrap());
        write(replica, &member_path(&id(n)), edit, wall_ms)
    }

    fn holder(replica: &Replica, name: &str) -> Option<NodeId> {
        Roster::of(replica).holder_of(name).map(|member| member.id)
    }

    /// A joiner's first answer was lost, and the seed that it asked next had not heard of its
    /// admission.
    #[test]
    fn one_admitted_again_by_a_seed_that_had_not_heard_of_it_keeps_its_place() {
        let (mut a, mut b, mut c) = (replica(1), replica(2), replica(9));
        let first = admit(&mut a, 3, "web", 1000);
        let other = admit(&mut c, 4, "web", 2000);
        let again = admit(&mut b, 3, "web", 3000);
        for change in [again, other, first] {
            merge(&mut c, change);
        }
        assert_eq!(holder(&c, "web"), Some(id(3)));
    }

    /// A node left, and another node took its name. Then a member that had not heard of the leaving
    /// admitted the first node again.
    #[test]
    fn one_that_left_gave_its_name_free_whatever_its_next_admitter_knew() {
        let (mut a, mut b) = (replica(1), replica(2));
        let first = admit(&mut a, 3, "web", 1000);
        merge(&mut b, first);
        leave(&mut a, 3, 2000);
        admit(&mut a, 4, "web", 2500);
        let again = admit(&mut b, 3, "web", 3000);
        merge(&mut a, again);
        assert_eq!(holder(&a, "web"), Some(id(4)));
    }

    /// The oldest member was renamed to a name that the other side had given to a newcomer before,
    /// and showed it.
    #[test]
    fn who_is_renamed_claims_its_name_from_then_on_however_old_a_member_it_is() {
        let (mut a, mut b) = (replica(1), replica(2));
        let oldest = admit(&mut a, 3, "db", 1000);
        merge(&mut b, oldest);
        let newcomer = admit(&mut b, 4, "web", 2000);
        rename(&mut a, 3, "web", 3000);
        merge(&mut a, newcomer);
        assert_eq!(holder(&a, "web"), Some(id(4)));
        let kept = admission(&a, 3, "web", 4000);
        write(&mut a, &member_path(&id(3)), kept, 4000);
        assert_eq!(holder(&a, "web"), Some(id(4)), "being admitted again changes nothing");
    }

    /// A host that was installed anew took over its old name, and lost it to a member that had
    /// always had to show it with a suffix.
    #[test]
    fn who_takes_the_place_of_a_removed_member_takes_over_its_claim() {
        let mut a = replica(1);
        let mut b = replica(2);
        admit(&mut a, 3, "web", 1000);
        let second = admit(&mut b, 4, "web", 2000);
        merge(&mut a, second);
        let anew = Roster::of(&a).in_place_of(&id(3), admission(&a, 5, "web", 3000));
        let removal = Roster::removal(a.node_id(), "join --replace", 3000);
        write(&mut a, &member_path(&id(3)), removal, 3000);
        write(&mut a, &member_path(&id(5)), anew, 3000);
        assert_eq!(holder(&a, "web"), Some(id(5)));
    }

    /// The law as the module's doc says it, read off the whole history of a node in the order of its
    /// stamps: since when it belongs, its name, and since when it claims that.
    fn by_the_law<'a>(
        changes: impl Iterator<Item = &'a SignedChange>,
    ) -> Option<(Hlc, String, Hlc)> {
        let mut changes: Vec<_> = changes.collect();
        changes.sort_by_key(|change| change.stamp());
        let (mut since, mut name, mut claim) = (None, String::new(), Hlc::ZERO);
        for change in changes {
            let sets = |field: &str| change.set.get(field);
            if sets("left").is_some() {
                since = None;
            }
            let begins = sets("admitted").is_some() && since.is_none();
            let given = sets("name").and_then(Value::as_str).filter(|given| *given != name);
            name = given.map_or(name.clone(), ToOwned::to_owned);
            since = if begins { Some(change.at) } else { since };
            let renames = sets("name").is_some() && sets("admitted").is_none();
            claim = if begins || renames || given.is_some() { change.at } else { claim };
        }
        Some((since?, name, claim))
    }

    proptest! {
        /// Three nodes with two names are admitted, leave and are renamed on two nodes that hear of
        /// each other now and then.
        #[test]
        fn who_shows_a_name_is_by_the_law_and_the_same_on_all(
            steps in prop::collection::vec((0..5u8, 3..6u8, 0..2usize, any::<bool>()), 1..24),
        ) {
            let mut sides = [replica(1), replica(2)];
            let mut all: Vec<SignedChange> = Vec::new();
            let mut told = [0, 0];
            for (at, (what, n, name, side)) in steps.into_iter().enumerate() {
                let (side, wall_ms) = (usize::from(side), 1000 + 10 * at as u64);
                let name = ["web", "db"][name];
                let roster = Roster::of(&sides[side]);
                let known = roster.member(&id(n)).filter(|member| member.is_current());
                let knows = known.is_some();

                let edit = match what {
                    // A node that belongs already keeps its name.
                    0 | 1 => {
                        let asks = if n == 5 { "db" } else { "web" };
                        let name = known.map_or(asks, |member| member.given_name.as_str());
                        admission(&sides[side], n, name, wall_ms)
                    }

                    2 if knows => Roster::leaving(id(n), "root", wall_ms),
                    3 if known.is_some_and(|member| member.given_name != name) => {
                        Roster::renaming(&name.parse().unwrap())
                    }
                    _ => {
                        // Only this side hears the changes, so that the other side does not know
                        // them for a while.
                        for change in &all[told[side]..] {
                            merge(&mut sides[side], change.clone());
                        }
                        told[side] = all.len();
                        continue;
                    }
                };
                let actor = Actor { who: "root".into(), via: "test".into() };
                let now = Now { mono: std::time::Duration::ZERO, wall_ms };
                let written = sides[side].write(&member_path(&id(n)), edit, actor, 1, now);
                all.extend(written.expect("within the bounds").0.change);
            }
            for side in &mut sides {
                for change in &all {
                    merge(side, change.clone());
                }
            }
            let [one, other] = sides.each_ref().map(Roster::of);
            prop_assert_eq!(&one, &other);
            // Where two sides admit or rename one node without hearing of each other, all agree, as
            // above, but not always on what its whole history says.
            let is_crossed = |n: u8| {
                let of_it = || all.iter().filter(|change| change.path == member_path(&id(n)));
                let admissions = of_it().filter_map(|change| change.set.get("admitted"));
                let fresh = admissions.filter(|said| said.get(BEFORE).is_none()).count();
                let left = of_it().filter(|change| change.set.contains_key("left")).count();
                let renamed = of_it().any(|change| {
                    change.set.contains_key("name") && !change.set.contains_key("admitted")
                });
                let writers: BTreeSet<_> = of_it().map(|change| change.dot.writer.node).collect();
                fresh > left + 1 || (renamed && writers.len() > 1)
            };
            if (3..6).any(is_crossed) {
                return Ok(());
            }
            let claims = (3..6).filter_map(|n| {
                let path = member_path(&id(n));
                let (since, name, claim) = by_the_law(all.iter().filter(|c| c.path == path))?;
                Some((n, since, name, claim))
            });
            let claims: Vec<_> = claims.collect();
            for (n, since, name, claim) in &claims {
                let member = one.member(&id(*n)).expect("it belongs");
                prop_assert_eq!((member.since, &member.given_name), (*since, name));
                prop_assert_eq!(member.claim, *claim);
                let of_name = claims.iter().filter(|(_, _, other, _)| other == name);
                let first = of_name.map(|(n, _, _, claim)| (*claim, id(*n))).min();
                prop_assert_eq!(member.name == *name, first.is_some_and(|f| f.1 == member.id));
            }
        }
    }
}
