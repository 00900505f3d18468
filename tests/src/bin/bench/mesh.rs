//! How soon nodes find each other, and notice that one is gone.

use std::time::Instant;

use peerage_tests::{Agent, Fleet};
use serde_json::json;

use crate::{median_ms, until_all};

/// Forms a fleet of `nodes` in every run: all but one join at once, then the last one joins.
/// Returns the last fleet.
pub(crate) fn join(nodes: usize, runs: usize, cell: &mut impl FnMut(&str, String)) -> Fleet {
    let (mut at_once, mut last_one, mut kept) = (Vec::new(), Vec::new(), None);
    for _ in 0..runs {
        drop(kept.take());
        let mut fleet = Fleet::start(nodes);
        let last = fleet.take(nodes - 1);
        fleet[0].create("bench");
        let token = fleet[0].invite(json!({"uses": "any"}));
        let started = Instant::now();
        fleet.join_all(&token);
        at_once.push(until_all(&all(&fleet), started, sees(nodes - 1)));

        let started = Instant::now();
        last.join(&token).expect("the last one joins");
        fleet.push(last);
        last_one.push(until_all(&all(&fleet), started, sees(nodes)));
        kept = Some(fleet);
    }
    cell("one node joins, until all see all", median_ms(&last_one));
    cell("all but one join the founder at once, until all see all", median_ms(&at_once));
    kept.expect("there was a run")
}

/// Kills all and starts all, in every run.
pub(crate) fn cold_start(fleet: &mut Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let mut measured = Vec::new();
    for _ in 0..runs {
        fleet.iter_mut().for_each(Agent::kill);
        let started = Instant::now();
        fleet.iter_mut().for_each(Agent::spawn);
        measured.push(until_all(&all(fleet), started, sees(fleet.len())));
    }
    cell("cold start of all, until all see all", median_ms(&measured));
}

/// Kills one node in every run, another one each time.
pub(crate) fn down(fleet: &mut Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    let mut measured = Vec::new();
    for run in 0..runs {
        let victim = (run * 7 + 1) % fleet.len();
        let started = Instant::now();
        fleet[victim].kill();
        let survivors: Vec<_> =
            fleet.iter().enumerate().filter(|(i, _)| *i != victim).map(|(_, a)| a).collect();
        measured.push(until_all(&survivors, started, |agent| count(agent, "down") == 1));
        fleet[victim].restart();
        until_all(&all(fleet), Instant::now(), sees(fleet.len()));
    }
    cell("kill -9, until all survivors say down", median_ms(&measured));
}

fn all(fleet: &Fleet) -> Vec<&Agent> {
    fleet.iter().collect()
}

fn sees(nodes: usize) -> impl Fn(&Agent) -> bool {
    move |agent| count(agent, "alive") == nodes as u64
}

fn count(agent: &Agent, state: &str) -> u64 {
    let status = agent.client().get("status").unwrap_or_default();
    status["members"][state].as_u64().unwrap_or(0)
}
