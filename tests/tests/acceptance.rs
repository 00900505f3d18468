//! Two members that did not hear each other admit more nodes than an invitation allows: all members
//! are told of the surplus node, and it lets nobody in until somebody accepts it.

use peerage_tests::patience::{LATER, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// `pve-1` and `pve-2` have founded a Data Center. An invitation for one node let `pve-3` in at
/// `pve-1` while `pve-2` was away, and then `pve-4` at `pve-2` while `pve-1` and `pve-3` were away.
/// Now all four run. The returned token is by `pve-4`, which made it before it could know that it
/// is one too many.
fn with_one_too_many() -> (Fleet, String) {
    let mut fleet = Fleet::found(2);
    let token = fleet[0].invite(json!({"uses": 1}));
    fleet.kill(&[1]);
    let mut third = Agent::start("pve-3");
    third.join(&token).expect("it is the first to come");
    third.kill();
    fleet.kill(&[0]);
    fleet[1].restart();
    let fourth = Agent::start("pve-4");
    fourth.join(&token).expect("the second has not heard of the first to come");
    // The token of `pve-4` must name `pve-2`, too, which has to refuse it as `pve-4` itself does.
    until("it sees the second", LATER, || fourth.state_of("pve-2"), |state| state == "alive");
    let of_fourth = fourth.invite(json!({"uses": "any"}));
    fleet[0].restart();
    third.restart();
    fleet.push(third);
    fleet.push(fourth);
    fleet.all_see_all();
    (fleet, of_fourth)
}

#[test]
fn who_came_beyond_the_uses_is_told_everywhere_and_lets_nobody_in_until_it_is_accepted() {
    let (mut fleet, _) = with_one_too_many();
    for agent in fleet.iter() {
        let row = until("it is flagged", LATER, || row(agent, "pve-4"), |r| r["accepted"] == false);
        let why = row["unaccepted"].as_str().unwrap_or_default();
        assert!(why.contains("admits 1 node, and pve-3 came by it before"), "{row}");
        let message = row["message"].as_str().unwrap_or_default();
        assert!(message.contains("peerage members accept pve-4"), "{row}");
        for other in ["pve-1", "pve-2", "pve-3"] {
            assert_eq!(self::row(agent, other)["accepted"], true);
        }
        let told = || agent.cli(&["events"]).exits(0).stdout;
        // `pve-4` may have known this before it could tell of it as an event.
        if agent.name() != "pve-4" {
            until("it is an event", LATER, told, |told| told.contains("unaccepted"));
        }
    }
    let notices = fleet[3].status()["notices"].to_string();
    assert!(notices.contains("peerage members accept pve-4"), "{notices}");

    fleet[3].cli(&["invite"]).exits(REFUSED).says(&["pve-3 came by it before", "accept pve-4"]);
    fleet[3].cli(&["members", "accept", "pve-4"]).exits(REFUSED).says(&["not accepted itself"]);
    fleet[2].cli(&["members", "accept", "pve-9"]).exits(3);

    fleet[2].cli(&["members", "accept", "pve-4"]).exits(0).says(&["pve-4 is accepted"]);

    for agent in fleet.iter() {
        until("it is whole", LATER, || row(agent, "pve-4"), |row| row["accepted"] == true);
        let told = || agent.cli(&["events"]).exits(0).stdout;
        until("it is told", LATER, told, |told| told.contains("pve-4 was accepted: root on pve-3"));
    }
    let notices = || fleet[3].status()["notices"].to_string();
    until("nothing is left to do", LATER, notices, |n| !n.contains("members accept"));
    fleet[1].cli(&["members", "accept", "pve-4"]).exits(0).says(&["accepted already"]);
    let fifth = Agent::start("pve-5");
    fifth.join(&fleet[3].invite(json!({}))).expect("it invites like any other now");
    fleet.push(fifth);
    fleet.all_see_all();
    fleet[0].cli(&["members"]).exits(0);
}

/// `pve-4` had made the invitation before it could know that it is one too many.
#[test]
fn an_invitation_by_one_that_came_beyond_holds_again_once_it_is_accepted() {
    let (fleet, of_fourth) = with_one_too_many();
    until("it is flagged", LATER, || row(&fleet[3], "pve-4"), |row| row["accepted"] == false);
    let fifth = Agent::start("pve-5");

    let refused = fifth.cli(&["join", &of_fourth, "--yes"]);

    refused.exits(REFUSED).says(&["pve-4", "members accept pve-4"]);
    assert_eq!(fifth.status()["datacenter"], Value::Null);
    fleet[0].cli(&["members", "accept", "pve-4"]).exits(0);
    until("it hears of it", LATER, || row(&fleet[3], "pve-4"), |row| row["accepted"] == true);
    fifth.join(&of_fourth).expect("the same string holds");
}

/// What an agent shows of a member.
fn row(agent: &Agent, name: &str) -> Value {
    agent.members().into_iter().find(|row| row["name"] == name).unwrap_or_default()
}
