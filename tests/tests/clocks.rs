//! Wrong clocks: the members see and tell them, a node whose clock is far off does not write, and
//! nobody else's clock follows it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_tests::faketime::{self, MISSING};
use peerage_tests::patience::{LATER, eventually, until};
use peerage_tests::{Agent, Fleet, skipped};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// How soon a node judges its clock after the clock was set. The node asks the others at once, and
/// where an answer is late, again after a minute and a bit.
const JUDGED: Duration = Duration::from_secs(90);

/// Long enough for each agent to have looked at its clock, and more.
const A_FEW_LOOKS: Duration = Duration::from_secs(5);

#[test]
fn a_clock_that_is_seconds_off_is_told_everywhere_and_goes_on_writing() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let fleet = fleet_of(3, &library);

    fleet[2].set_clock("+3s");

    let warned = |told: &String| told.contains("s ahead of the median of 2 other nodes");
    until("it is warned", JUDGED, || notice(&fleet[2]), warned);
    for agent in fleet.iter() {
        let member = until(
            "its clock shows on all",
            JUDGED,
            || member(agent, "pve-3"),
            |member| (2_500..=3_500).contains(&member["clock_ahead_ms"].as_i64().unwrap_or(0)),
        );
        assert!(member["message"].as_str().unwrap_or_default().contains("clock"), "{member}");
    }
    assert_eq!((notice_of(&fleet[0]), notice_of(&fleet[1])), (Value::Null, Value::Null));
    fleet[2].cli(&["settings", "set", "a/b", "x=1"]).exits(0);
    fleet[2].set_clock("+0s");
    until("it is right again", JUDGED, || notice_of(&fleet[2]), Value::is_null);
    let told = events(&fleet[2], "clock");
    assert_eq!(told.len(), 2, "warned once, and told once that it is over: {told:?}");
}

#[test]
fn a_clock_two_minutes_off_refuses_writes_with_the_figure_until_it_is_right() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let fleet = fleet_of(3, &library);
    fleet[0].set("a/b", json!({"x": 0}));

    for (shift, figure) in [("+130s", "ahead of"), ("-130s", "behind")] {
        fleet[2].set_clock(shift);
        let refusing = || fleet[2].status()["clock"]["refusing"].clone();
        until("it refuses to write", JUDGED, refusing, |refusing| refusing == true);

        let refused = fleet[2].cli(&["settings", "set", "a/b", "x=1"]).exits(REFUSED);
        refused.says(&["clock", "2 min", figure, "the median of 2 other nodes", "timedatectl"]);
        fleet[2].cli(&["rename", "pve-1", "other"]).exits(REFUSED).says(&["clock"]);
        // The node takes in what the others write, and the others are not even warned.
        fleet[0].set("c/d", json!({ "shift": shift }));
        fleet.all_read("c/d", &json!({ "shift": shift }));
        assert_eq!((notice_of(&fleet[0]), notice_of(&fleet[1])), (Value::Null, Value::Null));

        fleet[2].set_clock("+0s");
        let write = || fleet[2].try_set("a/b", json!({ "x": shift }));
        eventually("it writes again", JUDGED, write);
        fleet.all_read("a/b", &json!({ "x": shift }));
    }
}

#[test]
fn of_two_nodes_whose_clocks_differ_both_are_warned_and_both_write() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let fleet = fleet_of(2, &library);

    fleet[1].set_clock("+120s");

    for agent in fleet.iter() {
        let notice =
            until("both are warned", JUDGED, || notice(agent), |told| told.contains("clock"));
        assert!(notice.contains("one of the two is wrong"), "{notice}");
        agent.cli(&["settings", "set", &format!("by/{}", agent.name()), "x=1"]).exits(0);
    }
    fleet.all_read("by/pve-1", &json!({"x": 1}));
    fleet.all_read("by/pve-2", &json!({"x": 1}));
}

/// A seed with a wrong clock once took the joiner's clock for wrong and the token for expired. The
/// joiner was told so, and asked no other seed.
#[test]
fn a_seed_with_a_wrong_clock_keeps_nobody_out() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let mut fleet = fleet_of(3, &library);
    let token = fleet[2].invite(json!({"ttl": "1h"}));
    let strict = fleet[2].invite(json!({"ttl": "1h", "strict": true}));
    fleet[2].set_clock("+2h");
    let refusing = || fleet[2].status()["clock"]["refusing"].clone();
    until("its clock is refused", JUDGED, refusing, |refusing| refusing == true);
    let joiner = Agent::start("pve-4");

    let only_seed = joiner.cli(&["join", &strict, "--yes"]).exits(REFUSED);

    only_seed.says(&["the clock of pve-3 itself is ", "2 other nodes", "set the clock of pve-3"]);
    let figure = only_seed.stderr.split("itself is ").nth(1).unwrap_or_default();
    assert!(["2 h ahead", "1 h 59 min"].iter().any(|about| figure.starts_with(about)), "{figure}");
    joiner.cli(&["join", &token, "--yes"]).exits(0);
    fleet.push(joiner);
    fleet.all_see_all();
}

