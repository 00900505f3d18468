//! peerage beside HashiCorp Serf: the same questions to both, in turn, in one run, on the same
//! hosts in network namespaces.
//!
//! `cargo run --profile dist -p peerage-tests --bin beside_serf -- [--nodes 10,32,64] [--rows join,idle]
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

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use peerage_tests::arguments::at_least;
use peerage_tests::netlab::Families;
use peerage_tests::{Lab, Layout};

use comparison::{Comparison, Figures};
use peerage::Peerage;
use serf::Serf;
use side::Side;

/// The groups of rows, in the order in which they are measured.
const ROWS: [&str; 8] = ["join", "cold", "message", "idle", "goodbye", "kill", "cable", "loss"];

/// Measures peerage beside HashiCorp Serf.
#[derive(Debug, Parser)]
struct Plan {
    /// The sizes, in nodes, at least three
    #[arg(long, value_delimiter = ',', default_value = "10,32,64", value_parser = at_least(3))]
    nodes: Vec<usize>,
    /// The groups of rows
    #[arg(long, value_delimiter = ',', default_values = ROWS, value_parser = ROWS)]
    rows: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value = "5", value_parser = at_least(1))]
    runs: usize,
    /// How long packets are lost
    #[arg(long, default_value = "300")]
    loss_seconds: u64,
}

fn main() -> ExitCode {
    let plan = Plan::parse();
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

/// Measures all rows of the plan on one side, at one size.
fn measure(side: &mut impl Side, lab: &mut Lab, plan: &Plan) -> Figures {
    let wants = |row: &str| plan.rows.iter().any(|wanted| wanted == row);
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
        let lasts = Duration::from_secs(plan.loss_seconds);
        losses::loss(side, lab, 10, lasts, &mut figures);
        losses::loss(side, lab, 25, lasts, &mut figures);
    }
    figures
}
