//! Answers that nobody reads, or slowly, and bodies that do not come.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use peerage_tests::Agent;
use peerage_tests::client::Connection;
use peerage_tests::patience::{LATER, SOON, eventually};
use peerage_tests::process::rss_bytes;
use peerage_tests::users::{User, is_answered, open_agent};
use serde_json::{Value, json};

/// Ten times what the bench shows (`--rows users`).
const STATUS_WITHIN: Duration = Duration::from_millis(500);
const GROWS_BY_MAX_BYTES: f64 = 400e6;

/// How many answers nobody reads, and how many documents of what size each of them holds.
const UNREAD: usize = 60;
const DOCUMENTS: usize = 22;
const DOCUMENT_BYTES: usize = 900_000;

/// 60 answers of a 20 MB store that nobody read took 2,400 MB, and the node was called down.
#[test]
fn answers_that_nobody_reads_take_little_and_hold_up_nobody() {
    let Some(agent) = open_agent() else { return };
    agent.create("north");
    for n in 0..DOCUMENTS {
        agent.set(&format!("logs/{n:02}"), json!({ "text": "x".repeat(DOCUMENT_BYTES) }));
    }
    let user = User::nth(0).unwrap();
    for (who, path) in [(user, "settings?full=true"), (user, "settings"), (User::ROOT, "settings")]
    {
        let before = rss_bytes(agent.pid());
        let mut slowest = Duration::ZERO;
        let unread = user_asks(who, &agent, path);
        let most = eventually("each was answered", LATER, || {
            let began = Instant::now();
            assert_eq!(agent.status()["node"]["name"], "pve-1");
            slowest = slowest.max(began.elapsed());
            let rss = rss_bytes(agent.pid());
            if unread.iter().all(is_answered) { Ok(rss) } else { Err(rss) }
        });
        let grown = most - before;
        eprintln!("{who:?} {path}: +{:.0} MB, status within {slowest:?}", grown / 1e6);
        assert!(grown < GROWS_BY_MAX_BYTES, "{who:?} {path}: +{:.0} MB", grown / 1e6);
        assert!(slowest < STATUS_WITHIN, "{who:?} {path}: {slowest:?}");
    }
}

/// An answer that is sent in pieces is that of one moment, however slowly it is read and whatever
/// is written meanwhile.
#[test]
fn an_answer_in_pieces_is_as_it_was_when_it_was_asked_for() {
    let agent = Agent::start("pve-1");
    agent.create("north");
    let written = |n: usize, of: &str| json!({"n": n, "text": of.repeat(DOCUMENT_BYTES)});
    for n in 0..DOCUMENTS {
        agent.set(&format!("logs/{n:02}"), written(n, "a"));
    }
    let stream = User::ROOT.unread(&agent, "settings?prefix=logs/", 1).remove(0);
    eventually("it is answered", SOON, || if is_answered(&stream) { Ok(()) } else { Err(()) });
    for n in 0..DOCUMENTS {
        agent.set(&format!("logs/{n:02}"), written(n, "b"));
    }
    let answer = Connection::over(stream).unwrap().answer().unwrap();
    let expected: Vec<Value> = (0..DOCUMENTS)
        .map(|n| json!({"path": format!("logs/{n:02}"), "fields": written(n, "a")}))
        .collect();
    assert!(answer.body == json!(expected), "{:.300}", answer.body.to_string());
    assert_eq!(agent.fields("logs/00")["text"], written(0, "b")["text"]);
}

/// Sends all requests at once.
fn user_asks(user: User, agent: &Agent, path: &str) -> Vec<UnixStream> {
    let open = user.unread(agent, path, UNREAD);
    assert_eq!(open.len(), UNREAD);
    open
}
