//! Users of a host who cost the others nothing, whatever they do at the socket.

use std::time::{Duration, Instant};

use peerage_tests::patience::{SOON, eventually};
use peerage_tests::users::{User, first_line, open_agent};
use serde_json::json;

/// More than ten times what the bench shows (`--rows users`), which is little for a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// Five users with 128 idle connections each once held all places, and root got none.
#[test]
fn users_with_idle_connections_lock_out_neither_root_nor_another_user() {
    let Some(agent) = open_agent() else { return };
    let users: Vec<_> = (0..5).filter_map(User::nth).collect();
    let _idle: Vec<_> = users.iter().map(|user| user.idle(&agent, 128)).collect();

    let other = User::nth(9).unwrap();
    for user in [User::ROOT, other] {
        let began = Instant::now();
        let answer = user.get(&agent, "status").expect("it is taken in");
        assert_eq!(answer.status, 200, "{user:?}: {answer:?}");
        assert!(began.elapsed() < ANSWERS_WITHIN, "{user:?} waited {:?}", began.elapsed());
    }
    agent.cli(&["status"]).exits(0);

    // A user with too many connections is told so, once the agent has given up those that said
    // nothing.
    let refused = eventually("it is answered", SOON, || users[0].get(&agent, "status"));
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("busy")), "{refused:?}");
    let said = users[0].cli(&agent, &["status"]).exits(1);
    said.says(&["you have 96 connections", "close some", "try again"]);
}

/// One user once took all of the 128 streams.
#[test]
fn a_user_who_follows_much_leaves_streams_to_the_others() {
    let Some(agent) = open_agent() else { return };
    let greedy = User::nth(0).unwrap();
    let streams = greedy.unread(&agent, "events?follow=true", 90);
    let told: Vec<_> = streams.iter().map(first_line).collect();
    let count = |status: &str| told.iter().filter(|line| line.contains(status)).count();
    assert_eq!((count("200"), count("503")), (24, 66), "a quarter of what the others leave");
    let refused = greedy.get(&agent, "events?follow=true").unwrap();
    assert!(refused.body["message"].as_str().unwrap().contains("24"), "{refused:?}");
    greedy.cli(&agent, &["events", "--follow"]).exits(1).says(&["24 streams"]);
    greedy.cli(&agent, &["status"]).exits(0);

    for user in [User::ROOT, User::nth(1).unwrap()] {
        let stream = user.unread(&agent, "watch", 1);
        assert!(first_line(&stream[0]).contains("200"), "{user:?}");
    }
}
