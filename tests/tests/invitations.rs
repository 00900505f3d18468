//! Invitations as strings that lie about: in a shell's history, in the list of processes.
//!
//! `peerage join TOKEN` shows the whole token to every user of the host, and it stays in the shell's
//! history; so did `peerage agent --join TOKEN`, for as long as the agent ran. A token was good for
//! any number of hosts for a day.

use std::fs;

use peerage_tests::patience::LATER;
use peerage_tests::{Agent, Fleet, eventually};
use serde_json::{Value, json};

#[test]
fn an_invitation_is_for_one_use_unless_more_are_asked_for() {
    let agent = Agent::start("pve-1");
    agent.create("north");
    let uses = |args: &[&str]| {
        let made = agent.cli(&[&["--json", "invite"], args].concat()).exits(0).json();
        uses_of(&agent, &made)
    };
    assert_eq!(uses(&[]), json!(1));
    assert_eq!(uses(&["--uses", "3"]), json!(3));
    assert_eq!(uses(&["--uses", "any"]), json!(null));
    let posted = |body: Value| {
        let made = agent.client().post("invites", &body).unwrap();
        uses_of(&agent, &made)
    };
    assert_eq!(posted(json!({})), json!(1));
    assert_eq!(posted(json!({"uses": null})), json!(1));
    assert_eq!(posted(json!({"uses": 2})), json!(2));
    assert_eq!(posted(json!({"uses": "any"})), json!(null));
    for wrong in [json!(0), json!(-1), json!("many"), json!(1.5), json!([])] {
        let answer = agent.client().ask("POST", "invites", Some(&json!({"uses": wrong}))).unwrap();
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
        assert!(answer.body["message"].as_str().unwrap().contains("any"), "{wrong}: {answer:?}");
    }
}

#[test]
fn a_token_that_was_used_is_dead() {
    let fleet = Fleet::start(3);
    fleet[0].create("north");
    let token = fleet[0].cli(&["invite"]).exits(0).stdout;
    fleet[1].cli(&["join", token.trim(), "--yes"]).exits(0);
    fleet[2].cli(&["join", token.trim(), "--yes"]).exits(4).says(&["used", "peerage invite"]);
}

/// A token was once 505 characters long, and its QR code was wider than a terminal.
#[test]
fn a_camera_reads_the_token_off_a_terminal() {
    let fleet = Fleet::start(2);
    fleet[0].create("north");

    let shown = fleet[0].cli(&["invite", "--qr"]).exits(0);

    let token = shown.stdout.trim();
    assert!(token.len() <= 300, "{} characters: {token}", token.len());
    let lines: Vec<&str> = shown.stderr.lines().filter(|line| line.starts_with(COLOURS)).collect();
    let columns = columns(lines[0]);
    assert!(columns <= 80, "{columns} columns");
    assert_eq!(photographed(&lines), token);
    fleet[1].join(token).expect("it opens the door");
    let json = fleet[0].cli(&["--json", "invite", "--qr"]).exits(0);
    let lines: Vec<&str> = json.stderr.lines().filter(|line| line.starts_with(COLOURS)).collect();
    assert_eq!(photographed(&lines), json.json()["token"]);
    fleet[0].cli(&["invite", "--qr", "list"]).exits(2);
}

#[test]
fn a_token_of_many_uses_is_to_be_pasted_where_no_other_user_sees_it() {
    let fleet = Fleet::start(2);
    fleet[0].create("north");
    let once = fleet[0].cli(&["invite"]).exits(0);
    once.says(&[&format!("peerage join {}", once.stdout.trim())]);
    for uses in ["2", "any"] {
        let many = fleet[0].cli(&["invite", "--uses", uses]).exits(0);
        many.says(&["peerage join", "paste"]);
        assert!(!many.stderr.contains("peerage1-"), "{}", many.stderr);
        let told = fleet[0].cli(&["invite", "--uses", uses, "--json"]).exits(0).json();
        assert_eq!(told["command"], "peerage join");
    }
    for command in ["join", "meet", "inspect"] {
        // There is no terminal on which the command could ask.
        fleet[1].cli(&[command]).exits(2).says(&["Join Information", "stdin"]);
    }
    let token = fleet[0].cli(&["invite", "--uses", "any"]).exits(0).stdout;
    fleet[1].cli_with(&["join", "-"], &token).exits(0).says(&["joined north"]);
}

#[test]
fn an_agent_forgets_the_token_that_it_was_started_with() {
    let founder = Agent::start("pve-1");
    founder.create("north");
    for (name, form) in [("pve-2", "--join TOKEN"), ("pve-3", "--join=TOKEN")] {
        let token = founder.invite(json!({}));
        let form = form.replace("TOKEN", &token);
        let words: Vec<&str> = form.split(' ').collect();
        let mut agent = Agent::named(name).args(&words);
        agent.restart();
        eventually("it joins", LATER, || match agent.state_of(name).as_str() {
            "alive" => Ok(()),
            other => Err(other.to_owned()),
        });
        for file in ["cmdline", "environ"] {
            let told = fs::read(format!("/proc/{}/{file}", agent.pid())).unwrap();
            let told = String::from_utf8_lossy(&told).into_owned();
            assert!(!told.contains("peerage1-"), "{file}: {told}");
        }
        // The agent starts itself anew under another identity, with the same arguments.
        agent.cli(&["leave", "--yes"]).exits(0);
        let was = agent.status()["node"]["id"].clone();
        agent.cli(&["reset", "--identity", "--yes"]).exits(0);
        eventually("it answers as another", LATER, || match agent.client().get("status") {
            Ok(status) if status["node"]["id"] != was => Ok(()),
            other => Err(other.map_err(|failure| failure.to_string())),
        });
    }
}

/// The uses of an invitation that was just made, as the list tells them.
fn uses_of(agent: &Agent, made: &Value) -> Value {
    let invites = agent.client().get("invites").unwrap();
    let invites = invites.as_array().unwrap();
    let own = invites.iter().find(|invite| invite["id"] == made["id"]).unwrap();
    own["uses"].clone()
}

/// What opens a line of a QR code: black on white.
const COLOURS: &str = "\x1b[30;107m";

/// What the lines of a QR code say to a camera, which sees half a character as a square of light.
#[track_caller]
fn photographed(lines: &[&str]) -> String {
    /// Pixels on each side of a square.
    const SIDE: usize = 5;
    let bare = |line: &&str| {
        let inner = line.strip_prefix(COLOURS).and_then(|line| line.strip_suffix("\x1b[0m"));
        inner.expect("a line has its colours and gives them back").chars().collect::<Vec<_>>()
    };
    let lines: Vec<Vec<char>> = lines.iter().map(bare).collect();
    let is_dark = |x: usize, y: usize| match lines[y / 2][x] {
        '█' => true,
        '▀' => y.is_multiple_of(2),
        '▄' => !y.is_multiple_of(2),
        ' ' => false,
        other => panic!("{other:?} in a QR code"),
    };
    let (width, height) = (lines[0].len() * SIDE, lines.len() * 2 * SIDE);
    let light = |x: usize, y: usize| if is_dark(x / SIDE, y / SIDE) { 20 } else { 230 };
    let mut photograph = rqrr::PreparedImage::prepare_from_greyscale(width, height, light);
    let codes = photograph.detect_grids();
    assert_eq!(codes.len(), 1, "one code is seen");
    codes[0].decode().expect("it reads").1
}

/// How many columns of a terminal a line of a QR code takes.
fn columns(line: &str) -> usize {
    line.trim_start_matches(COLOURS).trim_end_matches("\x1b[0m").chars().count()
}
