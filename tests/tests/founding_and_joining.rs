//! How a Data Center comes into being, and how nodes come into it.

use std::fs;
use std::thread;
use std::time::Duration;

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// How often the joining of a node is cut short by a power cut.
const CRASHES: u64 = 8;

#[test]
fn a_node_founds_a_data_center_and_is_its_first_member() {
    let node = Agent::start("pve-1");
    assert_eq!(node.status()["datacenter"], Value::Null);

    node.cli(&["create", "north"]).exits(0);

    assert_eq!(node.status()["datacenter"]["name"], "north");
    let members = node.members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0]["name"], "pve-1");
    assert_eq!(members[0]["self"], true);
    assert_eq!(members[0]["state"], "alive");
    node.cli(&["create", "south"]).exits(4).says(&["north"]);
    assert_eq!(node.status()["datacenter"]["name"], "north");
}

#[test]
fn a_standalone_node_says_to_create_or_join_first() {
    let node = Agent::start("pve-1");
    node.cli(&["settings", "set", "storage/nas1", "path=/srv"]).exits(4).says(&["create", "join"]);
    node.cli(&["invite"]).exits(4).says(&["create", "join"]);
    assert_eq!(node.status()["datacenter"], Value::Null);
}

#[test]
fn an_invitation_is_alone_on_stdout_and_the_whole_command_is_on_stderr() {
    let node = Agent::start("pve-1");
    node.create("north");

    let invite = node.cli(&["invite", "--ttl", "1h"]).exits(0);

    let token = invite.stdout.trim();
    assert!(token.starts_with("peerage1-") && !token.contains(char::is_whitespace), "{token:?}");
    invite.says(&["peerage join", token]);
    let listed = node.cli(&["--json", "invite", "list"]).exits(0);
    assert_eq!(listed.json()[0]["uses"], 1);
    assert_eq!(listed.json()[0]["state"], "open");
    assert!(!listed.stdout.contains(token), "the list shows a secret again");
}

#[test]
fn a_token_says_what_it_is_without_being_used() {
    let node = Agent::start("pve-1");
    node.create("north");
    let token = node.invite(json!({"uses": 1, "node_name": "pve-*"}));
    let other = Agent::start("pve-2");

    let said = other.cli(&["inspect", &token, "--json"]).exits(0).json();

    assert_eq!(said["datacenter"]["name"], "north");
    assert_eq!(said["datacenter"]["id"], node.status()["datacenter"]["id"]);
    assert_eq!(said["seeds"][0]["id"], node.status()["node"]["id"]);
    assert_eq!((&said["uses"], &said["valid"]), (&json!(1), &json!(true)));
    assert_eq!(said["node_name"], "pve-*");
    assert_eq!(node.client().get("invites").unwrap()[0]["used"], 0);
}

#[test]
fn a_node_joins_with_the_token_as_an_argument() {
    joins(|joiner, token| {
        joiner.cli(&["join", token, "--yes"]).exits(0);
    });
}

#[test]
fn a_node_joins_with_the_token_on_standard_input() {
    joins(|joiner, token| {
        joiner.cli_with(&["join", "-"], &format!("{token}\n")).exits(0);
    });
}

#[test]
fn a_node_joins_with_the_token_in_a_file() {
    joins(|joiner, token| {
        let file = joiner.file("token");
        fs::write(&file, format!("{token}\n")).unwrap();
        joiner.cli(&["join", "--file", file.to_str().unwrap()]).exits(0);
    });
}

#[test]
fn a_node_joins_unattended_by_a_flag() {
    joins_at_start(|joiner, token| joiner.args(&["--join", token]));
}

#[test]
fn a_node_joins_unattended_by_a_file() {
    joins_at_start(|joiner, token| {
        let file = joiner.file("token");
        fs::write(&file, token).unwrap();
        joiner.args(&["--join-file", file.to_str().unwrap()])
    });
}

/// This was seen on a host that cloud-init sets up: the file was there before its content. The
/// agent read nothing, reported a refusal, and never looked again.
#[test]
fn a_join_file_that_is_empty_half_written_or_refused_is_waited_for_by_name() {
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let (client, token) = (fleet[0].client(), fleet[0].invite(json!({"uses": "any"})));
    let revoked = client.post("invites", &json!({})).unwrap();
    client.delete(&format!("invites/{}", revoked["id"].as_str().unwrap())).unwrap();
    let mut joiner = Agent::named("pve-2");
    let file = joiner.file("token");
    joiner = joiner.args(&["--join-file", file.to_str().unwrap()]);
    let path = file.to_str().unwrap();
    let waits_for = |joiner: &Agent, word: &str| {
        let shown = || joiner.status()["notices"][0].clone();
        let notice = until(&format!("{word:?} is a notice"), SOON, shown, |notice| {
            notice["message"].as_str().is_some_and(|message| message.contains(word))
        });
        assert_eq!(notice["kind"], "joins");
        assert!(notice["message"].as_str().unwrap().contains(path), "{notice}");
        assert!(notice["hint"].as_str().unwrap().contains(path), "{notice}");
        let events = joiner.cli(&["events"]).exits(0).stdout;
        assert!(events.contains(word), "{events}");
        assert!(joiner.status()["datacenter"].is_null());
    };

    joiner.restart();
    waits_for(&joiner, "No such file");
    fs::write(&file, "").unwrap();
    waits_for(&joiner, "it is empty");
    fs::write(&file, &token[..token.len() / 2]).unwrap();
    waits_for(&joiner, "is damaged");
    fs::write(&file, revoked["token"].as_str().unwrap()).unwrap();
    waits_for(&joiner, "revoked");

    let (head, tail) = token.split_at(70);
    fs::write(&file, format!("\u{feff}# for pve-2\r\n{head}\r\n{tail}\r\n")).unwrap();
    fleet.push(joiner);
    fleet.all_see_all();
    assert_eq!(fleet[1].status()["notices"], json!([]));
}

