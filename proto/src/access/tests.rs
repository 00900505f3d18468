//! Tests of the decisions for each kind of caller, and of the texts that give the reason.

use crate::id::{NodeId, UserId};
use crate::replica::Actor;

use super::{
    Area, Asker, Caller, Deed, Forwarded, Grant, Host, Policy, Process, Proof, Resource, Right,
    Role, Subject, User, Verb, decide,
};

const PEERAGE: u32 = 990;
const LOOK: Right<'static> = Verb::audit(Area::Settings).on(Resource::Setting("storage/nas1"));
const WRITE: Right<'static> = Verb::modify(Area::Settings).on(Resource::Setting("storage/nas1"));

#[test]
fn everyone_on_the_host_looks() {
    assert!(decide(&policy(), &alice(1000, &[]), LOOK).allows());
}

#[test]
fn root_and_the_agents_own_user_may_do_all_whatever_is_granted() {
    let nothing = Policy { grants: Vec::new(), ..policy() };
    for (uid, reason) in [(0, "root may do everything"), (991, "the user that the agent runs as")] {
        let caller = user(uid, 5, &[]);
        let decision = decide(&nothing, &caller, WRITE);
        assert!(decision.allows() && decision.to_string().starts_with(reason), "{decision}");
    }
}

#[test]
fn the_group_writes_by_its_first_group_a_further_one_or_the_hosts_list() {
    let listed = Host { members: vec!["bob".into(), "alice".into()], ..policy().host };
    let listed = Policy { host: listed, ..policy() };
    for (policy, caller) in [
        (policy(), alice(PEERAGE, &[])),
        (policy(), alice(1000, &[27, PEERAGE])),
        (listed, alice(1000, &[])),
    ] {
        let decision = decide(&policy, &caller, WRITE);
        assert!(decision.allows(), "{decision}");
        assert_eq!(decision.to_string(), "local:group has the role administrator on /");
    }
}

#[test]
fn a_refusal_says_what_is_missing_and_what_would_help() {
    let (policy, caller) = (policy(), alice(1000, &[27]));
    let super::Decision::Refused(refusal) = decide(&policy, &caller, WRITE) else { panic!() };
    let words = "you (alice) may not do this: it takes settings.modify on /settings/storage/nas1, \
                 which is of the role administrator";
    assert_eq!(refusal.to_string(), words);
    assert_eq!(refusal.hint(), "use sudo, or have root run: usermod -aG peerage alice");

    let nameless = Caller::Process(Process { user: None, ..process(1000, 1000, &[]) });
    let super::Decision::Refused(refusal) = decide(&policy, &nameless, WRITE) else { panic!() };
    assert!(refusal.to_string().starts_with("you (uid 1000) may not"), "{refusal}");
    assert!(!refusal.hint().contains("usermod"), "{}", refusal.hint());
}

#[test]
fn where_the_group_is_missing_nobody_is_in_it() {
    let host = Host { group_id: None, members: vec!["alice".into()], ..policy().host };
    let (policy, caller) = (Policy { host, ..policy() }, alice(1000, &[0]));
    let super::Decision::Refused(refusal) = decide(&policy, &caller, WRITE) else { panic!() };
    assert!(refusal.hint().contains("no group \"peerage\""), "{}", refusal.hint());
}

#[test]
fn a_grant_holds_at_its_path_and_below_it_where_it_propagates() {
    let setting = Resource::Setting;
    for (path, below, on, holds) in [
        ("/", true, Resource::Root, true),
        ("/", true, setting("a/b"), true),
        ("/", false, setting("a/b"), false),
        ("/settings", true, setting("a/b"), true),
        ("/settings", true, Resource::Root, false),
        ("/settings/storage", true, setting("storage/nas1"), true),
        ("/settings/storage", true, setting("storage"), true),
        ("/settings/storage", false, setting("storage/nas1"), false),
        ("/settings/storage", true, setting("storage2/nas1"), false),
        ("/settings/storage/nas1", false, setting("storage/nas1"), true),
        ("/settings/storage/nas1", true, setting("storage"), false),
        ("/nodes/a", true, Resource::Node("a"), true),
        ("/nodes/a", true, Resource::Node("b"), false),
        // No node has a name with a slash, so such a name does not lie below a node's path either.
        ("/nodes/a", true, Resource::Node("a/b"), false),
        ("/nodes", true, Resource::ThisNode, true),
        ("/nodes/a", true, Resource::ThisNode, false),
        ("/nodes/a", false, Resource::Anywhere, true),
    ] {
        assert_eq!(on.lies_at(path, below), holds, "{path} {below} {on}");
    }
}

