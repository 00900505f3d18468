//! peerage beside HashiCorp Serf: the same questions to both, in turn, in one run, on the same
//! hosts in network namespaces.
//!
//! `cargo run --release -p peerage-tests --bin beside_serf -- [--nodes 10,32,64] [--rows join,idle]
//! [--runs 5] [--loss-seconds 300]`. It needs root and Debian's packages `serf`, `nftables` and
//! `iproute2`. Serf runs with its defaults, its lan profile among them. Both sides are asked in the
//! same way: over a connection that stays open, how many members they believe to be there.

mod comparison;
mod detection;
mod idle;
mod losses;
mod meeting;
mod messages;
mod peerage;
mod rpc;
mod serf;
mod side;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use peerage_tests::netlab::Families;
use peerage_tests::{Lab, Layout};

use comparison::{Comparison, Figures};
use peerage::Peerage;
use serf::Serf;
use side::Side;

/// The groups of rows, in the order in which they are measured.
const ROWS: [&str; 8] = ["join", "cold", "message", "idle", "goodbye", "kill", "cable", "loss"];

/// What to measure.
#[derive(Debug)]
struct Plan {
    nodes: Vec<usize>,
    rows: BTreeSet<String>,
    runs: usize,
    loss: Duration,
}

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!(
                "{wrong}\nusage: beside_serf [--nodes 10,32,64] [--rows {}] [--runs 5] \
                 [--loss-seconds 300]",
                ROWS.join(",")
            );
            return ExitCode::from(2);
        }
    };
    let serf = match serf::version() {
        Ok(version) => version,
        Err(error) => {
            eprintln!("serf does not run (Debian package serf): {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut comparison = Comparison::default();
    for &nodes in &plan.nodes {
        for which in ["peerage", "Serf"] {
            // Each side finds networks that nobody has used.
            let layout = Layout::of(nodes).families(Families::V4);
            let mut lab = match Lab::build(layout) {
                Ok(lab) => lab,
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::FAILURE;
                }
            };
            let figures = match which {
                "peerage" => measure(&mut Peerage::new(&lab), &mut lab, &plan),
                _ => measure(&mut Serf::new(&lab), &mut lab, &plan),
            };
            comparison.add(which, nodes, figures);
        }
    }
    println!("{comparison}");
    println!(
        "Medians of {} runs, least and most in brackets. Serf is {serf}; {} cores.",
        plan.runs,
        thread::available_parallelism().map_or(1, usize::from)
    );
    ExitCode::SUCCESS
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let all = ROWS.iter().map(ToString::to_string).collect();
        let mut plan =
            Self { nodes: vec![10, 32, 64], rows: all, runs: 5, loss: Duration::from_secs(300) };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
            let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
            match word.as_str() {
                "--nodes" => plan.nodes = value.split(',').map(number).collect::<Result<_, _>>()?,
                "--rows" => plan.rows = value.split(',').map(str::to_owned).collect(),
                "--runs" => plan.runs = number(&value)?,
                "--loss-seconds" => plan.loss = Duration::from_secs(number(&value)? as u64),
                _ => return Err(format!("there is no option {word:?}")),
            }
        }
        match plan.rows.iter().find(|row| !ROWS.contains(&row.as_str())) {
            Some(row) => Err(format!("there is no row {row:?}")),
            None if plan.nodes.iter().any(|&n| n < 3) || plan.runs == 0 => {
                Err("three nodes and one run are the least".to_owned())
            }
            None => Ok(plan),
        }
    }
}

/// Measures all rows of the plan on one side, at one size.
fn measure(side: &mut impl Side, lab: &mut Lab, plan: &Plan) -> Figures {
    let wants = |row: &str| plan.rows.contains(row);
    let mut figures = Figures::new(format!("{} at {}", side.name(), lab.hosts()));
    meeting::form(side, if wants("join") { plan.runs } else { 0 }, &mut figures);
    if wants("cold") {
        meeting::cold_start(side, plan.runs, &mut figures);
    }
    if wants("message") {
        messages::to_all(side, &mut figures);
    }
    if wants("idle") {
        idle::idle(side, plan.runs, &mut figures);
    }
    if wants("goodbye") {
        detection::goodbye(side, plan.runs, &mut figures);
    }
    if wants("kill") {
        detection::kill(side, plan.runs, &mut figures);
    }
    if wants("cable") {
        detection::cable(side, lab, plan.runs, &mut figures);
    }
    if wants("loss") {
        losses::freeze(side, &mut figures);
        losses::loss(side, lab, 10, plan.loss, &mut figures);
        losses::loss(side, lab, 25, plan.loss, &mut figures);
    }
    figures
}
