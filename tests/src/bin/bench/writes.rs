//! How soon a write is everywhere, and how many there can be.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::client::Connection;
use peerage_tests::figures::quantile;
use peerage_tests::{Agent, Fleet};
use serde_json::json;

use crate::{median_ms, until_all};

/// How many single writes are measured.
const SINGLE_WRITES: usize = 200;

/// How large a value is, in bytes.
const VALUE_BYTES: usize = 256;

/// The pause between single writes, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one write may take to be everywhere.
const ONE_WRITE_BOUND: Duration = Duration::from_secs(30);

/// For how long writers write as fast as they can.
const SUSTAINED_FOR: Duration = Duration::from_secs(3);

/// How many writers there are in all, spread over the agents. Enough for commits to be shared.
const WRITERS: usize = 32;

/// How many documents are imported, and how large the text in each is, in bytes.
const IMPORTED: usize = 10_000;
const IMPORTED_BYTES: usize = 1000;

/// How many documents each writer takes in turn.
const DOCUMENTS_PER_WRITER: u64 = 64;

/// Writes on one node after the other, and takes the time until the last node shows the write.
pub(crate) fn single(fleet: &Fleet, cell: &mut impl FnMut(&str, String)) {
    let (told, seen) = mpsc::channel();
    let mut watches: Vec<_> =
        fleet.iter().map(|agent| agent.events("watch?prefix=bench/")).collect();
    let (mut acknowledged, mut everywhere) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for watch in &mut watches {
            let told = told.clone();
            scope.spawn(move || {
                for _ in 0..SINGLE_WRITES {
                    let event = watch.next(ONE_WRITE_BOUND).expect("each write is told");
                    let told = told.send((event.data["set"]["i"].as_u64(), Instant::now()));
                    told.expect("the bench waits for it");
                }
            });
        }
        let mut connections: Vec<_> =
            fleet.iter().map(|a| Connection::open(&a.socket()).expect("it answers")).collect();
        for i in 0..SINGLE_WRITES {
            thread::sleep(PAUSE);
            let body = json!({"set": {"i": i, "value": "x".repeat(VALUE_BYTES)}});
            let at = i % connections.len();
            let started = Instant::now();
            let answer = connections[at].ask("PATCH", "settings/bench/single", Some(&body), &[]);
            assert_eq!(answer.expect("it answers").status, 200);
            acknowledged.push(started.elapsed());
            let mut last = started;
            for _ in 0..fleet.len() {
                let (write, at) = seen.recv_timeout(ONE_WRITE_BOUND).expect("all see it");
                assert_eq!(write, Some(i as u64), "in order");
                last = last.max(at);
            }
            everywhere.push(last - started);
        }
    });
    cell("one 256 B write, on its node's disk, p50", median_ms(&acknowledged));
    cell("one 256 B write, readable on all, p50", median_ms(&everywhere));
    let p99 = quantile(&everywhere, 0.99).as_secs_f64() * 1000.0;
    cell("one 256 B write, readable on all, p99", format!("{p99:.1} ms"));
}

/// Writes on all nodes as fast as they take it, and counts the time until all hold the same.
pub(crate) fn sustained(fleet: &Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let mut rates = Vec::new();
    for run in 0..runs {
        let started = Instant::now();
        let written: u64 = thread::scope(|scope| {
            let writer = |w: usize| {
                let socket = fleet[w % fleet.len()].socket();
                scope.spawn(move || write_on(&socket, &format!("bench/{run}/{w}"), started))
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer writes")).sum()
        });
        let writing = started.elapsed();
        let agents: Vec<_> = fleet.iter().collect();
        let mut took = writing;
        // The digests of all must be equal at one moment, so the first agent is asked anew for each
        // comparison.
        while agents.iter().any(|agent| agent.digest() != agents[0].digest()) {
            took = until_all(&agents, started, |agent| agent.digest() == agents[0].digest());
        }
        eprintln!("  {written} writes in {writing:.2?}, the same everywhere after {took:.2?}");
        rates.push(written as f64 / took.as_secs_f64());
    }
    cell("sustained writes, all converged", format!("{:.0}/s", quantile(&rates, 0.5)));
}

/// Writes many documents with one request, and takes the time until they are on the disk of that
/// node, and on all.
pub(crate) fn import(fleet: &Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let (mut here, mut everywhere) = (Vec::new(), Vec::new());
    let agents: Vec<_> = fleet.iter().collect();
    for run in 0..runs {
        let document = |i| {
            let text = format!("{run}{}", "x".repeat(IMPORTED_BYTES));
            json!({"path": format!("import/{i}"), "fields": {"text": text}})
        };
        let body = json!({"documents": (0..IMPORTED).map(document).collect::<Vec<_>>()});
        let mut connection = Connection::open(&agents[0].socket()).expect("it answers");
        let started = Instant::now();
        let answer = connection.ask("POST", "apply", Some(&body), &[]).expect("it answers");
        let took = started.elapsed();
        assert_eq!(answer.status, 200, "{answer:?}");
        here.push(IMPORTED as f64 / took.as_secs_f64());
        let same = |agent: &Agent| agent.digest() == agents[0].digest();
        let all = until_all(&agents, started, same);
        eprintln!("  {IMPORTED} documents in {took:.2?}, on all after {all:.2?}");
        everywhere.push(IMPORTED as f64 / all.as_secs_f64());
    }
    cell("import of 10,000 documents of 1 kB", format!("{:.0}/s", quantile(&here, 0.5)));
    cell("the same, on all", format!("{:.0}/s", quantile(&everywhere, 0.5)));
}

/// Writes until the time is over; returns how many writes were acknowledged.
fn write_on(socket: &std::path::Path, path: &str, started: Instant) -> u64 {
    let mut connection = Connection::open(socket).expect("the agent answers");
    let value = "x".repeat(VALUE_BYTES);
    let mut written = 0;
    while started.elapsed() < SUSTAINED_FOR {
        let body = json!({"set": {"i": written, "value": value}});
        let path = format!("settings/{path}/{}", written % DOCUMENTS_PER_WRITER);
        let answer = connection.ask("PATCH", &path, Some(&body), &[]).expect("it answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        written += 1;
    }
    written
}
