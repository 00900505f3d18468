//! Every reason for which a node is not admitted: its cause is told, and nothing has changed.

use peerage_tests::faketime::{self, MISSING};
use peerage_tests::patience::{SOON, eventually, until};
use peerage_tests::{Agent, Fleet, Ran, skipped};
use serde_json::{Value, json};

/// The exit code of a command that failed for a reason outside the agent.
const FAILED: i32 = 1;

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

#[test]
fn a_seed_that_does_not_answer_is_told_with_its_address() {
    let mut fleet = pair();
    let token = fleet[0].invite(json!({"uses": "any"}));
    let address = format!("127.0.0.1:{}", fleet[0].port().unwrap());
    fleet.kill(&[0]);

    join(&fleet[1], &token).exits(FAILED).says(&[&address]);

    assert_eq!(fleet[1].status()["datacenter"], Value::Null);
    fleet[0].restart();
    assert_eq!(fleet[0].members().len(), 1);
    join(&fleet[1], &token).exits(0);
}

#[test]
fn an_expired_token_is_refused() {
    let fleet = pair();
    let token = fleet[0].invite(json!({"ttl": "1s"}));
    until(
        "the token has expired",
        SOON,
        || fleet[1].client().post("inspect", &json!({ "token": token })).unwrap()["valid"].clone(),
        |valid| valid == false,
    );
    refused(&fleet, &token, &["expired"]);
}

#[test]
fn a_token_that_is_used_up_is_refused() {
    let mut fleet = pair();
    let token = fleet[0].invite(json!({"uses": 1}));
    let third = Agent::start("pve-3");
    third.join(&token).unwrap();
    fleet.push(third);

    refused(&fleet, &token, &["used up"]);

    assert_eq!(fleet[0].client().get("invites").unwrap()[0]["state"], "used up");
}

#[test]
fn a_revoked_token_is_refused_by_every_member() {
    let mut fleet = Fleet::found(2);
    let invite = fleet[0].client().post("invites", &json!({})).unwrap();
    let (token, id) = (invite["token"].as_str().unwrap(), invite["id"].as_str().unwrap());
    fleet[0].cli(&["invite", "revoke", id]).exits(0);
    eventually("the other member knows", SOON, || {
        let invites = fleet[1].client().get("invites").unwrap();
        let known = invites.as_array().unwrap().iter().any(|invite| invite["state"] == "revoked");
        if known { Ok(()) } else { Err(invites) }
    });
    fleet.kill(&[0]);
    let third = Agent::start("pve-3");

    join(&third, token).exits(REFUSED).says(&["revoked"]);

    assert_eq!(third.status()["datacenter"], Value::Null);
    assert_eq!(fleet[1].members().len(), 2);
}

#[test]
fn a_token_without_its_secret_takes_the_password_and_no_other() {
    let fleet = pair();
    let invite = fleet[0].client().post("invites", &json!({"no_secret": true})).unwrap();
    let (token, password) = (&invite["token"], invite["password"].as_str().unwrap());
    let before = seen(&fleet);
    let post = |wishes: Value| fleet[1].client().post("join", &wishes);

    let without = post(json!({ "token": token })).unwrap_err();
    let other = password.chars().rev().collect::<String>();
    let wrong = post(json!({ "token": token, "password": other })).unwrap_err();

    assert_eq!((without.code(), wrong.code()), ("refused", "refused"));
    without.says(&["without its secret"]);
    wrong.says(&["not the password"]);
    assert_eq!(seen(&fleet), before);
    post(json!({ "token": token, "password": password })).expect("the password opens it");
}

#[test]
fn a_strict_token_admits_by_its_issuers_word_alone() {
    let mut fleet = Fleet::found(2);
    let third = Agent::start("pve-3");
    let token = fleet[0].invite(json!({"strict": true}));
    fleet.kill(&[0]);

    join(&third, &token).exits(FAILED);

    assert_eq!(third.status()["datacenter"], Value::Null);
    assert_eq!(fleet[1].members().len(), 2);
    fleet[0].restart();
    join(&third, &token).exits(0);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let fleet = pair();
    let token = fleet[0].invite(json!({"uses": "any"}));
    let before = seen(&fleet);

    let answer = fleet[1].cli(&["join", &token, "--name", "pve-1", "--yes"]);

    let holder = fleet[0].status()["node"]["id"].as_str().unwrap()[..8].to_owned();
    answer.exits(REFUSED).says(&["pve-1", "taken", &holder]);
    assert_eq!(seen(&fleet), before);
    fleet[1].join(&token).expect("under its own name it gets in");
}