#[test]
fn a_node_joins_unattended_by_the_environment() {
    joins_at_start(|joiner, token| joiner.env("PEERAGE_JOIN", token));
}

#[test]
fn a_node_joins_under_the_name_that_it_asks_for() {
    let fleet = Fleet::start(2);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));

    fleet[1].cli(&["join", &token, "--name", "web-7", "--yes"]).exits(0);

    eventually("the founder lists the new name", SOON, || match fleet[0].state_of("web-7") {
        state if state == "alive" => Ok(()),
        state => Err(state),
    });
    assert_eq!(fleet[1].status()["node"]["name"], "web-7");
}

/// The joiner's log once said of each join that a peer was not let in, "closed by peer: 0": the
/// seed had dialled the joiner back, and hung up.
#[test]
fn a_join_that_goes_well_is_no_refusal_in_any_log() {
    let fleet = Fleet::found(6);
    for agent in fleet.iter() {
        assert!(!agent.log().contains("not let in"), "{}", agent.log());
    }
}

#[test]
fn any_member_invites_and_admits_while_the_founder_is_gone() {
    let mut fleet = Fleet::found(2);
    fleet.kill(&[0]);
    let token = fleet[1].invite(json!({"uses": "any"}));
    let third = Agent::start("pve-3");

    third.join(&token).expect("the second node admits it");

    assert_eq!(third.status()["datacenter"], fleet[1].status()["datacenter"]);
    fleet[0].restart();
    fleet.push(third);
    fleet.all_see_all();
}

#[test]
fn a_token_of_the_founder_admits_by_another_seed_that_it_names() {
    let mut fleet = Fleet::found(3);
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet.kill(&[0]);
    let fourth = Agent::start("pve-4");

    let joined = fourth.join(&token).expect("another seed admits it");

    assert!(["pve-2", "pve-3"].contains(&joined["seed"].as_str().unwrap()), "{joined}");
}

#[test]
fn a_node_sees_all_settings_once_it_has_joined() {
    let fleet = Fleet::start(2);
    fleet[0].create("north");
    for i in 0..50 {
        fleet[0].set(&format!("docs/{i:02}"), json!({"text": "x".repeat(200), "i": i}));
    }

    fleet[1].join(&fleet[0].invite(json!({}))).unwrap();

    eventually("the joiner holds what the founder holds", SOON, || {
        let (mine, theirs) = (fleet[0].documents(), fleet[1].documents());
        if mine == theirs { Ok(()) } else { Err(theirs) }
    });
}

#[test]
fn a_second_join_completes_what_a_crash_cut_short() {
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": CRASHES}));
    for round in 0..CRASHES {
        let mut joiner = Agent::start(&format!("pve-{}", round + 2));
        let id = joiner.status()["node"]["id"].clone();
        thread::scope(|scope| {
            let (client, token) = (joiner.client(), &token);
            let answer = scope.spawn(move || client.post("join", &json!({ "token": token })));
            // Joining takes some milliseconds: each round cuts a bit later into it.
            thread::sleep(Duration::from_millis(round * 3));
            joiner.kill();
            let _ = answer.join().expect("the client does not panic");
        });

        joiner.restart();
        // Where the crash came after the last step there is nothing left to do.
        if joiner.status()["datacenter"].is_null() {
            joiner.join(&token).unwrap_or_else(|failure| panic!("round {round}: {failure}"));
        }

        assert_eq!(joiner.status()["node"]["id"], id, "it came back as another node");
        fleet.push(joiner);
    }
    fleet.all_see_all();
    assert_eq!(fleet[0].members().len(), fleet.len(), "each node was admitted once");
    assert_eq!(fleet[0].client().get("invites").unwrap()[0]["used"], CRASHES);
}

/// Lets a second node join by this way, and looks at both.
fn joins(way: impl FnOnce(&Agent, &str)) {
    let fleet = Fleet::start(2);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet[0].set("storage/nas1", json!({"path": "/srv"}));

    way(&fleet[1], &token);

    assert_eq!(fleet[1].status()["datacenter"], fleet[0].status()["datacenter"]);
    fleet.all_see_all();
    fleet.all_read("storage/nas1", &json!({"path": "/srv"}));
}

/// Starts a second node that is told to join at its start, and starts it twice: a member ignores
/// the token.
fn joins_at_start(told: impl FnOnce(Agent, &str) -> Agent) {
    let mut fleet = Fleet::start(1);
    fleet[0].create("north");
    let token = fleet[0].invite(json!({"uses": 1}));
    let mut joiner = told(Agent::named("pve-2"), &token);

    joiner.restart();

    let joined =
        eventually("it has joined", LATER, || match joiner.status()["datacenter"].take() {
            Value::Null => Err(joiner.log()),
            datacenter => Ok(datacenter),
        });
    assert_eq!(joined, fleet[0].status()["datacenter"]);
    joiner.kill();
    joiner.restart();
    fleet.push(joiner);
    fleet.all_see_all();
}
