//! Who a host is: copied disks, new identities, and hosts that were installed anew.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet, skipped};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// A user without any rights, and its group.
const NOBODY: u32 = 65534;

#[test]
fn a_copied_disk_is_refused_while_the_original_goes_on_undisturbed() {
    let mut fleet = Fleet::found(3);
    let mut copy = copied(&mut fleet, 2);
    fleet.all_see_all();
    let before = told_of(&fleet[0], "pve-3");
    let boot = fleet[2].status()["boot"].clone();

    copy.restart();

    let status = refused(&copy);
    let notice = &status["notice"];
    let message = notice["message"].as_str().unwrap();
    let original = format!("127.0.0.1:{}", fleet[2].port().unwrap());
    assert!(message.contains("node.key") && message.contains(&original), "{message}");
    assert!(notice["hint"].as_str().unwrap().contains("peerage reset --identity"), "{notice}");
    copy.cli(&["settings", "set", "a/b", "x=1"]).exits(REFUSED).says(&["node.key", "reset"]);
    for command in [["create", "south"].as_slice(), &["leave"]] {
        copy.cli(command).exits(REFUSED).says(&["node.key", "reset"]);
    }
    assert!(copy.log().contains("node.key"), "the journal says so, too");
    // No member took the copy for the original.
    fleet[2].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet.all_see_all();
    assert_eq!(told_of(&fleet[0], "pve-3"), before);
    assert_eq!(
        (fleet[2].status()["boot"].clone(), fleet[2].status()["notice"].clone()),
        (boot, Value::Null)
    );

    let reset = copy.cli(&["reset", "--identity", "--yes"]).exits(0);
    reset.says(&["new node", "old key"]);

    let status = copy.status();
    assert_eq!((&status["node"]["state"], &status["notice"]), (&json!("standalone"), &Value::Null));
    assert!(copy.data().join("backup").exists(), "what it had is kept");
    let token = fleet[0].invite(json!({"uses": "any"}));
    copy.cli(&["join", &token, "--name", "pve-4", "--yes"]).exits(0);
    fleet.push(copy);
    fleet.all_see_all();
    fleet.all_read("a/b", &json!({"x": 1}));
}

/// On its next start the copy once found the original away and took its place, and the original was
/// refused when it came back.
#[test]
fn a_copy_that_was_refused_stays_refused_until_it_takes_another_identity() {
    let mut fleet = Fleet::found(3);
    let mut copy = copied(&mut fleet, 2);
    copy.restart();
    refused(&copy);
    copy.stop();
    fleet.kill(&[2]);
    fleet.all_see("pve-3", &["down"], LATER);

    copy.restart();

    let status = copy.status();
    assert_eq!(status["node"]["state"], "refused", "{status}");
    let write = copy.cli(&["settings", "set", "a/b", "x=1"]).exits(REFUSED);
    write.says(&["node.key", "reset --identity", "join --replace"]);
    fleet[2].restart();
    fleet.all_see_all();
    assert_eq!(fleet[2].status()["notice"], Value::Null);
    assert_eq!(copy.status()["node"]["state"], "refused");

    // The original is gone for good, and the copy is the one to stay.
    fleet.kill(&[2]);
    let _original = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    let token = fleet[0].invite(json!({"uses": "any"}));
    copy.cli(&["reset", "--identity", "--yes"]).exits(0);
    assert_eq!(copy.status()["notice"], Value::Null);
    alive(&fleet[0], 2);
    copy.cli(&["join", "--replace", &token, "--yes"]).exits(0);
    assert_eq!(copy.status()["node"]["name"], "pve-3");
    fleet.push(copy);
    fleet.all_see_all();
}