#[test]
fn who_was_granted_a_part_sees_that_part() {
    let grant = Grant {
        subject: Subject::LocalOthers,
        role: Role::Auditor,
        path: "/settings/storage".into(),
        propagate: true,
    };
    let policy = Policy { grants: vec![grant], ..policy() };
    let caller = alice(1000, &[]);
    let may = |verb: Verb, on| decide(&policy, &caller, verb.on(on)).allows();
    let look = Verb::audit(Area::Settings);
    assert!(may(look, Resource::Setting("storage/nas1")) && may(look, Resource::Anywhere));
    assert!(!may(look, Resource::Setting("dns")) && !may(look, Resource::Root));
    assert!(!may(Verb::modify(Area::Settings), Resource::Anywhere));
}

#[test]
fn a_caller_is_told_by_its_name_and_its_door_and_travels_as_it_is() {
    let process = process(1000, 1000, &[27]);
    let forwarded = |asker| Caller::Forwarded(Forwarded { by: NodeId([0xab; 32]), asker });
    let node = format!("node {}", "ab".repeat(32));
    for (caller, who, via) in [
        (Caller::Process(process.clone()), "alice", "socket"),
        (Caller::Process(Process { user: None, ..process.clone() }), "uid 1000", "socket"),
        (Caller::Process(Process { user: None, uid: 0, ..process.clone() }), "root", "socket"),
        (Caller::User(carol(Proof::Session)), "carol", "session"),
        (Caller::User(carol(Proof::Token("t1".into()))), "carol", "token t1"),
        (Caller::User(carol(Proof::Code)), "carol", "code"),
        (forwarded(Asker::User(carol(Proof::Session))), "carol via abababab", node.as_str()),
        (forwarded(Asker::Process(process)), "alice via abababab", node.as_str()),
    ] {
        assert_eq!(caller.actor(), Actor { who: who.into(), via: via.into() });
        let json = serde_json::to_string(&caller).unwrap();
        assert_eq!(serde_json::from_str::<Caller>(&json).unwrap(), caller);
        let bytes = rmp_serde::to_vec_named(&caller).unwrap();
        assert_eq!(rmp_serde::from_slice::<Caller>(&bytes).unwrap(), caller);
    }
    let twice = r#"{"forwarded": {"by": "ab", "asker": {"forwarded": {}}}}"#;
    assert!(serde_json::from_str::<Caller>(twice).is_err(), "no call is forwarded twice");
}

#[test]
fn verbs_are_told_as_they_are_granted() {
    assert_eq!(Verb::audit(Area::DataCenter).to_string(), "dc.audit");
    assert_eq!(WRITE.to_string(), "settings.modify on /settings/storage/nas1");
    assert_eq!(WRITE.verb.deed, Deed::Modify);
}

fn policy() -> Policy {
    let host = Host {
        agent_uid: 991,
        group: "peerage".into(),
        group_id: Some(PEERAGE),
        members: Vec::new(),
    };
    Policy { host, grants: Grant::defaults() }
}

fn process(uid: u32, gid: u32, groups: &[u32]) -> Process {
    Process { uid, gid, user: Some("alice".into()), groups: groups.to_vec() }
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller::Process(process(uid, gid, groups))
}

fn alice(gid: u32, groups: &[u32]) -> Caller {
    user(1000, gid, groups)
}

fn carol(by: Proof) -> User {
    User { id: UserId([7; 16]), name: "carol".into(), by }
}
