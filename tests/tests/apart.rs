//! Memberships that ended unheard: a seed that was removed and did not know it, a node that left
//! alone, two nodes that removed each other. Each of them is told, and nothing is lost on the way.

use std::time::Duration;

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// How soon an objection to a membership is told: the node asks about it again a while later, and
/// once more where that call fails.
const TOLD_WITHIN: Duration = Duration::from_secs(90);

/// The Data Center `north` of two nodes: the first has removed the second and does not run; the
/// second runs and has not heard of it.
fn with_a_seed_that_was_put_out() -> Fleet {
    let mut fleet = Fleet::found(2);
    fleet.kill(&[1]);
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    fleet.kill(&[0]);
    fleet[1].restart();
    fleet
}

/// The newcomer was once an island: the members did not know it, and it did not know why.
#[test]
fn who_was_let_in_by_a_seed_that_had_been_put_out_is_told_and_comes_in_by_a_member() {
    let mut fleet = with_a_seed_that_was_put_out();
    let newcomer = Agent::start("pve-3");
    newcomer.join(&fleet[1].invite(json!({}))).expect("the seed does not know yet");
    newcomer.set("a/b", json!({"x": 1}));

    fleet[0].restart();

    let notice = until(
        "it is told",
        TOLD_WITHIN,
        || status(&newcomer)["notice"]["message"].as_str().unwrap_or_default().to_owned(),
        |notice| notice.contains("is void"),
    );
    assert!(["pve-1 does not take", "pve-2 was removed by"].iter().all(|w| notice.contains(w)));
    let hint = newcomer.status()["notice"]["hint"].as_str().unwrap_or_default().to_owned();
    assert!(["export", "leave", "from pve-1"].iter().all(|word| hint.contains(word)), "{hint}");
    assert!(events(&newcomer).contains("contested"));
    let state = || status(&fleet[1])["node"]["state"].clone();
    until("the seed heard, too", LATER, state, |state| state == "removed");
    // The newcomer goes on until its operator has saved what is on it.
    assert_eq!(newcomer.fields("a/b"), json!({"x": 1}));
    let settings = newcomer.cli(&["settings", "export"]).exits(0).stdout;

    let departure = newcomer.cli(&["leave", "--force", "--json"]).exits(0).json();
    assert_eq!(departure["told"], json!([]));
    newcomer.join(&fleet[0].invite(json!({}))).expect("its key was not put out");
    newcomer.cli_with(&["settings", "apply", "-f", "-"], &settings).exits(0);

    let _seed = fleet.take(1);
    fleet.push(newcomer);
    fleet.all_see_all();
    fleet.all_read("a/b", &json!({"x": 1}));
    assert_eq!(fleet[1].status()["notice"], Value::Null);
}

/// The node was once told that it had left, which it knew, and nothing of its return.
#[test]
fn who_left_and_came_back_by_a_seed_that_had_been_put_out_is_told() {
    let mut fleet = Fleet::found(3);
    let back = fleet.take(2);
    back.cli(&["leave"]).exits(0);
    for agent in fleet.iter() {
        until("all have heard", LATER, || agent.state_of("pve-3"), |state| state == "left");
    }
    fleet.kill(&[1]);
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    fleet.kill(&[0]);
    fleet[1].restart();
    back.join(&fleet[1].invite(json!({}))).expect("the seed does not know yet");

    fleet[0].restart();

    until(
        "it is told",
        TOLD_WITHIN,
        || status(&back)["notice"]["message"].as_str().unwrap_or_default().to_owned(),
        |notice| notice.contains("is void") && notice.contains("pve-2 was removed by"),
    );
    assert_eq!(fleet[0].state_of("pve-3"), "left");
}

#[test]
fn a_seed_that_was_put_out_tells_joiners_how() {
    let mut fleet = with_a_seed_that_was_put_out();
    let token = fleet[1].invite(json!({"uses": "any"}));
    fleet[0].restart();
    until("it knows", LATER, || status(&fleet[1])["node"]["state"].clone(), |s| s == "removed");
    fleet.kill(&[0]);
    let newcomer = Agent::start("pve-3");

    let failure = newcomer.join(&token).expect_err("nobody can let it in");

    failure.says(&["was removed from north", "on pve-1"]);
}

/// The other members once showed such a node as down for good.
#[test]
fn who_leaves_while_nobody_hears_is_told_so_and_tells_the_others_when_they_look_for_it() {
    let mut fleet = Fleet::found(2);
    fleet.kill(&[0]);
    let departure = fleet[1].cli(&["leave", "--force", "--json"]).exits(0).json();
    assert_eq!(departure["told"], json!([]));
    let notice = departure["notice"].to_string();
    assert!(notice.contains("no other member") && notice.contains("peerage remove pve-2"));
    let kept = fleet[1].status()["notice"].to_string();
    assert!(kept.contains("no other member"), "{kept}");
    // The node keeps what it has to tell the others over a restart.
    fleet.kill(&[1]);
    fleet[1].restart();

    fleet[0].restart();

    eventually("it is heard that it left", LATER, || match fleet[0].state_of("pve-2").as_str() {
        "left" => Ok(()),
        state => Err(state.to_owned()),
    });
    fleet[1].join(&fleet[0].invite(json!({}))).expect("it comes back as anyone would");
    fleet.all_see_all();
}

#[test]
fn who_leaves_while_others_hear_or_as_the_last_has_nothing_left_to_do() {
    let fleet = Fleet::found(2);
    let heard = fleet[1].cli(&["leave", "--json"]).exits(0).json();
    assert_eq!((&heard["told"], &heard["notice"]), (&json!(["pve-1"]), &Value::Null));
    until("it is gone", SOON, || fleet[0].state_of("pve-2"), |state| state != "alive");
    let last = fleet[0].cli(&["leave", "--force", "--json"]).exits(0).json();
    assert_eq!((&last["told"], &last["notice"]), (&json!([]), &Value::Null));
}