#[test]
fn a_name_outside_the_invitations_pattern_is_refused() {
    let fleet = pair();
    let token = fleet[0].invite(json!({"node_name": "web-*"}));
    refused(&fleet, &token, &["web-*", "pve-2"]);
}

#[test]
fn a_seed_that_is_in_another_data_center_by_now_is_told_with_both_names() {
    let fleet = pair();
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet[0].client().post("leave?force=true", &json!({})).unwrap();
    fleet[0].create("south");
    refused(&fleet, &token, &["north", "south"]);
}

#[test]
fn a_member_does_not_join_again() {
    let fleet = Fleet::found(2);
    let other = Agent::start("oak-1");
    other.create("south");
    let before = seen(&fleet);

    join(&fleet[1], &other.invite(json!({}))).exits(REFUSED).says(&["already", "north"]);
    // Join Information of the node's own Data Center is no news, and admits nobody.
    join(&fleet[1], &fleet[0].invite(json!({}))).exits(0).says(&["already", "met pve-1"]);

    assert_eq!(members(&fleet[1]), before[1]["members"]);
    assert_eq!(other.members().len(), 1);
}

#[test]
fn an_altered_token_is_refused_before_anyone_is_asked() {
    let fleet = pair();
    let token = fleet[0].invite(json!({"uses": "any"}));
    let before = seen(&fleet);
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { 'B' } else { 'A' };
    let changed = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    let cut = &token[..token.len() - 3];

    for wrong in [changed.as_str(), cut, "peerage1-", "hello"] {
        let answer = join(&fleet[1], wrong);
        assert!([2, REFUSED].contains(&answer.code), "{answer:?}");
        assert!(!answer.stderr.trim().is_empty());
    }

    assert_eq!(seen(&fleet), before);
}

#[test]
fn a_node_that_cannot_be_dialled_back_is_refused_with_the_address_to_open() {
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));
    // Nothing listens at this address, which to the seed looks like a firewall on the joiner.
    let closed = Agent::start("closed").port().unwrap();
    let address = format!("127.0.0.1:{closed}");
    let mut joiner = Agent::named("pve-2").args(&["--advertise", &address]);
    joiner.restart();
    fleet.push(joiner);
    let before = seen(&fleet);

    let answer = join(&fleet[1], &token);

    assert!([FAILED, REFUSED].contains(&answer.code), "{answer:?}");
    answer.says(&[&address]);
    assert_eq!(seen(&fleet), before);
}

#[test]
fn a_clock_that_is_two_minutes_off_is_refused() {
    let Some(library) = faketime::library() else { return skipped(MISSING) };
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));
    let mut joiner = Agent::named("pve-2").with_clock(&library);
    joiner.set_clock("+120s");
    joiner.restart();
    fleet.push(joiner);
    refused(&fleet, &token, &["clock"]);
}

#[test]
fn an_unattended_join_that_is_refused_leaves_the_agent_up_and_says_why() {
    let founder = Agent::start("pve-1");
    founder.create("north");
    let token = founder.invite(json!({"node_name": "web-*"}));
    let mut joiner = Agent::named("pve-2").args(&["--join", &token]);

    joiner.restart();

    eventually("its log tells the cause", SOON, || {
        let log = joiner.log();
        if log.contains("web-*") { Ok(()) } else { Err(log) }
    });
    assert_eq!(joiner.status()["datacenter"], Value::Null);
    assert_eq!(founder.members().len(), 1);
}

/// A founder of "north" and a standalone node.
fn pair() -> Fleet {
    let fleet = Fleet::start(2);
    fleet[0].create("north");
    fleet
}

fn join(joiner: &Agent, token: &str) -> Ran {
    joiner.cli(&["join", token, "--yes"])
}

/// The second node is refused for a reason that these words tell, and no node has changed.
#[track_caller]
fn refused(fleet: &Fleet, token: &str, words: &[&str]) {
    let before = seen(fleet);
    join(&fleet[1], token).exits(REFUSED).says(words);
    assert_eq!(seen(fleet), before);
}

/// What a refusal must not change.
fn seen(fleet: &Fleet) -> Vec<Value> {
    let of = |agent: &Agent| {
        let status = agent.status();
        json!({
            "datacenter": status["datacenter"],
            "node": status["node"],
            "digest": status["settings"]["digest"],
            "members": members(agent),
            "used": agent.client().get("invites").ok().map(|invites| invites[0]["used"].clone()),
        })
    };
    fleet.iter().map(of).collect()
}

/// The members' names and ids.
fn members(agent: &Agent) -> Value {
    let members = agent.client().get("members").unwrap_or_else(|_| json!([]));
    members.as_array().unwrap().iter().map(|m| json!([m["name"], m["id"]])).collect()
}
