//! The socket and the command line as scripts meet them.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{env, fs};

use peerage_tests::client::Events;
use peerage_tests::command::clean;
use peerage_tests::patience::{LATER, SOON};
use peerage_tests::{Agent, Fleet, Ran, binary, command, skipped};
use serde_json::{Value, json};

/// The user and group that are nobody on every Linux system.
const NOBODY: &str = "65534";

#[test]
fn an_agent_that_cannot_be_reached_is_told_with_five() {
    let mut agent = Agent::start("pve-1");
    let socket = agent.socket();
    agent.kill();
    for args in [&["status"][..], &["members"], &["settings", "get", "a/b"], &["create", "x"]] {
        agent.cli(args).exits(5).says(&[socket.to_str().unwrap()]);
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_two() {
    let agent = Agent::start("pve-1");
    for args in [&["frobnicate"][..], &["settings", "set"], &["status", "--what"]] {
        agent.cli(args).exits(2);
    }
}

#[test]
fn the_command_alone_teaches_the_way_in() {
    let alone = Ran::run(&mut command::peerage(), "");
    let said = format!("{}{}", alone.stdout, alone.stderr);
    for word in ["create", "invite", "join"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    let help = Ran::run(command::peerage().arg("--help"), "").exits(0);
    assert!(help.stdout.contains("create") && help.stdout.contains("settings"), "{}", help.stdout);
}

#[test]
fn global_flags_stand_anywhere() {
    let agent = Agent::start("pve-1");
    let socket = agent.socket();
    let socket = socket.to_str().unwrap();
    let orders =
        [["--json", "--socket", socket, "status"], ["status", "--json", "--socket", socket]];
    for order in orders {
        let answer = Ran::run(command::peerage().args(order), "").exits(0).json();
        assert_eq!(answer["node"]["name"], "pve-1");
    }
    let mut by_environment = command::peerage();
    by_environment.env("PEERAGE_SOCKET", socket).args(["status", "--json"]);
    assert_eq!(Ran::run(&mut by_environment, "").exits(0).json()["node"]["name"], "pve-1");
}

#[test]
fn what_the_command_prints_as_json_is_what_the_socket_answers() {
    let fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 1}));
    let pairs = [
        (&["members"][..], "members"),
        (&["settings", "list"], "settings"),
        (&["settings", "history", "a/b"], "history/a/b"),
        (&["settings", "conflicts"], "conflicts"),
        (&["invite", "list"], "invites"),
    ];
    for (args, path) in pairs {
        let printed = fleet[0].cli(&[args, &["--json"]].concat()).exits(0).json();
        let answered = fleet[0].client().get(path).unwrap();
        // Ages and round trips differ from one moment to the next.
        assert_eq!(keys(&printed), keys(&answered), "{path}");
    }
}

#[test]
fn every_error_is_a_code_a_message_and_a_hint() {
    let agent = Agent::start("pve-1");
    let cases = [
        ("GET", "nothing/here", None, 404),
        ("GET", "settings/a/b", None, 409),
        ("POST", "create", Some(json!({"title": "north"})), 400),
        ("POST", "status", Some(json!({})), 405),
        ("POST", "inspect", Some(json!({"token": "hello"})), 400),
    ];
    for (method, path, body, status) in cases {
        let answer = agent.client().ask(method, path, body.as_ref()).unwrap();
        assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
        if path != "settings/a/b" && path != "inspect" {
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
        assert!(answer.body["code"].is_string(), "{method} {path}: {answer:?}");
        assert!(answer.body["message"].is_string(), "{method} {path}: {answer:?}");
        assert!(answer.body.get("hint").is_some(), "{method} {path}: {answer:?}");
    }
}

#[test]
fn who_is_neither_root_nor_in_the_group_looks_but_does_not_touch() {
    let mut agent = Agent::named("pve-1");
    let Some(as_nobody) = nobody(&agent) else {
        return skipped("only root can run a command as another user (setpriv)");
    };
    agent.restart();
    agent.create("north");
    let token = agent.invite(json!({"uses": "any"}));
    agent.set("a/b", json!({"x": 1}));

    as_nobody(&agent, &["status", "--json"]).exits(0);
    assert_eq!(as_nobody(&agent, &["settings", "get", "a/b", "x"]).exits(0).stdout, "1\n");
    for args in [
        &["settings", "set", "a/b", "x=2"][..],
        &["settings", "unset", "a/b"],
        &["invite"],
        &["leave"],
        &["remove", "pve-1"],
        &["create", "south"],
        &["join", &token, "--yes"],
        &["meet", &token],
    ] {
        as_nobody(&agent, args).exits(4);
    }

    assert_eq!(agent.fields("a/b"), json!({"x": 1}));
    let invites = agent.client().get("invites").unwrap();
    assert_eq!(invites.as_array().unwrap().len(), 1, "no secret was handed out: {invites}");
}

/// Such a user was once told to start the agent, which ran.
#[test]
fn who_may_not_reach_the_socket_is_told_so_and_how_it_may() {
    let mut agent = Agent::named("pve-1");
    let Some(as_nobody) = nobody(&agent) else {
        return skipped("only root can run a command as another user (setpriv)");
    };
    agent.restart();
    let socket = agent.socket();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    as_nobody(&agent, &["status"]).exits(0);

    mode(&socket, 0o600);
    let refused = as_nobody(&agent, &["status"]).exits(5);
    refused.says(&["may not speak to the agent", "root (sudo)"]);
    assert!(!refused.stderr.contains("systemctl"), "it runs: {}", refused.stderr);
    mode(&socket, 0o666);

    // The test's binary lies in the home of the first agent, so that the second's home may be
    // closed.
    let other = Agent::start("pve-2");
    let folder = other.socket().parent().unwrap().to_owned();
    mode(&folder, 0o700);
    let refused = as_nobody(&other, &["status"]).exits(5);
    refused.says(&["may not enter", folder.to_str().unwrap(), "root (sudo)"]);
    assert!(!refused.stderr.contains("systemctl"), "it runs: {}", refused.stderr);
}

/// The command once said that there were no agent's data.
#[test]
fn who_may_not_look_into_a_data_folder_is_not_told_that_it_is_empty() {
    let mut agent = Agent::named("pve-1");
    let Some(as_nobody) = nobody(&agent) else {
        return skipped("only root can run a command as another user (setpriv)");
    };
    agent.restart();
    agent.stop();
    let data = agent.data().to_str().unwrap().to_owned();
    let reset =
        |folder: &str| as_nobody(&agent, &["reset", "--identity", "--yes", "--data-dir", folder]);
    reset(&data).exits(4).says(&["may not look into", &data, "root"]);
    reset(&format!("{data}-2")).exits(3).says(&["there is no folder", "peerage config show"]);
    let empty = agent.file("empty");
    fs::create_dir(&empty).unwrap();
    reset(empty.to_str().unwrap()).exits(3).says(&["no agent's data"]);
}

#[test]
fn a_socket_whose_path_is_too_long_is_told_by_its_length_to_the_agent_and_to_the_command() {
    let long = format!("/tmp/{}.sock", "x".repeat(110));
    let told = ["120 bytes long", "107 at most", "--socket"];
    let home = tempfile::tempdir().unwrap();
    let mut agent = command::peerage();
    agent.args(["agent", "--listen", "127.0.0.1:0", "--socket", &long, "--data-dir"]);
    Ran::run(agent.arg(home.path()), "").exits(2).says(&told);
    let mut command = command::peerage();
    Ran::run(command.args(["--socket", &long, "status"]), "").exits(5).says(&told);
    let mut command = command::peerage();
    Ran::run(command.env("PEERAGE_SOCKET", &long).arg("status"), "").exits(5).says(&told);
}

#[test]
fn the_key_and_the_data_are_for_the_agent_alone() {
    let agent = Agent::start("pve-1");
    agent.create("north");
    agent.set("a/b", json!({"secret": "x"}));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(agent.data()), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(agent.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} is open to others", path.display());
        files += 1;
    }
    assert!(files > 0, "the data lie somewhere else");
    assert_eq!(mode(&agent.socket()), 0o666, "rights are checked per operation");
}

