//! Streams that a reader is too slow for, and agents that hang: neither passes without a word.

use std::io::{self, BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use peerage_tests::agent::{die_with_parent, exit_of};
use peerage_tests::patience::{LATER, POLL, SOON};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// So many changes of this size are more than an agent and all pipes hold for a reader.
const CHANGES: u64 = 600;
const CHANGE_BYTES: usize = 16 * 1024;

/// The document that is written until a follower follows.
const BEGIN: &str = "the-begin";

/// A mirror that read too slowly once missed 3,000 changes without a word.
#[test]
fn a_slow_reader_of_changes_is_told_how_many_it_missed_and_ends_with_1() {
    for (options, goes_on) in [(&[][..], false), (&["--on-gap", "continue"], true)] {
        let agent = Agent::start("pve-1");
        agent.create("north");
        let mut watch = Follower::of(&agent, &[&["settings", "watch", "--json"], options].concat());

        for n in 1..=CHANGES {
            // Each value differs from the one before, since an equal one is not written.
            let text = n.to_string().repeat(CHANGE_BYTES / n.to_string().len());
            agent.set("much", json!({"n": n, "text": text}));
        }
        agent.set("last", json!({"x": 0}));

        let (mut told, mut missed) = (0, 0);
        while let Some(item) = watch.next() {
            let Some(gap) = item.get("gap") else {
                told += 1;
                if item["path"] == "last" {
                    break;
                }
                assert_eq!(item["set"]["n"], told + missed, "each is told or counted");
                continue;
            };
            missed += gap["missed"].as_u64().unwrap();
            assert!(gap["message"].as_str().unwrap().contains("missed"), "{gap}");
            let [from, to] = ["from", "to"].map(|end| place(&gap[end]));
            assert_eq!(to - from, missed, "one gap, and where it goes on: {gap}");
        }
        assert!(missed > 0, "nothing was missed: the test is too small");
        if goes_on {
            assert_eq!(told + missed, CHANGES + 1);
        } else {
            assert_eq!(watch.exit(), Some(1), "it ends at the gap");
        }
    }
}

#[test]
fn a_restart_of_the_agent_is_a_gap_in_what_it_tells() {
    let mut agent = Agent::start("pve-1");
    agent.create("north");
    for args in [&["settings", "watch", "--json"][..], &["events", "--follow", "--json"]] {
        let mut follower = Follower::of(&agent, args);
        agent.stop();
        agent.restart();
        let mut last = Value::Null;
        while let Some(item) = follower.next() {
            last = item;
        }
        let gap = &last["gap"];
        assert!(gap["missed"].is_null() && gap["from"].is_string(), "{args:?}: {last}");
        assert!(gap["message"].as_str().unwrap().contains("started anew"), "{gap}");
        assert_eq!(follower.exit(), Some(1), "{args:?}");
    }
}

/// `status`, `members` and `get` waited for a stopped agent without end and without a word.
#[test]
fn an_agent_that_hangs_is_named_after_a_bound_and_goes_on_when_it_is_let() {
    let fleet = Fleet::found(1);
    let agent = &fleet[0];
    agent.set("a/b", json!({"x": 1}));
    let mut watch = Follower::of(agent, &["settings", "watch", "--json"]);

    agent.pause();
    let process = format!("the agent (pid {}) does not answer", agent.pid());
    thread::scope(|scope| {
        for args in [&["status"][..], &["members"], &["settings", "get", "a/b"], &["events"]] {
            let process = process.as_str();
            scope.spawn(move || {
                let began = Instant::now();
                agent.cli(args).exits(5).says(&[process, "systemctl restart peerage"]);
                assert!(began.elapsed() < LATER, "{args:?} took {:?}", began.elapsed());
            });
        }
    });
    agent.resume();

    // The follower finds the agent again, and goes on behind the place where it was.
    agent.set("a/b", json!({"x": 3}));
    let item = watch.next().expect("it goes on");
    assert_eq!((&item["path"], &item["set"]["x"]), (&json!("a/b"), &json!(3)));
}

/// A command that follows a stream, and is read when the test likes.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// Starts it, and returns once it follows.
    fn of(agent: &Agent, args: &[&str]) -> Self {
        let mut command = agent.cli_command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("the command starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let follows = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // The follower is not told of changes from before its beginning, so the test writes
                // until it is told of one.
                while !follows.load(Ordering::Relaxed) {
                    agent.set(BEGIN, json!({ "now": format!("{:?}", Instant::now()) }));
                    thread::sleep(POLL);
                }
            });
            let began = |line: &io::Result<String>| line.as_ref().unwrap().contains(BEGIN);
            assert!(lines.by_ref().any(|line| began(&line)), "it ended before it began");
            follows.store(true, Ordering::Relaxed);
        });
        Self { child, lines }
    }

    /// The next item that is not of [`BEGIN`]; `None` where the command has ended.
    fn next(&mut self) -> Option<Value> {
        let mut items = self.lines.by_ref().map(|line| line.unwrap());
        let line = items.find(|line| !line.contains(BEGIN))?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The exit code of the command, which must end by itself soon.
    fn exit(&mut self) -> Option<i32> {
        exit_of(&mut self.child, SOON).expect("it ends").code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in a place.
fn place(id: &Value) -> u64 {
    id.as_str().unwrap().split_once('-').unwrap().1.parse().unwrap()
}
