//! Who is alive: what every member sees of every other one, and how soon.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::Fleet;
use peerage_tests::agent::die_with_parent;
use peerage_tests::patience::{LATER, SOON};
use serde_json::Value;

/// How soon a graceful stop is seen: well below any timeout of the mesh.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How soon a kill is seen by all of five nodes.
const DOWN_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn members_are_listed_alike_on_every_node() {
    let fleet = Fleet::found(3);
    let names = |agent: &peerage_tests::Agent| {
        let members = agent.members();
        assert_eq!(members.iter().filter(|member| member["self"] == true).count(), 1);
        let named = |m: &Value| (m["name"].to_string(), m["id"].to_string());
        members.iter().map(named).collect::<Vec<_>>()
    };
    for agent in fleet.iter() {
        assert_eq!(names(agent), names(&fleet[0]));
        assert_eq!(agent.status()["members"]["alive"], 3);
    }
}

#[test]
fn a_node_that_stops_gracefully_is_seen_at_once() {
    let mut fleet = Fleet::found(3);
    let started = Instant::now();
    let status = fleet[2].stop();
    assert!(status.success(), "{status}");
    let _stopped = fleet.take(2);
    fleet.all_see("pve-3", &["down", "left"], AT_ONCE);
    eprintln!("a graceful stop was seen by all after {:?}", started.elapsed());
}

#[test]
fn a_killed_node_is_down_on_all_of_five_within_five_seconds() {
    let mut fleet = Fleet::found(5);
    let started = Instant::now();
    fleet.kill(&[0]);
    let mut founder = fleet.take(0);
    fleet.all_see("pve-1", &["down"], DOWN_WITHIN);
    eprintln!("a kill was seen by all after {:?}", started.elapsed());
    for agent in fleet.iter() {
        assert_eq!(agent.status()["members"]["alive"], 4, "nobody else is called down");
    }

    founder.restart();

    fleet.push(founder);
    fleet.all_see_all();
}

#[test]
fn a_node_that_hangs_is_down_until_it_goes_on() {
    let mut fleet = Fleet::found(3);
    fleet[1].pause();
    let paused = fleet.take(1);
    fleet.all_see("pve-2", &["down"], SOON);
    paused.resume();
    fleet.push(paused);
    fleet.all_see_all();
}

#[test]
fn watching_the_members_shows_one_go_down() {
    let mut fleet = Fleet::found(2);
    let mut command = fleet[0].cli_command(&["members", "--watch"]);
    die_with_parent(&mut command);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(watch.stdout.take().unwrap());
    let (lines, seen) = mpsc::channel();
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| lines.send(l)));
    let wait_for = |state: &str| {
        let deadline = Instant::now() + LATER;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match seen.recv_timeout(left) {
                Ok(line) if line.contains("pve-2") && line.contains(state) => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        panic!("pve-2 was not shown {state}");
    };
    wait_for("alive");

    fleet.kill(&[1]);

    wait_for("down");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