/// In a Data Center of two nobody knows whose clock is wrong, so each node judges by its own.
#[test]
fn a_joiner_that_one_seed_refuses_for_its_clock_is_let_in_by_the_next() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let mut fleet = fleet_of(2, &library);
    let token = fleet[1].invite(json!({"uses": "any"}));
    fleet[1].set_clock("-120s");
    let joiner = Agent::start("pve-3");

    joiner.cli(&["join", &token, "--yes"]).exits(0);

    fleet.push(joiner);
    fleet.all_see_all();
}

#[test]
fn a_node_with_a_wrong_clock_can_leave() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let fleet = fleet_of(3, &library);
    fleet[2].set_clock("-1h");
    let refusing = || fleet[2].status()["clock"]["refusing"].clone();
    until("it refuses to write", JUDGED, refusing, |refusing| refusing == true);

    fleet[2].cli(&["leave"]).exits(0);

    fleet.all_see("pve-3", &["left"], LATER);
}

#[test]
fn a_wrong_clock_brings_back_nothing_that_was_removed() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    for shift in ["+30d", "-30d"] {
        let mut fleet = fleet_of(4, &library);
        fleet[0].set("a/b", json!({"x": 1}));
        fleet.all_read("a/b", &json!({"x": 1}));
        // Two nodes are away and come back with wrong clocks. One of them is removed meanwhile.
        fleet.kill(&[2, 3]);
        fleet[0].cli(&["remove", "pve-4"]).exits(0);
        fleet[0].cli(&["settings", "unset", "a/b"]).exits(0);
        fleet[2].set_clock(shift);
        fleet[3].set_clock(shift);

        fleet[2].restart();
        fleet[3].restart();

        let removed = fleet.take(3);
        // The agent answers nothing for the moment in which its membership ends.
        let status = || removed.client().get("status").unwrap_or_default();
        let state = || status()["node"]["state"].clone();
        until("it is told", LATER, state, |state| state == "removed");
        fleet.all_see("pve-4", &["removed"], LATER);
        fleet.converged();
        assert_eq!(fleet[0].fields("a/b"), Value::Null);
        let refusing = || fleet[2].status()["clock"]["refusing"].clone();
        until("its clock is refused", JUDGED, refusing, |refusing| refusing == true);
    }
}

/// The node with the wrong clock was alone when it started, so nobody could tell it, and it wrote.
#[test]
fn what_was_written_by_a_clock_far_ahead_is_merged_and_drags_nobody_along() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let mut fleet = fleet_of(3, &library);
    fleet.kill(&[0, 1, 2]);
    fleet[2].set_clock("+2d");
    fleet[2].restart();
    fleet[2].set("by/wrong", json!({"x": 1}));

    fleet[0].restart();
    fleet[1].restart();

    fleet.all_read("by/wrong", &json!({"x": 1}));
    fleet[0].set("by/right", json!({"x": 1}));
    // What the right clock writes also holds over the value from the future.
    fleet[0].set("by/wrong", json!({"x": 2}));
    fleet.all_read("by/wrong", &json!({"x": 2}));
    let history = fleet[0].client().get("history/by/right").unwrap();
    let stamp = history[0]["stamp"].as_str().unwrap();
    let at_ms = u64::from_str_radix(&stamp[..16], 16).unwrap() >> 16;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(at_ms <= now_ms + 60_000, "{stamp} is {} ms ahead", at_ms.saturating_sub(now_ms));
}

/// The monotonic clock goes on, so no timer fires early or late, and nobody is called dead.
#[test]
fn a_clock_that_jumps_back_and_forth_makes_nobody_go_down() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let fleet = fleet_of(3, &library);
    let before = events(&fleet[0], "down");

    for shift in ["+1d", "-1d", "+90s", "-90s", "+0s"] {
        fleet[2].set_clock(shift);
        let refusing = || fleet[2].status()["clock"]["refusing"].clone();
        let expected = json!(shift != "+0s");
        until("the clock is judged", JUDGED, refusing, |refusing| *refusing == expected);
    }

    fleet.all_see_all();
    assert_eq!(before, events(&fleet[0], "down"));
    assert!(fleet[2].status()["uptime_s"].as_u64().unwrap() < 3_600);
}

/// A fleet whose last node has a clock of its own; with four, the last two.
fn fleet_of(nodes: usize, library: &str) -> Fleet {
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));
    for n in 2..=nodes {
        let mut agent = Agent::named(&format!("pve-{n}"));
        if n == nodes || n >= 3 {
            agent = agent.with_clock(library);
        }
        agent.restart();
        agent.join(&token).expect("its clock is right");
        fleet.push(agent);
    }
    fleet.all_see_all();
    fleet
}

/// What the operator is told first; empty where all is well.
fn notice(agent: &Agent) -> String {
    agent.status()["notice"]["message"].as_str().unwrap_or_default().to_owned()
}

fn notice_of(agent: &Agent) -> Value {
    agent.status()["notice"].clone()
}

/// A member as an agent sees it.
fn member(agent: &Agent, name: &str) -> Value {
    agent.members().into_iter().find(|member| member["name"] == name).unwrap_or_default()
}

/// The messages of all events of a kind that an agent knows.
fn events(agent: &Agent, kind: &str) -> Vec<String> {
    let mut stream = agent.events("events?follow=false");
    let mut found = Vec::new();
    while let Some(event) = stream.next(A_FEW_LOOKS) {
        if event.data["kind"] == kind {
            found.push(event.data["message"].as_str().unwrap_or_default().to_owned());
        }
    }
    found
}
