//! The bench of large Data Centers: how long until all see all, what each node then costs, and how
//! that grows.
//!
//! `cargo run --profile dist -p peerage-tests --bin scale -- [--nodes 100,200,300] [--at-once 4]
//! [--window 60]`
//! measures agents as processes that share this machine. With [--simulated 10,32,100,300,1000] the
//! cores run in this one process on a simulated network, and the table ends with the exponent by
//! which each cost grows with the number of nodes.

mod processes;
mod simulated;
mod vitals;

use std::time::Duration;

use clap::Parser;
use peerage_tests::arguments::at_least;

/// Measures large Data Centers.
#[derive(Debug, Parser)]
#[command(arg_required_else_help = true)]
struct Plan {
    /// The sizes that are measured with processes, in nodes
    #[arg(long, value_delimiter = ',', value_parser = at_least(2))]
    nodes: Vec<usize>,
    /// The sizes that are measured on a simulated network
    #[arg(long, value_delimiter = ',', value_parser = at_least(2))]
    simulated: Vec<usize>,
    /// How many processes join at the same time
    #[arg(long, default_value_t = 4, value_parser = at_least(1))]
    at_once: usize,
    /// For how many seconds idle processes are watched
    #[arg(long, default_value_t = 60)]
    window: u64,
}

fn main() {
    let plan = Plan::parse();
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures tell nothing about a release.");
    }
    if !plan.simulated.is_empty() {
        println!("{}", simulated::measure(&plan.simulated));
    }
    if !plan.nodes.is_empty() {
        let window = Duration::from_secs(plan.window);
        println!("{}", processes::measure(&plan.nodes, plan.at_once, window));
    }
}
