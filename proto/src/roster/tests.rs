//! Which nodes belong, as changes of member records come in.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::address::Address;
use crate::id::DataCenterId;
use crate::identity::Keypair;
use crate::invitation::{Invitation, Terms};
use crate::replica::{Actor, Edit, Limits, SignedChange};
use crate::time::Now;

const INVITE: InviteId = InviteId([7; 32]);

/// An invitation for so many nodes.
pub(super) fn invitation(issuer: &Keypair, invite: InviteId, uses: u32) -> Invitation {
    let terms = Terms {
        datacenter: DataCenterId([1; 16]),
        datacenter_name: "Lab".into(),
        issuer: issuer.node_id(),
        issuer_name: "pve-1".into(),
        invite,
        seeds: Vec::new(),
        issued_ms: 1,
        expires_ms: 2,
        uses: Some(uses),
        node_name: None,
        strict: false,
    };
    Invitation::issue(terms, issuer)
}

pub(super) fn replica(n: u8) -> Replica {
    Replica::new(DataCenterId([1; 16]), Keypair::from_seed([n; 32]), Limits::default())
}

pub(super) fn write(replica: &mut Replica, path: &Path, edit: Edit, wall_ms: u64) -> SignedChange {
    let actor = Actor { who: "root".into(), via: "test".into() };
    let now = Now { mono: Duration::ZERO, wall_ms };
    let (written, _) = replica.write(path, edit, actor, 1, now).expect("within the bounds");
    written.change.expect("says something new")
}

fn admit(replica: &mut Replica, n: u8, name: &str, wall_ms: u64) -> SignedChange {
    let (id, by) = (Keypair::from_seed([n; 32]).node_id(), replica.node_id());
    let addresses = ["127.0.0.1:4747".parse().unwrap()];
    let roster = Roster::of(replica);
    let edit = roster.admission(&id, &name.parse().unwrap(), &addresses, by, None, wall_ms);
    write(replica, &member_path(&id), edit, wall_ms)
}

pub(super) fn merge(replica: &mut Replica, change: SignedChange) {
    let _ = replica.merge(change, false, Now { mono: Duration::ZERO, wall_ms: 9000 });
}