/// Neither node listens to the other, and there is no third node that could tell them.
#[test]
fn two_who_put_each_other_out_are_both_told_and_keep_what_they_have() {
    let mut fleet = with_a_seed_that_was_put_out();
    fleet[1].cli(&["remove", "pve-1"]).exits(0);
    fleet[0].restart();
    fleet[0].set("a/b", json!({"x": 1}));
    fleet[1].set("a/b", json!({"x": 2}));

    for (agent, other) in [(&fleet[0], "pve-2"), (&fleet[1], "pve-1")] {
        let said = until(
            "each is told",
            TOLD_WITHIN,
            || status(agent)["notice"].to_string(),
            |notice| notice.contains("hold this node to be removed"),
        );
        assert!(said.contains(other) && said.contains("reset --identity"), "{said}");
        assert!(events(agent).contains("contested"));
    }

    assert_eq!(fleet[0].fields("a/b"), json!({"x": 1}));
    assert_eq!(fleet[1].fields("a/b"), json!({"x": 2}));
}

/// A third member that hears of both removals settles them, in the same way for all.
#[test]
fn of_two_who_put_each_other_out_those_are_out_of_whom_the_others_heard() {
    let mut fleet = Fleet::found(4);
    fleet.kill(&[1, 3]);
    fleet[0].cli(&["remove", "pve-2"]).exits(0);
    let state = || fleet[2].state_of("pve-2");
    until("the third has heard", LATER, state, |state| state == "removed");
    fleet.kill(&[0, 2]);
    fleet[1].restart();
    fleet[3].restart();
    // The second node may not have met the fourth yet, so it is forced.
    fleet[1].cli(&["remove", "pve-1", "--force"]).exits(0);
    let state = || fleet[3].state_of("pve-1");
    until("the fourth has heard", LATER, state, |state| state == "removed");

    fleet[0].restart();
    fleet[2].restart();

    for (agent, by) in [(&fleet[0], "pve-2"), (&fleet[1], "pve-1")] {
        let told = until(
            "each is out, and told",
            LATER,
            || status(agent),
            |status| status["node"]["state"] == "removed",
        );
        assert!(told["notice"]["message"].as_str().is_some_and(|m| m.contains(by)), "{told}");
    }
    for name in ["pve-1", "pve-2"] {
        for agent in [&fleet[2], &fleet[3]] {
            until("both are out", LATER, || agent.state_of(name), |state| state == "removed");
        }
    }
}

/// Each side had two nodes, so that no node was alone, and once none of the four was ever told.
#[test]
fn of_two_groups_that_put_each_other_out_every_node_is_told_by_whom_and_what_to_do() {
    let mut fleet = Fleet::found(4);
    let put_out = |fleet: &Fleet, by: usize, other: usize, out: [&str; 2]| {
        for name in out {
            fleet[by].cli(&["remove", name]).exits(0);
            let state = || fleet[other].state_of(name);
            until("its own side has heard", LATER, state, |state| state == "removed");
        }
    };
    fleet.kill(&[1, 3]);
    put_out(&fleet, 0, 2, ["pve-2", "pve-4"]);
    fleet.kill(&[0, 2]);
    fleet[1].restart();
    fleet[3].restart();
    // A node that reaches less than half of the members removes nobody unless it is forced to.
    let mate = || fleet[1].state_of("pve-4");
    until("they meet", LATER, mate, |state| state == "alive");
    put_out(&fleet, 1, 3, ["pve-1", "pve-3"]);

    fleet[0].restart();
    fleet[2].restart();

    for (node, own, theirs) in [(0, 1, 2), (2, 1, 2), (1, 2, 1), (3, 2, 1)] {
        let agent = &fleet[node];
        let put_out_here = if own == 1 { ["pve-2", "pve-4"] } else { ["pve-1", "pve-3"] };
        let said = until(
            "each of the four is told",
            TOLD_WITHIN,
            || status(agent)["notices"].to_string(),
            |notices| notices.contains("hold this node to be removed"),
        );
        let (own, theirs) = (format!("pve-{own}"), format!("pve-{theirs}"));
        let words = [
            format!("removed here by root on {own}"),
            format!("as {theirs} did"),
            "reset --identity".into(),
            "new Join Information".into(),
        ];
        for word in words {
            assert!(said.contains(&word), "{word:?} is not in {said}");
        }
        assert!(events(agent).contains("contested"));
        // The node finds out about each of the two that it removed by itself, one after the other.
        let of_both = || {
            let rows = agent.members();
            let notices = status(agent)["notices"].to_string();
            let of_one = |name: &str| {
                let row = rows.iter().find(|row| row["name"] == name).expect("it is listed");
                let is_in_notices = notices.contains(&format!("{name} (removed"));
                (is_in_notices, row.to_string().contains("it goes on"))
            };
            put_out_here.map(of_one)
        };
        let is_told = |both: &[(bool, bool); 2]| {
            both.iter().all(|(notice, row)| notice == row) && both.iter().any(|(_, row)| *row)
        };
        until("rows and notices tell of the same nodes", TOLD_WITHIN, of_both, is_told);
    }
}

/// What the agent says of itself; nothing while it is on its way out.
fn status(agent: &Agent) -> Value {
    agent.client().get("status").unwrap_or_default()
}

/// What the agent says that happened.
fn events(agent: &Agent) -> String {
    agent.cli(&["events"]).exits(0).stdout
}
