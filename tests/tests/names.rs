//! Names: changed while the fleet runs, and settled where two nodes were given the same.

use std::process::{Command, Stdio};
use std::thread;

use peerage_tests::agent::die_with_parent;
use peerage_tests::command::clean;
use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet, Ran, binary, command, skipped};
use serde_json::{Value, json};

/// How often two nodes are given one name at the same time.
const CLASHES: usize = 8;

#[test]
fn a_new_name_is_told_by_events_and_outlives_a_restart() {
    let mut fleet = Fleet::found(3);
    let mut events = fleet[2].events("events?follow=true");

    // One node renames another, and the third hears of it.
    fleet[0].cli(&["rename", "pve-2", "db-1"]).exits(0);

    let told =
        std::iter::from_fn(|| events.next(SOON)).find(|event| event.data["kind"] == "renamed");
    let told = told.expect("it is told").data;
    assert_eq!(
        (&told["node"], told["message"].as_str().unwrap()),
        (&json!("db-1"), "pve-2 is now named db-1")
    );
    fleet.converged();
    fleet.kill(&[0, 1, 2]);
    for n in 0..3 {
        fleet[n].restart();
    }
    fleet.all_see_all();
    for agent in fleet.iter() {
        assert_eq!(names(agent), ["db-1", "pve-1", "pve-3"]);
    }
}

#[test]
fn two_nodes_renamed_to_one_name_on_two_nodes_at_once_end_the_same_everywhere() {
    let fleet = Fleet::found(3);
    for round in 0..CLASHES {
        let name = format!("db-{round}");
        let rename = |on: &Agent, id: &Value| {
            let path = format!("members/{}", id.as_str().unwrap());
            on.client().patch(&path, &json!({ "name": name }))
        };
        let ids = [1, 2].map(|n: usize| fleet[n].status()["node"]["id"].clone());

        let outcomes = thread::scope(|scope| {
            let first = scope.spawn(|| rename(&fleet[0], &ids[0]));
            let second = scope.spawn(|| rename(&fleet[1], &ids[1]));
            [first.join().unwrap(), second.join().unwrap()]
        });

        let given = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(given > 0, "{outcomes:?}");
        fleet.converged();
        // A name that is on a disk may be shown a moment later.
        let agreed = || fleet.iter().map(names).collect::<Vec<_>>();
        let shown =
            until("all show the same", SOON, agreed, |all| all.iter().all(|n| *n == all[0]));
        let holders = shown[0].iter().filter(|shown| **shown == name).count();
        let suffixed =
            shown[0].iter().filter(|shown| shown.starts_with(&format!("{name}~"))).count();
        assert_eq!((holders, suffixed), (1, given - 1), "{shown:?}");
    }
}

#[test]
fn of_two_admitted_under_one_name_by_two_sides_the_later_is_told_and_can_be_renamed() {
    let mut fleet = Fleet::found(2);
    let tokens = [0, 1].map(|n: usize| fleet[n].invite(json!({"uses": "any"})));
    // The two members are never up together while each admits a "web".
    fleet.kill(&[1]);
    let mut first = Agent::start("web");
    first.join(&tokens[0]).expect("the name is free here");
    first.kill();
    fleet.kill(&[0]);
    fleet[1].restart();
    let second = Agent::start("web");
    second.join(&tokens[1]).expect("here the name is free, too");
    let id = second.status()["node"]["id"].as_str().unwrap().to_owned();

    let mut events = second.events("events?follow=true");
    fleet[0].restart();
    first.restart();

    fleet.push(first);
    fleet.push(second);
    fleet.all_see_all();
    let suffixed = format!("web~{}", &id[..8]);
    for agent in fleet.iter() {
        until(
            "the earlier has the name",
            LATER,
            || names(agent),
            |names| *names == ["pve-1", "pve-2", "web", &suffixed],
        );
    }
    let (first, second) = (&fleet[2], &fleet[3]);
    assert_eq!(first.status()["node"]["name"], "web");
    assert_eq!(first.status()["notice"], Value::Null);
    let notice = second.status()["notice"].to_string();
    assert!(notice.contains(&format!("peerage rename {suffixed} NEW")), "{notice:?}");
    second.cli(&["status"]).exits(0).says(&["web", "peerage rename"]);
    let told = std::iter::from_fn(|| events.next(SOON));
    let told = told.map(|event| event.data["message"].to_string());
    let words = format!("peerage rename {suffixed} NEW");
    assert!(told.into_iter().any(|message| message.contains(&words)), "its events tell it, too");

    fleet[0].cli(&["rename", &suffixed, "web-2"]).exits(0);

    let notice = || fleet[3].status()["notice"].clone();
    until("there is nothing left to do", SOON, notice, Value::is_null);
    for agent in fleet.iter() {
        let renamed = ["pve-1", "pve-2", "web", "web-2"];
        until("the new name is on all", SOON, || names(agent), |names| *names == renamed);
    }
}

