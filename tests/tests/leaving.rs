//! How a node goes: it leaves by itself, or a member removes it for good.

use std::fs;
use std::path::Path;

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

#[test]
fn a_node_that_leaves_is_gone_for_the_others_and_standalone_again() {
    let mut fleet = Fleet::found(3);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));

    let departure = fleet[1].cli(&["leave", "--json"]).exits(0).json();

    assert_eq!(fleet[1].status()["datacenter"], Value::Null);
    fleet[1].cli(&["settings", "set", "a/b", "x=2"]).exits(REFUSED).says(&["create", "join"]);
    let backup = Path::new(departure["backup"].as_str().unwrap());
    assert!(fs::metadata(backup).is_ok(), "{} keeps what it had", backup.display());
    let gone = fleet.take(1);
    gone_for_all(&fleet, "pve-2");
    fleet.all_see_all();
    fleet.all_read("a/b", &json!({"x": 1}));
    drop(gone);
}

#[test]
fn a_node_that_left_joins_again_with_another_token() {
    let fleet = Fleet::found(2);
    fleet[1].cli(&["leave"]).exits(0);
    gone_for_all(&fleet, "pve-2");

    fleet[1].join(&fleet[0].invite(json!({}))).expect("its name and its place are free");

    fleet.all_see_all();
}

#[test]
fn the_founder_leaves_like_any_other() {
    let mut fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet[0].cli(&["leave"]).exits(0);
    let founder = fleet.take(0);
    gone_for_all(&fleet, "pve-1");
    assert_eq!(fleet[0].fields("a/b"), json!({"x": 1}));
    founder.join(&fleet[0].invite(json!({}))).expect("it comes back as anyone would");
    assert_eq!(founder.fields("a/b"), json!({"x": 1}));
}

#[test]
fn a_node_that_is_removed_while_it_runs_stays_up_and_says_by_whom() {
    let mut fleet = Fleet::found(3);

    fleet[0].cli(&["remove", "pve-2"]).exits(0);

    is_told(&fleet[1], "pve-1");
    let mut removed = fleet.take(1);
    fleet.all_see("pve-2", &["removed"], LATER);
    // The node stays removed after a restart, whatever it says itself.
    removed.kill();
    removed.restart();
    is_told(&removed, "pve-1");
    fleet.all_see("pve-2", &["removed"], SOON);
}

#[test]
fn a_node_that_is_removed_while_it_is_off_is_refused_when_it_comes() {
    let mut fleet = Fleet::found(3);
    fleet[2].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet.kill(&[2]);
    fleet[1].cli(&["remove", "pve-3"]).exits(0);
    // The founder must have heard of the removal, since the member that removed the node is killed
    // next.
    fleet.all_see("pve-3", &["removed"], LATER);
    fleet.kill(&[1]);

    fleet[2].restart();

    is_told(&fleet[2], "pve-2");
    assert_eq!(fleet[0].state_of("pve-3"), "removed");
    assert_eq!(fleet[0].fields("a/b"), json!({"x": 1}), "what it wrote before stays");
}

#[test]
fn the_old_disk_of_a_removed_node_stays_removed() {
    let mut fleet = Fleet::found(3);
    fleet[2].set("a/b", json!({"x": 1}));
    fleet.converged();
    fleet[2].stop();
    let disk = fleet[2].file("disk");
    fleet[2].save_disk(&disk);
    fleet[2].restart();
    fleet.all_see_all();
    fleet[0].cli(&["remove", "pve-3"]).exits(0);
    is_told(&fleet[2], "pve-1");
    fleet[2].stop();
    fleet[2].restore_disk(&disk);
    // The node even writes before it meets any member.
    fleet[0].pause();
    fleet[1].pause();
    fleet[2].restart();
    let _ = fleet[2].try_set("a/b", json!({"x": "from the past"}));

    fleet[0].resume();
    fleet[1].resume();

    is_told(&fleet[2], "pve-1");
    let _removed = fleet.take(2);
    fleet.all_see("pve-3", &["removed"], LATER);
    fleet.all_read("a/b", &json!({"x": 1}));
}