#[test]
fn of_two_admitted_under_one_name_the_earlier_keeps_it_everywhere() {
    let (mut a, mut b) = (replica(1), replica(2));
    let later = admit(&mut a, 3, "pve-3", 2000);
    let earlier = admit(&mut b, 4, "pve-3", 1000);
    merge(&mut a, earlier);
    merge(&mut b, later);
    let names = |replica: &Replica| {
        Roster::of(replica).all().map(|m| (m.id, m.name.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&a), names(&b));
    let roster = Roster::of(&a);
    let earlier = Keypair::from_seed([4; 32]).node_id();
    assert_eq!(roster.holder_of("pve-3").map(|m| m.id), Some(earlier));
    assert_eq!(roster.current().filter(|m| m.name.starts_with("pve-3~")).count(), 1);
}

/// What a joiner says of itself must not erase the addresses at which others found it.
#[test]
fn where_a_member_was_seen_stays_until_it_is_admitted_again() {
    let mut a = replica(1);
    let id = Keypair::from_seed([3; 32]).node_id();
    let (path, by) = (member_path(&id), a.node_id());
    let seen: Vec<SocketAddr> = (1..=9).map(|n| ([198, 51, 100, n], 4747).into()).collect();
    let admitted = |a: &Replica, seen: &[SocketAddr], at_ms| {
        let roster = Roster::of(a);
        let name = "pve-3".parse().unwrap();
        let told = ["pve-3.lan:4747".parse().unwrap()];
        let edit = roster.admission(&id, &name, &told, by, None, at_ms);
        roster.seen_at(&id, seen, edit)
    };
    let edit = admitted(&a, &seen, 1000);
    write(&mut a, &path, edit, 1000);
    let told = ["pve-3.lan:4748".parse().unwrap(), Address::Ip(seen[1])];
    write(&mut a, &path, Roster::addressing(&told), 2000);

    let member = Roster::of(&a).member(&id).unwrap().clone();

    assert_eq!(member.seen, seen[..SEEN_MAX]);
    let places: Vec<String> = member.places().iter().map(Address::to_string).collect();
    assert_eq!(places, ["pve-3.lan:4748", "198.51.100.2:4747", "198.51.100.1:4747"]);
    let edit = admitted(&a, &[], 3000);
    write(&mut a, &path, edit, 3000);
    assert!(Roster::of(&a).member(&id).unwrap().seen.is_empty());
}

#[test]
fn names_that_differ_in_case_only_are_one_name() {
    let (mut a, mut b) = (replica(1), replica(2));
    let later = admit(&mut a, 3, "Web1", 2000);
    let earlier = admit(&mut b, 4, "web1", 1000);
    merge(&mut a, earlier);
    merge(&mut b, later);
    let [earlier, later] = [4, 3].map(|n| Keypair::from_seed([n; 32]).node_id());
    for replica in [&a, &b] {
        let roster = Roster::of(replica);
        assert_eq!(roster.member(&earlier).unwrap().name, "web1", "as it was given");
        let shown = format!("Web1~{}", later.short());
        assert_eq!(roster.member(&later).unwrap().name, shown);
        for text in ["web1", "WEB1"] {
            assert_eq!(roster.holder_of(text).map(|m| m.id), Some(earlier), "{text}");
            assert_eq!(roster.resolve(text).map(|m| m.id), Ok(earlier), "{text}");
        }
        assert_eq!(roster.resolve(&shown.to_lowercase()).map(|m| m.id), Ok(later));
        let above = roster.holder_above(roster.member(&later).unwrap());
        assert_eq!(above.map(|m| m.id), Some(earlier));
    }
}

proptest! {
    /// Each step is of one of three nodes with one of two names, so that names clash and are
    /// free again.
    #[test]
    fn a_roster_that_follows_each_change_is_the_one_that_reads_all(
        steps in prop::collection::vec((0..7u8, 3..6u8, 0..3usize), 1..30),
    ) {
        let mut a = replica(1);
        let mut roster = Roster::default();
        for (at, (what, n, name)) in steps.into_iter().enumerate() {
            let id = Keypair::from_seed([n; 32]).node_id();
            let wall_ms = 1000 + at as u64;
            let (name, member) = (["pve-3", "pve-4", "PVE-3"][name], member_path(&id));
            let known = roster.member(&id).is_some();
            let (path, edit) = match what {
                0 => (datacenter_path(), Roster::founding(name, wall_ms)),
                1 if known => (member, Roster::leaving(id, "root", wall_ms)),
                2 if known => (member, Roster::removal(id, "root", wall_ms)),
                3 if known => (member, Roster::renaming(&name.parse().unwrap())),
                6 if known => {
                    let accepted = roster.member(&id).unwrap();
                    (member, Roster::accepting(accepted, id, "root", wall_ms))
                }
                4 => {
                    let issuer = Keypair::from_seed([n; 32]);
                    (invite_path(&INVITE), Roster::inviting(&invitation(&issuer, INVITE, 1)))
                }
                _ => {
                    let by = a.node_id();
                    let name = name.parse().unwrap();
                    (member, roster.admission(&id, &name, &[], by, Some(INVITE), wall_ms))
                }
            };
            let actor = Actor { who: "root".into(), via: "test".into() };
            let now = Now { mono: Duration::ZERO, wall_ms };
            // A removed node stays removed, whatever is written to its record.
            if a.write(&path, edit, actor, 1, now).is_ok() {
                roster = roster.after(&a, [&path]);
            }
            prop_assert_eq!(&roster, &Roster::of(&a));
        }
    }
}

/// The seed's answer was lost, and the joiner asked again: that must not cost the joiner its name.
#[test]
fn a_member_that_is_admitted_again_keeps_its_place_among_those_of_its_name() {
    let mut a = replica(1);
    admit(&mut a, 3, "pve-3", 1000);
    let mut b = replica(2);
    let other = admit(&mut b, 4, "pve-3", 2000);
    admit(&mut a, 3, "pve-3", 3000);
    merge(&mut a, other);
    let first = Keypair::from_seed([3; 32]).node_id();
    let roster = Roster::of(&a);
    assert_eq!(roster.holder_of("pve-3").map(|m| m.id), Some(first));
    let later = roster.current().find(|m| m.id != first).unwrap();
    assert_eq!(roster.holder_above(later).map(|m| m.id), Some(first));
    assert_eq!(roster.holder_above(roster.member(&first).unwrap()), None);
}

/// A node's name was free while the node was away: a member that took it then keeps it.
#[test]
fn a_node_that_left_and_came_back_takes_its_place_behind_those_who_stayed() {
    let mut a = replica(1);
    admit(&mut a, 3, "pve-3", 1000);
    let id = Keypair::from_seed([3; 32]).node_id();
    write(&mut a, &member_path(&id), Roster::leaving(id, "root", 2000), 2000);
    admit(&mut a, 4, "pve-3", 3000);
    admit(&mut a, 3, "pve-3", 4000);
    let roster = Roster::of(&a);
    assert_eq!(
        roster.holder_of("pve-3").map(|m| m.id),
        Some(Keypair::from_seed([4; 32]).node_id())
    );
}

#[test]
fn a_removed_node_is_not_brought_back_by_a_later_admission_or_leaving() {
    let mut a = replica(1);
    admit(&mut a, 3, "pve-3", 1000);
    let id = Keypair::from_seed([3; 32]).node_id();
    let by = a.node_id();
    write(&mut a, &member_path(&id), Roster::removal(by, "root", 2000), 2000);
    admit(&mut a, 3, "pve-9", 3000);
    let roster = Roster::of(&a);
    let ending = Ending { by, who: "root".into(), at_ms: 2000 };
    assert_eq!(roster.member(&id).unwrap().standing, Standing::Removed(ending));
}

#[test]
fn a_node_that_left_comes_back_by_a_new_admission() {
    let mut a = replica(1);
    admit(&mut a, 3, "pve-3", 1000);
    let id = Keypair::from_seed([3; 32]).node_id();
    write(&mut a, &member_path(&id), Roster::leaving(id, "root", 2000), 2000);
    assert!(!Roster::of(&a).is_current(&id));
    admit(&mut a, 3, "pve-3", 3000);
    assert!(Roster::of(&a).is_current(&id));
}

#[test]
fn a_node_admitted_again_by_one_who_had_not_heard_that_it_left_is_back() {
    let (mut a, mut b) = (replica(1), replica(2));
    let first = admit(&mut a, 3, "pve-3", 1000);
    merge(&mut b, first);
    let id = Keypair::from_seed([3; 32]).node_id();
    let leaving = Roster::leaving(id, "root", 2000);
    let left = write(&mut a, &member_path(&id), leaving, 2000);
    let again = admit(&mut b, 3, "pve-3", 3000);
    merge(&mut a, again);
    merge(&mut b, left);
    assert!(Roster::of(&a).is_current(&id) && Roster::of(&b).is_current(&id));
}

#[test]
fn a_member_is_meant_by_its_name_its_id_or_the_beginning_of_it() {
    let mut a = replica(1);
    admit(&mut a, 3, "pve-3", 1000);
    admit(&mut a, 4, "pve-4", 1000);
    let roster = Roster::of(&a);
    let id = Keypair::from_seed([3; 32]).node_id();
    for text in ["pve-3", &id.to_string(), &id.short()] {
        assert_eq!(roster.resolve(text).unwrap().id, id, "{text}");
    }
    assert!(matches!(roster.resolve("pve-5"), Err(ResolveError::Nobody(_))));
}

#[test]
fn names_are_checked() {
    for good in
        ["pve-1", "a", "Web1", "node_1.example.org", "0x", "1a", "10.0.0.1.example.org", "local"]
    {
        assert!(good.parse::<NodeName>().is_ok(), "{good}");
    }
    for bad in ["", "-a", "a b", "a~b", "é", "a.", "a..b", ".", "(none)", &"a".repeat(64)] {
        assert!(matches!(bad.parse::<NodeName>(), Err(NameError::Node(_))), "{bad}");
    }
    for address in ["10.0.0.1", "10", "10.0", "1234", "fd00::1", "::1", "127.0.0.1"] {
        assert!(matches!(address.parse::<NodeName>(), Err(NameError::Address(_))), "{address}");
    }
    for every in [
        "localhost",
        "LocalHost",
        "localhost.localdomain",
        "localhost4",
        "localhost6.localdomain6",
        "ip6-localhost",
    ] {
        assert!(matches!(every.parse::<NodeName>(), Err(NameError::OfEveryHost(_))), "{every}");
    }
    assert_eq!(datacenter_name("  Home Lab ").unwrap(), "Home Lab");
    assert!(datacenter_name(" \t").is_err());
}
