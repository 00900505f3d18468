//! Agents as processes on this machine: N agents share its cores, so the cost of one agent is an
//! upper bound, and what all N do at once is as hard as it gets.

use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::figures::quantile;
use peerage_tests::process::{cpu_seconds, rss_bytes};
use peerage_tests::table::Table;
use peerage_tests::{Agent, Fleet};
use serde_json::json;

/// How long a measured state may take before the bench gives up.
const GIVE_UP: Duration = Duration::from_secs(300);

/// How often an agent tries to join: the seeds may have no time for it.
const JOIN_TRIES: usize = 10;

/// How many agents are asked per second while the bench waits for all: asking costs them time that
/// they need for what is measured.
const ASKED_PER_SECOND: u64 = 400;

/// How long a fleet is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(20);

/// Measures fleets of these sizes. In each, `at_once` agents join at a time, and the fleet is idle
/// for `window` while its cost is measured.
pub(crate) fn measure(sizes: &[usize], at_once: usize, window: Duration) -> Table {
    let mut table = Table::new(sizes);
    for &size in sizes {
        let mut cell = |row: &str, figure: String| {
            eprintln!("N = {size}: {row}: {figure}");
            table.set(row, size, figure);
        };
        let mut fleet = joined(size, at_once, &mut cell);
        cold_start(&mut fleet, &mut cell);
        idle(&fleet, window, &mut cell);
        written(&fleet, &mut cell);
        killed(&mut fleet, &mut cell);
        let said = of_logs(&fleet, |line| line.contains(" WARN ") || line.contains("ERROR "));
        cell("warnings and errors in all logs, from first start to last", said.to_string());
    }
    table
}

/// Founds with one agent and lets the others join, so many at a time.
fn joined(size: usize, at_once: usize, cell: &mut impl FnMut(&str, String)) -> Fleet {
    let fleet = Fleet::start(size);
    fleet[0].create("scale");
    let token = fleet[0].invite(json!({"uses": "any"}));
    let started = Instant::now();
    let joiners = Mutex::new(fleet[1..].iter());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = joiners.lock().expect("nobody panics with it").next();
                    let Some(agent) = next else { return };
                    let mut refused = (0..JOIN_TRIES).map_while(|_| agent.join(&token).err());
                    let last = refused.by_ref().last();
                    if let Some(last) = last.filter(|_| agent.status()["datacenter"].is_null()) {
                        panic!("{} could not join: {last:?}", agent.name());
                    }
                }
            });
        }
    });
    until_all_see_all(&fleet, started);
    cell(&format!("all join, {at_once} at a time, until all see all"), seconds(started.elapsed()));
    fleet
}

/// Kills all and starts all.
fn cold_start(fleet: &mut Fleet, cell: &mut impl FnMut(&str, String)) {
    fleet.iter_mut().for_each(Agent::kill);
    let before = of_logs(fleet, says_down);
    let started = Instant::now();
    fleet.iter_mut().for_each(Agent::spawn);
    cell("cold start: all processes are started", seconds(started.elapsed()));
    let half = until_all_see_all(fleet, started);
    cell("cold start: half of all agents see all", seconds(half));
    cell("cold start: all see all", seconds(started.elapsed()));
    let used = fleet.iter().map(|agent| cpu_seconds(agent.pid())).sum::<f64>();
    let used = used / fleet.len() as f64 * 1e3;
    cell("cold start: CPU per agent until then", format!("{used:.0} ms"));
    let down = of_logs(fleet, says_down) - before;
    cell("cold start: members called down meanwhile", down.to_string());
}