#[test]
fn names_that_differ_in_case_only_are_one_name() {
    let mut fleet = Fleet::found(2);
    let token = fleet[0].invite(json!({"node_name": "PVE-*"}));
    let taken = Agent::start("PVE-2");
    let refused = taken.join(&token).unwrap_err();
    assert!(format!("{refused:?}").contains("taken"), "{refused:?}");
    let third = Agent::start("Pve-3");
    third.join(&token).expect("the pattern is for names of any case");
    fleet.push(third);
    fleet.all_see_all();

    fleet[0].cli(&["rename", "pve-3", "PVE-1"]).exits(4).says(&["taken"]);
    // A node may take its own name in another case.
    fleet[0].cli(&["rename", "PVE-3", "pve-3"]).exits(0).says(&["pve-3"]);
    for agent in fleet.iter() {
        let renamed = ["pve-1", "pve-2", "pve-3"];
        until("the new name is on all", SOON, || names(agent), |names| *names == renamed);
    }
}

#[test]
fn what_every_host_is_called_and_what_reads_as_an_address_names_no_node() {
    let fleet = Fleet::found(1);
    let token = fleet[0].invite(json!({"uses": "any"}));
    let joiner = Agent::start("web1");
    for name in ["localhost", "LOCALHOST", "localhost.localdomain", "localhost4"] {
        let refused = joiner.cli(&["join", &token, "--yes", "--name", name]).exits(2);
        refused.says(&["every host calls itself so"]);
    }
    for name in ["10.0.0.1", "10", "fd00::1"] {
        joiner.cli(&["join", &token, "--yes", "--name", name]).exits(2).says(&["address"]);
        fleet[0].cli(&["rename", "pve-1", name]).exits(2).says(&["address"]);
    }
    let mut agent = Agent::named("localhost");
    let ran = agent.run_to_end();
    assert_eq!(ran.code, 2, "the configuration says so: {}", ran.stderr);
    ran.says(&["--name", "every host calls itself so"]);
}

/// The agent once did not start there, so a host that gets its name a moment later had no agent.
#[test]
fn an_agent_on_a_host_without_a_name_of_its_own_runs_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    let mut host = Command::new("unshare");
    host.args(["--uts", "sh", "-c", "hostname localhost && exec \"$0\" \"$@\""]);
    clean(&mut host);
    let works = Command::new("unshare").args(["--uts", "hostname", "localhost"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skipped("only root can give a host another name (unshare, hostname)");
    }
    host.arg(binary::peerage()).args(["agent", "--listen", "127.0.0.1:0", "--socket"]);
    host.arg(&socket).arg("--data-dir").arg(home.path().join("data")).stderr(Stdio::null());
    die_with_parent(&mut host);
    let mut host = host.spawn().unwrap();
    let ask =
        |args: &[&str]| Ran::run(command::peerage().arg("--socket").arg(&socket).args(args), "");

    let status = || ask(&["status", "--json"]);
    let status = until("it answers", SOON, status, |ran| ran.code == 0).json();
    assert_eq!(status["node"]["name"], "localhost");
    let notice = status["notices"][0].to_string();
    assert!(notice.contains("every host calls itself so"), "{notice}");
    ask(&["create", "north"]).exits(4).says(&["localhost", "hostnamectl set-hostname", "name ="]);
    let fleet = Fleet::found(1);
    let token = fleet[0].invite(json!({"uses": "any"}));
    ask(&["join", &token, "--yes"]).exits(4).says(&["localhost", "peerage join --name"]);
    ask(&["join", &token, "--yes", "--name", "web1"]).exits(0);
    let notices = ask(&["status", "--json"]).exits(0).json()["notices"].clone();
    assert_eq!(notices, json!([]), "it has a name now");
    host.kill().unwrap();
    host.wait().unwrap();
}

/// The names of the members, in order.
fn names(agent: &Agent) -> Vec<String> {
    let members = agent.members();
    let mut names: Vec<_> =
        members.iter().map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}
