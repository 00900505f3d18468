//! Names: changed while the fleet runs, and settled where two nodes were given the same.

use std::thread;

use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// How often two nodes are given one name at the same time.
const CLASHES: usize = 8;

#[test]
fn a_new_name_is_told_by_events_and_outlives_a_restart() {
    let mut fleet = Fleet::found(3);
    let mut events = fleet[2].events("events?follow=true");

    // By one node for another, as the third hears.
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
        // What is on a disk may be shown a moment later.
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
    let tokens = [0, 1].map(|n: usize| fleet[n].invite(json!({})));
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
    let notice = second.status()["notice"]["message"].as_str().unwrap_or_default().to_owned();
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

/// The names of the members, in order.
fn names(agent: &Agent) -> Vec<String> {
    let members = agent.members();
    let mut names: Vec<_> =
        members.iter().map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}