#[test]
fn a_removed_node_gets_in_neither_by_its_old_token_nor_by_a_new_one() {
    let mut fleet = Fleet::start(2);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet[1].join(&token).unwrap();
    fleet.all_see_all();
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    is_told(&fleet[1], "pve-1");

    for token in [token, fleet[0].invite(json!({}))] {
        let failure = fleet[1].join(&token).expect_err("its key is out for good");
        failure.says(&["removed"]);
    }

    let _removed = fleet.take(1);
    fleet.all_see("pve-2", &["removed"], SOON);
}

#[test]
fn a_name_is_free_again_once_its_node_is_removed() {
    let mut fleet = Fleet::found(2);
    fleet.kill(&[1]);
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    let _old = fleet.take(1);
    let new = Agent::start("pve-2");

    new.join(&fleet[0].invite(json!({}))).expect("the name is free");

    eventually("it is alive under that name", SOON, || {
        let members = fleet[0].members();
        let alive = members.iter().any(|m| m["name"] == "pve-2" && m["state"] == "alive");
        if alive { Ok(()) } else { Err(members) }
    });
}

#[test]
fn removing_what_is_not_there_is_told() {
    let fleet = Fleet::found(2);
    fleet[0].cli(&["remove", "pve-9"]).exits(3).says(&["pve-9"]);
    assert_eq!(fleet[0].members().len(), 2);
}

#[test]
fn a_node_is_renamed_from_any_node() {
    let fleet = Fleet::found(3);
    fleet[0].cli(&["rename", "pve-2", "db-1"]).exits(0);
    for agent in fleet.iter() {
        until("it has its new name", LATER, || agent.state_of("db-1"), |state| state == "alive");
        assert_eq!(agent.state_of("pve-2"), "");
    }
    let name = || fleet[1].status()["node"]["name"].clone();
    until("it knows its own name", LATER, name, |name| name == "db-1");
    fleet[0].cli(&["rename", "db-1", "pve-3"]).exits(REFUSED).says(&["pve-3", "taken"]);
}

/// All agents list the node as left, or not at all.
#[track_caller]
fn gone_for_all(fleet: &Fleet, name: &str) {
    fleet.all_see(name, &["left", ""], SOON);
}

/// The node is up, belongs to nothing, and says that it was removed and by whom.
#[track_caller]
fn is_told(agent: &Agent, by: &str) {
    let status = until(
        "it knows that it was removed",
        LATER,
        || agent.client().get("status").unwrap_or_default(),
        |status| status["node"]["state"] == "removed",
    );
    let notice = status["notice"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(notice.contains("removed") && notice.contains(by), "{notice:?}");
    let failure = agent.try_set("a/b", json!({"x": "after"})).expect_err("it is not in it");
    assert_eq!(failure.code(), "refused", "{failure}");
}

/// A full disk kept the backup from being made; the next Data Center then took the old one's place
/// on disk, and an agent that was started in between did not come up.
#[test]
fn what_could_not_be_put_aside_is_put_aside_before_anything_takes_its_place() {
    let mut node = Agent::start("pve-1");
    node.create("north");
    node.set("storage/nas1", json!({"path": "/srv"}));
    let backups = node.data().join("backup");
    fs::write(&backups, "in the way").unwrap();

    node.cli(&["leave", "--force"]).exits(1).says(&["standalone now", "could not be put aside"]);
    node.cli(&["create", "south"]).exits(1).says(&["could not be put aside"]);
    node.stop();
    node.restart();
    assert_eq!(node.status()["datacenter"], Value::Null);

    fs::remove_file(&backups).unwrap();
    node.cli(&["create", "south"]).exits(0);
    assert_eq!(fs::read_dir(&backups).unwrap().count(), 1);
    assert_eq!(node.documents(), json!([]));
}

/// The Join Information in the unit was still valid, so the next start of the host once undid the
/// leaving.
#[test]
fn a_node_that_left_does_not_join_by_itself_when_it_starts_again() {
    let founder = Agent::start("pve-1");
    founder.create("north");
    let token = founder.invite(json!({"uses": "any"}));
    let mut node = Agent::named("pve-2").args(&["--join", &token]);
    node.restart();
    let datacenter = |node: &Agent| node.status()["datacenter"]["name"].clone();
    until("it has joined by itself", SOON, || datacenter(&node), |name| name == "north");

    node.cli(&["leave"]).exits(0);
    node.stop();
    node.restart();

    let log = || node.log();
    until("it says that it does not join", SOON, log, |log| log.contains("not joining by itself"));
    assert_eq!(datacenter(&node), Value::Null);
}
