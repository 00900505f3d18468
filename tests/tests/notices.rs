//! States that need a person: shown on every node, told when they begin and when they end, and in the
//! log once.

use std::fs;

use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

/// How many writes the full disk refuses. Each of them once had its own lines in the log.
const REFUSED_WRITES: usize = 40;

/// How large a file of the agent may grow: larger than its log, and smaller than its journal.
const FILE_BYTES: u64 = 150_000;

/// A full disk once showed nowhere but in the log, with two long lines for each write.
#[test]
fn a_disk_that_takes_nothing_shows_on_all_nodes_and_once_in_the_log() {
    let fleet = Fleet::found(2);
    for n in 0..5 {
        fleet[0].set(&format!("a/b{n}"), json!({ "x": "y".repeat(50_000) }));
    }
    fleet.converged();

    limit(&fleet[0], Resource::Fsize, Some(FILE_BYTES));
    for n in 0..REFUSED_WRITES {
        fleet[0].try_set("a/b", json!({ "x": n })).unwrap_err();
    }
    let notice = until("it shows", SOON, || notice(&fleet[0], "disk"), Value::is_object);
    assert!(notice["message"].as_str().unwrap().contains("journal"), "{notice}");
    assert!(notice["hint"].as_str().unwrap().contains("LimitFSIZE"), "{notice}");
    assert!(notice["times"].as_u64().unwrap() >= REFUSED_WRITES as u64, "{notice}");
    let seen = || row(&fleet[1], "pve-1");
    let told = until("the other one shows it", LATER, seen, |row| row["notices"] != json!([]));
    assert_eq!(told["notices"][0]["kind"], "disk", "{told}");
    assert!(told["message"].as_str().unwrap().starts_with("disk: "), "{told}");
    let shown = fleet[0].cli(&["status"]).exits(0);
    shown.says(&["journal", "LimitFSIZE", "times since"]);

    limit(&fleet[0], Resource::Fsize, None);
    // Nobody writes: the agent finds out by itself.
    until("it is over", LATER, || self::notice(&fleet[0], "disk"), Value::is_null);
    until("the other one sees it", LATER, seen, |row| row["notices"] == json!([]));
    let events = events(&fleet[0], "disk");
    let how: Vec<_> = events.iter().map(|event| event["data"]["notice"].clone()).collect();
    assert_eq!(how, ["begins", "ends"], "{events:?}");
    let log = fleet[0].log();
    let lines = log.lines().filter(|line| line.contains("cannot write")).count();
    assert!((1..=2).contains(&lines), "{lines} lines of it in the log: {log}");
    fleet[0].set("a/b", json!({ "x": 1 }));
}

/// The seed had once admitted the joiner by the time that the joiner's disk was full, so the others
/// had a member that nobody could ever reach.
#[test]
fn who_cannot_keep_what_it_would_get_is_let_in_by_nobody() {
    let mut fleet = Fleet::found(1);
    for n in 0..5 {
        fleet[0].set(&format!("a/b{n}"), json!({ "x": "y".repeat(50_000) }));
    }
    let joiner = Agent::start("pve-2");
    limit(&joiner, Resource::Fsize, Some(FILE_BYTES));
    let token = fleet[0].invite(json!({}));
    let refused = joiner.cli(&["join", &token]).exits(1);
    refused.says(&["this node cannot keep what pve-1 sent", "journal", "LimitFSIZE"]);
    assert_eq!(fleet[0].members().len(), 1, "{:?}", fleet[0].members());
    assert_eq!(joiner.status()["datacenter"], Value::Null);

    limit(&joiner, Resource::Fsize, None);
    joiner.cli(&["join", &token]).exits(0);
    fleet.push(joiner);
    fleet.all_see_all();
    fleet.converged();
}

/// The log once had ten lines a second, and nothing else told of the lack.
#[test]
fn used_up_descriptors_are_told_until_there_are_some_again() {
    let agent = Agent::start("pve-1");
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count() as u64;
    limit(&agent, Resource::Nofile, Some(open + 1));

    let notice = until("it shows", LATER, || notice(&agent, "descriptors"), Value::is_object);
    assert!(notice["message"].as_str().unwrap().contains("file descriptors"), "{notice}");
    // One connection too many is refused, and the log does not fill with it.
    let waiting: Vec<_> = (0..4)
        .filter_map(|_| std::os::unix::net::UnixStream::connect(agent.socket()).ok())
        .collect();
    drop(waiting);
    limit(&agent, Resource::Nofile, Some(open * 10));
    until("it is over", LATER, || self::notice(&agent, "descriptors"), Value::is_null);
    let events = events(&agent, "descriptors");
    assert_eq!(events.len(), 2, "{events:?}");
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains("WARN")).count();
    assert_eq!(lines, 1, "{log}");
}

/// Sets the agent's limit of a resource of the host; `None` takes the limit away.
fn limit(agent: &Agent, of: Resource, current: Option<u64>) {
    let pid = Pid::from_raw(agent.pid().cast_signed()).unwrap();
    let limit = Rlimit { current, maximum: getrlimit(of).maximum };
    prlimit(Some(pid), of, limit).unwrap();
}

fn notice(agent: &Agent, kind: &str) -> Value {
    let status = agent.status();
    let notices = status["notices"].as_array().into_iter().flatten();
    notices.into_iter().find(|notice| notice["kind"] == kind).cloned().unwrap_or_default()
}

fn row(agent: &Agent, name: &str) -> Value {
    agent.members().into_iter().find(|member| member["name"] == name).unwrap_or_default()
}

fn events(agent: &Agent, kind: &str) -> Vec<Value> {
    let told = agent.cli(&["events", "--json"]).exits(0).stdout;
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["kind"] == kind).collect()
}