#[test]
fn events_tell_what_happens_as_it_happens() {
    let mut fleet = Fleet::start(3);
    fleet[0].create("north");
    let mut events = fleet[0].events("events?follow=true");
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet.join_all(&token);
    fleet.all_see_all();
    tells(&mut events, "pve-2");
    fleet.kill(&[2]);
    let dead = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    let down = tells(&mut events, &format!("{} down: ", dead.name()));
    assert_eq!((&down["kind"], &down["node"]), (&json!("down"), &json!(dead.name())));
}

#[test]
fn events_end_where_they_are_not_followed() {
    let fleet = Fleet::found(2);
    let printed = fleet[0].cli(&["events"]).exits(0).stdout;
    assert!(printed.contains("pve-2"), "{printed}");
}

#[test]
fn the_first_start_tells_where_its_settings_come_from() {
    let agent = Agent::start("pve-1");
    let example = binary::workspace().join("deploy/peerage.toml");
    let example = example.to_str().unwrap();
    let shown = agent.cli(&["config", "show", "--config", example]).exits(0).stdout;
    for key in ["data_dir", "socket", "listen"] {
        assert!(shown.contains(key), "{key:?} is not in {shown}");
    }
    let file = agent.file("wrong.toml");
    fs::write(&file, "lisen = \"[::]:4747\"\n").unwrap();
    let wrong = agent.cli(&["config", "show", "--config", file.to_str().unwrap()]);
    assert_ne!(wrong.code, 0);
    wrong.says(&["lisen"]);
}

/// Reads on until an event speaks of this.
#[track_caller]
fn tells(events: &mut Events, word: &str) -> Value {
    let mut others = Vec::new();
    while let Some(event) = events.next(SOON) {
        if event.data.to_string().contains(word) {
            return event.data;
        }
        others.push(event.data);
    }
    panic!("no event speaks of {word:?}: {others:#?}")
}

/// The names of the members of the first object in a list.
fn keys(list: &Value) -> Vec<String> {
    let first = list.get(0).and_then(Value::as_object);
    first.map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

/// How to run the command line as nobody; `None` where that cannot be done.
fn nobody(agent: &Agent) -> Option<impl Fn(&Agent, &[&str]) -> Ran + use<>> {
    // Nobody must reach the socket and the binary, whose folders may be closed to others.
    let binary = agent.file("peerage");
    fs::copy(binary::peerage(), &binary).ok()?;
    let home = binary.parent()?;
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).ok()?;
    let setpriv = move |program: &std::path::Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
        command.env("HOME", env::temp_dir());
        clean(&mut command);
        command
    };
    let works = setpriv("true".as_ref()).output().is_ok_and(|output| output.status.success());
    works.then_some(move |agent: &Agent, args: &[&str]| {
        let mut command = setpriv(&binary);
        Ran::run(command.arg("--socket").arg(agent.socket()).args(args), "")
    })
}
