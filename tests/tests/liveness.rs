//! Who is alive: what every member sees of every other one, and how soon.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::agent::die_with_parent;
use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet};
use serde_json::Value;

/// How soon a goodbye is seen by all, from the signal on.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How many tries a measured time gets before it counts as too slow: a busy machine only adds to
/// it.
const TRIES: usize = 5;

/// How long a host is frozen, and the longest freeze that still counts on a busy machine.
const FREEZE: Duration = Duration::from_secs(1);
const FREEZE_MAX: Duration = Duration::from_millis(1_050);

/// How soon a kill is seen by all of five nodes, on a machine that does other things too.
const DOWN_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn members_are_listed_alike_on_every_node() {
    let fleet = Fleet::found(3);
    let names = |agent: &Agent| {
        let members = agent.members();
        assert_eq!(members.iter().filter(|member| member["self"] == true).count(), 1);
        let named = |m: &Value| (m["name"].to_string(), m["id"].to_string());
        members.iter().map(named).collect::<Vec<_>>()
    };
    for agent in fleet.iter() {
        assert_eq!(names(agent), names(&fleet[0]));
    }
}

/// A member once had no version until its vitals came, seconds later.
#[test]
fn a_member_has_its_version_from_its_hello_on() {
    let mut fleet = Fleet::found(2);
    let all_direct = |rows: &Vec<Value>| {
        let others = rows.iter().filter(|row| row["self"] == false);
        others.clone().count() == 1 && others.clone().all(|row| row["path"] == "direct")
    };
    for round in 0..TRIES {
        fleet.kill(&[1]);
        fleet[1].restart();
        let look = || fleet[1].members();
        for row in until("the other is reached", LATER, look, all_direct) {
            assert!(row["version"].is_string(), "round {round}: {row}");
        }
    }
}

#[test]
fn a_node_that_says_goodbye_is_gone_on_all_at_once() {
    let mut fleet = Fleet::found(5);
    let (mut best, mut name) = (Duration::MAX, String::new());
    for _ in 0..TRIES {
        let started = Instant::now();
        fleet[2].tell_to_stop();
        let mut stopped = fleet.take(2);
        name = stopped.name().to_owned();
        fleet.all_see(&name, &["down"], SOON);
        best = best.min(started.elapsed());
        let status = stopped.ended();
        assert!(status.success(), "{status}");
        if best <= AT_ONCE {
            break;
        }
        stopped.restart();
        fleet.push(stopped);
        fleet.all_see_all();
    }
    assert!(best <= AT_ONCE, "{best:?}");
    for agent in fleet.iter() {
        let goodbye = format!("{name} stopped: said goodbye");
        assert!(told_of(agent, &name).contains(&goodbye));
    }
}

#[test]
fn a_death_is_told_once_on_every_node_with_what_shows_it() {
    let mut fleet = Fleet::found(4);
    let before: Vec<usize> = fleet.iter().map(|agent| told_of(agent, "pve-1").len()).collect();
    fleet.kill(&[0]);
    drop(fleet.take(0));
    fleet.all_see("pve-1", &["down"], LATER);

    let (mut witnesses, mut asked_others) = (0, 0);
    for (agent, before) in fleet.iter().zip(&before[1..]) {
        let said = told_of(agent, "pve-1").split_off(*before);
        let downs: Vec<_> = said.iter().filter(|said| said.starts_with("pve-1 down: ")).collect();
        assert_eq!(downs.len(), 1, "{said:?}");
        // One member finds the death. The others are told, or find it themselves at the same time.
        let found_by = downs[0].strip_prefix("pve-1 down: found by pve-");
        let saw_it = downs[0].contains("no answer to ");
        assert!(saw_it || found_by.is_some(), "{downs:?}");
        witnesses += usize::from(saw_it);
        asked_others += usize::from(downs[0].contains(", nor through pve-"));
        let shown = agent.members().into_iter().find(|member| member["name"] == "pve-1").unwrap();
        let why = downs[0].strip_prefix("pve-1 down: ").unwrap();
        assert!(shown["message"].as_str().unwrap().starts_with(why), "{shown:#}");
        assert!(agent.log().contains(downs[0].as_str()), "the journal says the same");
    }
    assert!(witnesses > 0, "somebody saw it");
    assert!(asked_others > 0, "and asked the others, too");
}

#[test]
fn a_host_that_is_frozen_for_a_second_is_down_nowhere_and_calls_nobody_down() {
    let fleet = Fleet::found(5);
    let downs = || -> Vec<String> {
        let said = fleet.iter().flat_map(|agent| told_of(agent, ""));
        said.filter(|said| said.contains(" down: ")).collect()
    };
    let mut frozen_for_a_second = 0;
    for round in 0..TRIES {
        let before = downs();
        let started = Instant::now();
        fleet[round % 5].pause();
        thread::sleep(FREEZE);
        fleet[round % 5].resume();
        let frozen = started.elapsed();
        fleet.all_see_all();
        if frozen <= FREEZE_MAX {
            frozen_for_a_second += 1;
            assert_eq!(downs(), before, "after {frozen:?}");
        }
    }
    if frozen_for_a_second == 0 {
        peerage_tests::skip::skipped("this machine is too busy to freeze anything for a second");
    }
}

#[test]
fn a_killed_node_is_down_on_all_of_five_within_five_seconds() {
    let mut fleet = Fleet::found(5);
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let started = Instant::now();
        fleet.kill(&[0]);
        let mut killed = fleet.take(0);
        let name = killed.name().to_owned();
        fleet.all_see(&name, &["down"], LATER);
        best = best.min(started.elapsed());
        for agent in fleet.iter() {
            assert_eq!(agent.status()["members"]["down"], 1, "nobody else is called down");
        }

        killed.restart();

        fleet.push(killed);
        fleet.all_see_all();
        if best <= DOWN_WITHIN {
            break;
        }
    }
    assert!(best <= DOWN_WITHIN, "{best:?}");
}

#[test]
fn a_node_that_hangs_is_down_until_it_goes_on() {
    let mut fleet = Fleet::found(3);
    fleet[1].pause();
    let paused = fleet.take(1);
    fleet.all_see("pve-2", &["down"], LATER);
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

/// What an agent told of a node so far; of all nodes if `name` is empty.
fn told_of(agent: &Agent, name: &str) -> Vec<String> {
    let printed = agent.cli(&["--json", "events"]).exits(0).stdout;
    let events = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events = events.filter(|event| name.is_empty() || event["node"] == name);
    events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}