/// Leaves the fleet alone, and takes what it costs and whether it is steady.
fn idle(fleet: &Fleet, window: Duration, cell: &mut impl FnMut(&str, String)) {
    thread::sleep(SETTLE);
    let cpu = || fleet.iter().map(|agent| cpu_seconds(agent.pid())).sum::<f64>();
    let traffic = || fleet.iter().map(bytes_out).sum::<f64>();
    let down = of_logs(fleet, says_down);
    let bytes_before = traffic();
    let (cpu_before, started) = (cpu(), Instant::now());
    thread::sleep(window);
    let (took, cores) = (started.elapsed().as_secs_f64(), cores());
    let used = (cpu() - cpu_before) / took;
    let sent = (traffic() - bytes_before) / took / fleet.len() as f64;
    let down = of_logs(fleet, says_down) - down;
    let rss: Vec<_> = fleet.iter().map(|agent| rss_bytes(agent.pid())).collect();
    cell("idle: CPU per agent", format!("{:.2} %", used / fleet.len() as f64 * 100.0));
    cell("idle: CPU left on the machine", format!("{:.0} %", (1.0 - used / cores) * 100.0));
    cell("idle: sent per agent", format!("{:.1} kB/s", sent / 1e3));
    cell("idle: memory per agent (RSS)", format!("{:.1} MB", quantile(&rss, 0.5) / 1e6));
    cell("idle: members called down, none of which was", down.to_string());
}

/// Writes once, and waits until all hold it.
fn written(fleet: &Fleet, cell: &mut impl FnMut(&str, String)) {
    let started = Instant::now();
    fleet[fleet.len() / 2].set("scale/one", json!({ "value": "x".repeat(256) }));
    let digest = fleet[fleet.len() / 2].digest();
    until_all(fleet, started, |agent| agent.digest() == digest);
    cell("one 256 B write, until all hold it", seconds(started.elapsed()));
}

/// Kills one agent, and waits until all others know.
fn killed(fleet: &mut Fleet, cell: &mut impl FnMut(&str, String)) {
    let started = Instant::now();
    let mut victim = fleet.take(1);
    victim.kill();
    until_all(fleet, started, |agent| count(agent, "down") == 1);
    cell("kill -9 of one, until all others say down", seconds(started.elapsed()));
    victim.spawn();
    let started = Instant::now();
    fleet.push(victim);
    until_all_see_all(fleet, started);
    cell("it starts again, until all see all", seconds(started.elapsed()));
}

/// Waits until every agent sees all alive. Returns when half of them did.
fn until_all_see_all(fleet: &Fleet, started: Instant) -> Duration {
    until_all(fleet, started, |agent| count(agent, "alive") == fleet.len() as u64)
}

/// Waits until all agents are as `right` says. Each is asked only until it is. Returns when half of
/// them were, counted from `started` on.
fn until_all(fleet: &Fleet, started: Instant, right: impl Fn(&Agent) -> bool) -> Duration {
    let mut waiting: Vec<&Agent> = fleet.iter().collect();
    let (size, mut half) = (waiting.len(), None);
    while !waiting.is_empty() {
        if started.elapsed() > GIVE_UP {
            let agent = waiting[0];
            panic!(
                "{} of {size} never got there; {}: {}",
                waiting.len(),
                agent.name(),
                agent.log()
            );
        }
        let mut found = size - waiting.len();
        waiting.retain(|agent| {
            thread::sleep(Duration::from_micros(1_000_000 / ASKED_PER_SECOND));
            let is_right = right(agent);
            found += usize::from(is_right);
            if found >= size / 2 {
                half.get_or_insert(started.elapsed());
            }
            !is_right
        });
    }
    half.unwrap_or_else(|| started.elapsed())
}

fn count(agent: &Agent, state: &str) -> u64 {
    let status = agent.client().get("status").unwrap_or_default();
    status["members"][state].as_u64().unwrap_or(0)
}

fn bytes_out(agent: &Agent) -> f64 {
    agent.status()["traffic"]["bytes_out"].as_f64().unwrap_or(f64::NAN)
}

fn says_down(line: &str) -> bool {
    line.contains(" down: ")
}

/// How many lines of all logs are like this.
fn of_logs(fleet: &Fleet, like: impl Fn(&str) -> bool) -> usize {
    let logs = fleet.iter().map(|agent| fs::read_to_string(agent.file("agent.log")));
    logs.map(|log| log.unwrap_or_default().lines().filter(|line| like(line)).count()).sum()
}

fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
