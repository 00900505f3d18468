//! What users of the host cost the others when they only hold on to connections and answers.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::figures::quantile;
use peerage_tests::process::rss_bytes;
use peerage_tests::users::{User, is_answered};
use peerage_tests::{Agent, skipped};
use serde_json::json;

use super::{GIVE_UP, median_ms};

/// How many users hold how many idle connections.
const USERS: u32 = 5;
const IDLE: usize = 128;

/// How many answers nobody reads, of how many documents of what size.
const UNREAD: usize = 60;
const DOCUMENTS: usize = 22;
const DOCUMENT_BYTES: usize = 900_000;

/// Measures both kinds of users on an agent whose Data Center has nothing else.
pub(crate) fn users(runs: usize, cell: &mut impl FnMut(&str, String)) {
    let Some(other) = User::nth(USERS) else {
        return skipped("only root can be other users of the host");
    };
    let agent = Agent::start("pve-1");
    User::let_all_in(&agent);
    agent.create("north");
    idle(&agent, other, runs, cell);
    for n in 0..DOCUMENTS {
        agent.set(&format!("logs/{n:02}"), json!({ "text": "x".repeat(DOCUMENT_BYTES) }));
    }
    for (name, user) in [("a user", other), ("root", User::ROOT)] {
        unread(&agent, name, user, runs, cell);
    }
}

fn idle(agent: &Agent, other: User, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let users = (0..USERS).filter_map(User::nth);
    let _idle: Vec<_> = users.map(|user| user.idle(agent, IDLE)).collect();
    for (name, user) in [("root", User::ROOT), ("another user", other)] {
        let answered = (0..runs).map(|_| {
            let began = Instant::now();
            let answer = user.get(agent, "status").expect("it is taken in");
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            began.elapsed()
        });
        let answered: Vec<_> = answered.collect();
        cell(
            &format!("5 users hold 128 idle connections each: {name} is answered"),
            median_ms(&answered),
        );
    }
}

fn unread(agent: &Agent, name: &str, user: User, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let (mut grown, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let before = rss_bytes(agent.pid());
        let unread = user.unread(agent, "settings", UNREAD);
        let (began, mut most, mut worst) = (Instant::now(), 0.0_f64, Duration::ZERO);
        while !unread.iter().all(is_answered) {
            assert!(began.elapsed() < GIVE_UP, "they are never answered");
            let asked = Instant::now();
            agent.status();
            worst = worst.max(asked.elapsed());
            most = most.max(rss_bytes(agent.pid()));
            thread::sleep(Duration::from_millis(1));
        }
        most = most.max(rss_bytes(agent.pid()));
        // The allocator may give a run the memory that an earlier run took, so the growth may be
        // below zero.
        grown.push((most - before).max(0.0));
        slowest.push(worst);
    }
    let row = |what: &str| format!("60 answers of 20 MB that {name} does not read: {what}");
    cell(&row("memory"), format!("+{:.0} MB", quantile(&grown, 1.0) / 1e6));
    cell(&row("others are answered (worst)"), median_ms(&slowest));
}
