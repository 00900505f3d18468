//! The bench: prints one table of what peerage costs and how fast it is, at several sizes.
//!
//! `cargo run --profile dist -p peerage-tests --bin bench -- [--nodes 3,10,32] [--rows join,idle]
//! [--runs 5]`. Agents are processes of the binary of the same profile, all on this machine, so
//! that N agents share its cores: what is told for many is an upper bound.

mod disk;
mod idle;
mod mesh;
mod strangers;
mod users;
mod writes;

use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use peerage_tests::arguments::at_least;
use peerage_tests::figures::quantile;
use peerage_tests::table::Table;
use peerage_tests::{Agent, Fleet, binary};

/// The groups of rows, in the order in which they are measured.
const ROWS: [&str; 11] = [
    "join",
    "cold",
    "write",
    "down",
    "idle",
    "disk",
    "sustained",
    "import",
    "strangers",
    "documents",
    "users",
];

/// How long a measured state may take before the bench gives up.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Measures what peerage costs and how fast it is.
#[derive(Debug, Parser)]
struct Plan {
    /// The sizes, in nodes, at least two
    #[arg(long, value_delimiter = ',', default_value = "3,10,32", value_parser = at_least(2))]
    nodes: Vec<usize>,
    /// The groups of rows
    #[arg(long, value_delimiter = ',', default_values = ROWS, value_parser = ROWS)]
    rows: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value = "5", value_parser = at_least(1))]
    runs: usize,
}

fn main() {
    let plan = Plan::parse();
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures tell nothing about a release.");
    }
    let mut table = Table::new(&plan.nodes);
    let size = std::fs::metadata(binary::peerage()).map(|metadata| metadata.len()).unwrap_or(0);
    if plan.rows != ["users"] {
        for &nodes in &plan.nodes {
            measure(nodes, &plan, &mut table);
        }
    }
    if plan.rows.iter().any(|row| row == "users") {
        // These rows measure one agent, however many there are beside it.
        users::users(plan.runs, &mut cell_of(plan.nodes[0], &mut table));
    }
    println!("{table}");
    println!("Size of the binary: {:.1} MB", size as f64 / 1e6);
    println!(
        "Medians of {} runs; 2 to {} agents share {} cores.",
        plan.runs,
        plan.nodes.iter().max().unwrap_or(&2),
        thread::available_parallelism().map_or(1, usize::from)
    );
}

/// Measures all rows of the plan at one size.
fn measure(nodes: usize, plan: &Plan, table: &mut Table) {
    let wants = |row: &str| plan.rows.iter().any(|wanted| wanted == row);
    let mut cell = cell_of(nodes, table);
    let mut fleet =
        if wants("join") { mesh::join(nodes, plan.runs, &mut cell) } else { Fleet::found(nodes) };
    if wants("cold") {
        mesh::cold_start(&mut fleet, plan.runs, &mut cell);
    }
    if wants("write") {
        writes::single(&fleet, &mut cell);
    }
    if wants("down") {
        mesh::down(&mut fleet, plan.runs, &mut cell);
    }
    if wants("idle") {
        idle::idle(&fleet, plan.runs, &mut cell);
    }
    if wants("disk") {
        disk::isolated(&fleet, &mut cell);
    }
    if wants("sustained") {
        writes::sustained(&fleet, plan.runs, &mut cell);
    }
    if wants("import") {
        writes::import(&fleet, plan.runs, &mut cell);
    }
    if wants("strangers") {
        strangers::strangers(&mut fleet, plan.runs, &mut cell);
    }
    if wants("documents") {
        // These rows need agents that have not written anything else yet.
        drop(fleet);
        idle::documents(&Fleet::found(nodes), &mut cell);
    }
}

/// Fills the cells of one size, and tells each as it comes.
fn cell_of(nodes: usize, table: &mut Table) -> impl FnMut(&str, String) {
    move |row, figure| {
        eprintln!("N = {nodes}: {row}: {figure}");
        table.set(row, nodes, figure);
    }
}

/// How long it takes until all agents are as `right` says, from `started` on. Each is asked only
/// until it is.
fn until_all(agents: &[&Agent], started: Instant, right: impl Fn(&Agent) -> bool) -> Duration {
    let mut waiting: Vec<_> = agents.to_vec();
    while !waiting.is_empty() {
        assert!(started.elapsed() < GIVE_UP, "{} agents never got there", waiting.len());
        waiting.retain(|agent| !right(agent));
        if !waiting.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    started.elapsed()
}

/// The median of the measured times, in milliseconds.
fn median_ms(measured: &[Duration]) -> String {
    format!("{:.1} ms", quantile(measured, 0.5).as_secs_f64() * 1000.0)
}