/// The member that the two meet knows neither of them, or knows the copy first.
#[test]
fn of_two_copies_that_nobody_saw_start_the_later_is_refused() {
    for copy_is_met_first in [false, true] {
        let mut fleet = Fleet::found(2);
        let mut copy = copied(&mut fleet, 1);
        fleet.kill(&[0]);
        copy.restart();
        if copy_is_met_first {
            fleet[1].pause();
        }

        fleet[0].restart();

        if copy_is_met_first {
            let state = || fleet[0].state_of("pve-2");
            until("the copy is met", LATER, state, |state| state == "alive");
            fleet[1].resume();
        }
        refused(&copy);
        fleet[1].set("a/b", json!({"x": 1}));
        fleet.all_read("a/b", &json!({"x": 1}));
        fleet.all_see_all();
    }
}

#[test]
fn a_host_whose_agent_is_killed_and_started_again_is_no_copy() {
    let mut fleet = Fleet::found(3);
    for _ in 0..3 {
        fleet[2].kill();
        fleet[2].restart();
        fleet.all_see_all();
        assert_eq!(fleet[2].status()["node"]["state"], "member");
    }
}

#[test]
fn a_removed_host_joins_again_with_a_new_identity() {
    let mut fleet = Fleet::found(2);
    let removed = fleet.take(1);
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    let state = || said(&removed)["node"]["state"].clone();
    until("it is told", LATER, state, |state| state == "removed");
    let hint = removed.status()["notice"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("peerage reset --identity"), "{hint}");

    let reset = removed.cli(&["reset", "--identity", "--json"]).exits(0).json();

    assert_eq!(removed.status()["node"]["id"], reset["node"]["id"]);
    assert_ne!(reset["was"], reset["node"]["id"]);
    assert!(Path::new(reset["old_key"].as_str().unwrap()).exists());
    removed.join(&fleet[0].invite(json!({}))).expect("it is a new node under a free name");
}

#[test]
fn a_member_does_not_slip_away_by_a_new_identity() {
    let fleet = Fleet::found(2);
    let before = fleet[1].status()["node"].clone();

    fleet[1]
        .cli(&["reset", "--identity", "--yes"])
        .exits(REFUSED)
        .says(&["member", "peerage leave"]);

    assert_eq!(fleet[1].status()["node"], before);
    fleet[1].cli(&["reset"]).exits(2).says(&["--identity"]);
}

#[test]
fn the_folder_of_a_stopped_agent_gets_a_new_identity() {
    let mut fleet = Fleet::found(2);
    let was = fleet[1].status()["node"]["id"].clone();
    let folder = fleet[1].data().to_str().unwrap().to_owned();
    let reset = ["reset", "--identity", "--yes", "--data-dir", &folder];
    fleet[1].cli(&reset).exits(1).says(&["another agent"]);
    fleet[1].stop();

    fleet[1].cli(&reset).exits(0);

    fleet[1].restart();
    let status = fleet[1].status();
    assert_ne!(status["node"]["id"], was);
    assert_eq!(status["datacenter"], Value::Null);
    assert_eq!(fs::read_dir(fleet[1].data().join("backup")).unwrap().count(), 1);
}

/// On a packaged host the folder belongs to the agent's user, and the person who resets it is root.
#[test]
fn root_resets_a_folder_as_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can act as another user");
    }
    let mut fleet = Fleet::found(2);
    fleet[1].stop();
    let folder = fleet[1].data().to_owned();
    let home = folder.parent().unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o711)).unwrap();
    give(&folder, NOBODY);

    let folder_name = folder.to_str().unwrap();
    fleet[1].cli(&["reset", "--identity", "--yes", "--data-dir", folder_name]).exits(0);

    for path in within(&folder) {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
    assert!(folder.join("node.key.old").exists());
    // The agent itself never acts as another user.
    let mut as_root = Agent::named("pve-2").on_data(folder.clone());
    as_root.run_to_end().exits(1).says(&["belongs to user 65534", "sudo -u '#65534' peerage"]);
    give(&folder, 0);
    fleet[1].restart();
    assert_eq!(fleet[1].status()["datacenter"], Value::Null);
}

