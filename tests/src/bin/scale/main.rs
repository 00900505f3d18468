//! The bench of large Data Centers: how long until all see all, what each node then costs, and how
//! that grows.
//!
//! `cargo run --release -p peerage-tests --bin scale -- [--nodes 100,200,300] [--window 60]`
//! measures agents as processes that share this machine. With [--simulated 10,32,100,300,1000] the
//! cores run in this one process on a simulated network, and the table ends with the exponent by
//! which each cost grows with the number of nodes.

mod processes;
mod simulated;
mod vitals;

use std::process::ExitCode;
use std::time::Duration;

/// What to measure.
#[derive(Debug)]
struct Plan {
    nodes: Vec<usize>,
    simulated: Vec<usize>,
    window: Duration,
}

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!(
                "{wrong}\nusage: scale [--nodes 100,200,300] [--window SECONDS] \
                 [--simulated 10,32,100,300,1000]"
            );
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures tell nothing about a release.");
    }
    if !plan.simulated.is_empty() {
        println!("{}", simulated::measure(&plan.simulated));
    }
    if !plan.nodes.is_empty() {
        println!("{}", processes::measure(&plan.nodes, plan.window));
    }
    ExitCode::SUCCESS
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan =
            Self { nodes: Vec::new(), simulated: Vec::new(), window: Duration::from_secs(60) };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
            let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
            let sizes = || value.split(',').map(number).collect::<Result<Vec<usize>, _>>();
            match word.as_str() {
                "--nodes" => plan.nodes = sizes()?,
                "--simulated" => plan.simulated = sizes()?,
                "--window" => plan.window = Duration::from_secs(number(&value)? as u64),
                _ => return Err(format!("there is no option {word:?}")),
            }
        }
        match plan.nodes.iter().chain(&plan.simulated).any(|&nodes| nodes < 2) {
            true => Err("two nodes are the least".to_owned()),
            false => Ok(plan),
        }
    }
}
