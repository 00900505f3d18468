//! The real cores of many nodes in one process, on a simulated network: times and counts are exact,
//! and the processor time of the process is divided among the nodes.

use std::time::Duration;

use peerage_tests::figures::{growth, quantile};
use peerage_tests::process::cpu_seconds;
use peerage_tests::sim::crowd::Crowd;
use peerage_tests::sim::spread::spread;
use peerage_tests::table::Table;

use crate::vitals;

/// What share of datagrams and frames is lost.
const LOSS: f64 = 0.01;

/// How long a state may take, in simulated time.
const GIVE_UP: Duration = Duration::from_secs(300);

/// How long the news of a start are passed on before a Data Center is idle.
const SETTLE: Duration = Duration::from_secs(60);

/// For how long an idle Data Center is looked at.
const WINDOW: Duration = Duration::from_secs(20);

/// How many nodes are killed, one after the other, and how many writes are made.
const KILLED: usize = 5;
const WRITES: u64 = 5;

/// The measured sizes and costs by row, from which the growth is computed.
#[derive(Default)]
struct Costs(Vec<(String, Vec<(f64, f64)>)>);

impl Costs {
    fn note(&mut self, row: &str, size: usize, cost: f64) {
        let at = self.0.iter().position(|(known, _)| known == row).unwrap_or_else(|| {
            self.0.push((row.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        self.0[at].1.push((size as f64, cost));
    }
}

/// Measures Data Centers of these sizes, and tells how each cost grows.
pub(crate) fn measure(sizes: &[usize]) -> String {
    let (mut table, mut costs) = (Table::new(sizes), Costs::default());
    for &size in sizes {
        let mut cell = |row: &str, figure: String, cost: Option<f64>| {
            eprintln!("N = {size}: {row}: {figure}");
            table.set(row, size, figure);
            if let Some(cost) = cost {
                costs.note(row, size, cost);
            }
        };
        liveness(size, &mut cell);
        writes(size, &mut cell);
        vitals::measure(size, &mut cell);
    }
    let exponents = costs.0.iter().filter_map(|(row, measured)| {
        let exponent = growth(measured)?;
        Some(format!("  {row}: N^{exponent:.2}\n"))
    });
    format!("{table}\nGrowth with the number of nodes N:\n{}", exponents.collect::<String>())
}

type Cell<'a> = dyn FnMut(&str, String, Option<f64>) + 'a;

fn liveness(size: usize, cell: &mut Cell<'_>) {
    let mut crowd = Crowd::new(size, LOSS, 1);
    let used = || cpu_seconds(std::process::id());
    let before = used();
    match crowd.until_all_see(size - 1, GIVE_UP) {
        Some(took) => cell("cold start within a second, until all see all", seconds(took), None),
        None => cell("cold start within a second, until all see all", "never".into(), None),
    }
    let cpu = (used() - before) * 1e3 / size as f64;
    cell("cold start: CPU of the detector, ms per node", format!("{cpu:.2}"), Some(cpu));
    crowd.pass(SETTLE);
    let (before, used_before) = (crowd.sent(), used());
    crowd.pass(WINDOW);
    let per_node = |count: u64| count as f64 / size as f64 / WINDOW.as_secs_f64();
    let datagrams = per_node(crowd.sent().datagrams - before.datagrams);
    let bytes = per_node(crowd.sent().bytes - before.bytes);
    let cpu = (used() - used_before) * 1e6 / size as f64 / WINDOW.as_secs_f64();
    cell(
        "idle: liveness datagrams per node and second",
        format!("{datagrams:.2}"),
        Some(datagrams),
    );
    cell("idle: liveness bytes per node and second", format!("{bytes:.0}"), Some(bytes));
    cell("idle: CPU of the detector, µs per node and second", format!("{cpu:.0}"), Some(cpu));
    let downs = crowd.false_downs();
    let mut detected = Vec::new();
    for killed in 1..=KILLED.min(size / 3) {
        crowd.kill(killed);
        detected.push(crowd.until_all_see(size - 1 - killed, GIVE_UP).unwrap_or(GIVE_UP));
        crowd.pass(SETTLE / 4);
    }
    let (median, worst) = (quantile(&detected, 0.5), quantile(&detected, 1.0));
    cell("killed, until all know: median", seconds(median), Some(median.as_secs_f64()));
    cell("killed, until all know: worst", seconds(worst), None);
    cell("called down, though up", (crowd.false_downs().max(downs)).to_string(), None);
}

fn writes(size: usize, cell: &mut Cell<'_>) {
    let spreads: Vec<_> = (0..WRITES).map(|seed| spread(size, LOSS, seed)).collect();
    let missed = spreads.iter().map(|spread| size - spread.pushed_to).max().unwrap_or(0);
    let pushed: Vec<_> = spreads.iter().map(|spread| spread.pushed_within).collect();
    let all: Vec<_> = spreads.iter().map(|spread| spread.all_within).collect();
    let frames: Vec<_> = spreads.iter().map(|s| s.frames as f64 / size as f64).collect();
    cell("a write: pushed to the last that a push reaches", seconds(quantile(&pushed, 0.5)), None);
    cell("a write: nodes that the push missed, worst", missed.to_string(), None);
    cell("a write: on all nodes, worst", seconds(quantile(&all, 1.0)), None);
    let frames = quantile(&frames, 0.5);
    cell("a write: frames per node", format!("{frames:.1}"), Some(frames));
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