/// The Join Information in its configuration once let such a node join again at once, though its
/// operator had just taken it out.
#[test]
fn who_was_taken_out_and_takes_a_new_identity_joins_only_when_told_to() {
    for is_removed in [false, true] {
        let fleet = Fleet::found(1);
        let token = fleet[0].invite(json!({"uses": "any"}));
        let mut agent = Agent::named("pve-2").args(&["--join", &token]);
        agent.restart();
        let datacenter = || said(&agent)["datacenter"]["name"].clone();
        until("it has joined by itself", LATER, datacenter, |name| name == "north");
        if is_removed {
            fleet[0].cli(&["remove", "pve-2"]).exits(0);
            let state = || said(&agent)["node"]["state"].clone();
            until("it is told", LATER, state, |state| state == "removed");
        } else {
            agent.cli(&["leave"]).exits(0);
        }

        agent.cli(&["reset", "--identity", "--yes"]).exits(0);

        let log = || agent.log();
        until("it stays out", LATER, log, |log| log.contains("not joining by itself"));
        let status = agent.status();
        assert_eq!(status["node"]["state"], "standalone");
        assert!(status["notice"]["hint"].as_str().unwrap().contains("join"), "{status}");
        agent.join(&token).expect("it is a new node, and was told to join");
        assert_eq!(agent.status()["notice"], Value::Null);
        let seen = || states(&fleet[0], "pve-2");
        until("it is a member again", LATER, seen, |states| states.contains(&"alive".to_owned()));
    }
}

#[test]
fn a_host_installed_anew_takes_its_name_over_once_the_old_one_is_down() {
    let mut fleet = Fleet::found(3);
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet.kill(&[2]);
    let mut old = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    let anew = Agent::start("pve-3");
    anew.cli(&["join", &token, "--yes"]).exits(REFUSED).says(&["taken", "--replace"]);

    alive(&fleet[0], 2);
    anew.cli(&["join", &token, "--replace", "--yes"]).exits(0);

    assert_eq!(anew.status()["node"]["name"], "pve-3");
    fleet.push(anew);
    fleet.all_see_all();
    for agent in fleet.iter() {
        until(
            "the old one is removed",
            SOON,
            || states(agent, "pve-3"),
            |states| *states == ["alive", "removed"],
        );
    }
    old.restart();
    let status = until(
        "the old one is told",
        LATER,
        || said(&old),
        |status| status["node"]["state"] == "removed",
    );
    let message = status["notice"]["message"].as_str().unwrap();
    assert!(message.contains("join --replace"), "{message}");
}

#[test]
fn the_name_of_a_member_that_is_alive_is_not_taken_over() {
    let fleet = Fleet::found(3);
    let token = fleet[0].invite(json!({"uses": "any"}));
    let anew = Agent::start("pve-3");
    let address = format!("127.0.0.1:{}", fleet[2].port().unwrap());

    for name in ["pve-3", "pve-1"] {
        let refused = anew.cli(&["join", &token, "--replace", "--name", name, "--yes"]);
        refused.exits(REFUSED).says(&[name, "not gone"]);
    }
    let refused = anew.client().post("join", &json!({"token": token, "replace": true}));
    refused.unwrap_err().says(&["pve-3", "alive", &address]);

    assert_eq!(anew.status()["datacenter"], Value::Null);
    fleet.all_see_all();
    assert_eq!(states(&fleet[1], "pve-3"), ["alive"]);
}

#[test]
fn a_host_installed_anew_takes_its_name_over_unattended() {
    let mut fleet = Fleet::found(3);
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet.kill(&[2]);
    let _old = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    let mut anew = Agent::named("pve-3").args(&["--join", &token, "--replace"]);

    anew.restart();

    let datacenter = || anew.status()["datacenter"]["name"].clone();
    until("it has joined", LATER, datacenter, |name| name == "north");
    fleet.push(anew);
    fleet.all_see_all();
}

#[test]
fn who_only_restarts_keeps_its_name_and_place() {
    let mut fleet = Fleet::found(3);
    let token = fleet[0].invite(json!({"uses": "any"}));
    assert!(fleet[2].stop().success());
    let mut old = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    let mut anew = Agent::named("pve-3").args(&["--join", &token, "--replace"]);
    anew.restart();
    let log = || anew.log();
    until("it is told to wait", LATER, log, |log| {
        log.contains("may not be gone: its agent was stopped")
    });

    old.restart();

    fleet.push(old);
    fleet.all_see_all();
    until("it gives up", LATER, log, |log| log.contains("joining was refused"));
    assert_eq!(anew.status()["datacenter"], Value::Null);
    assert_eq!(states(&fleet[0], "pve-3"), ["alive"]);
}

#[test]
fn a_seed_that_sees_only_half_replaces_nobody() {
    let mut fleet = Fleet::found(4);
    let token = fleet[0].invite(json!({"uses": "any"}));
    let mut gone: Vec<Agent> = (0..2).map(|_| fleet.take(2)).collect();
    gone.iter_mut().for_each(Agent::kill);
    for name in ["pve-3", "pve-4"] {
        fleet.all_see(name, &["down"], LATER);
    }
    let anew = Agent::start("pve-4");

    alive(&fleet[0], 2);
    let refused = anew.cli(&["join", &token, "--replace", "--yes"]);
    refused.exits(REFUSED).says(&["sees only 1 of 2 other members", "peerage remove"]);

    fleet[0].cli(&["remove", "pve-3"]).exits(0);
    alive(&fleet[0], 2);
    anew.cli(&["join", &token, "--replace", "--yes"]).exits(0);
}

/// Waits until a node sees so many members alive, itself among them. A suspected member does not
/// count.
fn alive(agent: &Agent, count: usize) {
    let seen = || agent.status()["members"]["alive"].clone();
    until("those that are left show as alive", LATER, seen, |alive| *alive == count);
}

/// A copy of a node's disk, on a host of its own that is not started yet. The node runs again. A
/// copy that is started now has the later boot number, which counts seconds.
fn copied(fleet: &mut Fleet, node: usize) -> Agent {
    fleet[node].stop();
    let copy = Agent::named(&format!("pve-{}", node + 1));
    let disk = copy.file("disk");
    fleet[node].save_disk(&disk);
    copy.restore_disk(&disk);
    fleet[node].restart();
    let boot = fleet[node].status()["boot"].as_u64().unwrap();
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    until("a copy would be the later", SOON, seconds, |now| *now > boot);
    copy
}

/// Waits until an agent says that another host has its identity, and returns its status.
#[track_caller]
fn refused(copy: &Agent) -> Value {
    until(
        "the copy is refused",
        LATER,
        || said(copy),
        |status| status["node"]["state"] == "refused",
    )
}

/// Gives a folder, with all that is in it, to a user and its group.
fn give(folder: &Path, user: u32) {
    for path in within(folder) {
        chown(&path, Some(user), Some(user)).unwrap();
    }
}

/// A folder, and all that is in it.
fn within(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut looked_at = 0;
    while let Some(path) = found.get(looked_at).cloned() {
        looked_at += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// What an agent says of itself; nothing while its membership is just ending.
fn said(agent: &Agent) -> Value {
    agent.client().get("status").unwrap_or_default()
}

/// The states of all members of a name, in order.
fn states(agent: &Agent, name: &str) -> Vec<String> {
    let members = agent.members();
    let of_name = members.iter().filter(|member| member["name"] == name);
    let mut states: Vec<_> =
        of_name.map(|m| m["state"].as_str().unwrap_or_default().to_owned()).collect();
    states.sort();
    states
}

/// All that an agent told of a node so far.
fn told_of(agent: &Agent, name: &str) -> Vec<String> {
    let mut events = agent.events("events?follow=false");
    let mut told = Vec::new();
    while let Some(event) = events.next(SOON) {
        let kind = event.data["kind"].as_str().unwrap_or_default();
        let message = event.data["message"].as_str().unwrap_or_default();
        // A host that is late doubts others for a moment, and is answered.
        let doubt = kind == "suspect" || message.ends_with(" alive: answered");
        if event.data["node"] == name && !["settings", "duplicate"].contains(&kind) && !doubt {
            told.push(message.to_owned());
        }
    }
    told
}
