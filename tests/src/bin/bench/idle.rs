//! What an idle agent costs, and what an agent costs that holds documents.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::figures::quantile;
use peerage_tests::process::{cpu_seconds, rss_bytes, written_bytes};
use peerage_tests::{Agent, Fleet};
use serde_json::json;

/// How long a fleet is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(15);

/// How long one run measures.
const WINDOW: Duration = Duration::from_secs(12);

/// How many documents are held.
const DOCUMENTS: usize = 1000;

/// How large each is, in bytes.
const DOCUMENT_BYTES: usize = 1024;

/// The meters of an agent that only grow.
struct Meter {
    cpu_seconds: f64,
    written_bytes: f64,
    traffic_bytes: Option<f64>,
}

impl Meter {
    fn read(agent: &Agent) -> Self {
        let traffic = agent.status()["traffic"].clone();
        let sum = traffic["bytes_in"].as_f64().zip(traffic["bytes_out"].as_f64());
        Self {
            cpu_seconds: cpu_seconds(agent.pid()),
            written_bytes: written_bytes(agent.pid()),
            traffic_bytes: sum.map(|(bytes_in, bytes_out)| bytes_in + bytes_out),
        }
    }
}

/// Leaves the fleet alone and reads the meters before and after.
pub(crate) fn idle(fleet: &Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    thread::sleep(SETTLE);
    let (mut cpu, mut rss, mut disk, mut traffic) = (vec![], vec![], vec![], vec![]);
    for _ in 0..runs {
        let before: Vec<_> = fleet.iter().map(Meter::read).collect();
        let started = Instant::now();
        thread::sleep(WINDOW);
        let seconds = started.elapsed().as_secs_f64();
        for (agent, before) in fleet.iter().zip(before) {
            let after = Meter::read(agent);
            cpu.push((after.cpu_seconds - before.cpu_seconds) / seconds * 100.0);
            disk.push((after.written_bytes - before.written_bytes) / seconds * 60.0);
            rss.push(rss_bytes(agent.pid()));
            if let (Some(after), Some(before)) = (after.traffic_bytes, before.traffic_bytes) {
                traffic.push((after - before) / seconds);
            }
        }
    }
    // One tick of the kernel's clock in a window is a coarse measure of one agent: the mean of all
    // is the finer one.
    let mean = cpu.iter().sum::<f64>() / cpu.len() as f64;
    cell("idle, per agent: CPU (mean)", format!("{mean:.2} %"));
    cell("idle, per agent: memory (RSS)", megabytes(quantile(&rss, 0.5)));
    let rate = match traffic.is_empty() {
        true => "not told".to_owned(),
        false => format!("{:.0} B/s", quantile(&traffic, 0.5)),
    };
    cell("idle, per agent: network, in and out", rate);
    cell("idle, per agent: written to disk (most)", format!("{:.0} B/min", quantile(&disk, 1.0)));
}

/// Writes documents, and reads the memory of the agents that hold them.
pub(crate) fn documents(fleet: &Fleet, cell: &mut impl FnMut(&str, String)) {
    for i in 0..DOCUMENTS {
        let agent = &fleet[i % fleet.len()];
        agent.set(&format!("bench/doc-{i:04}"), json!({"text": "x".repeat(DOCUMENT_BYTES)}));
    }
    fleet.converged();
    let rss: Vec<_> = fleet.iter().map(|agent| rss_bytes(agent.pid())).collect();
    cell("memory (RSS) with 1,000 documents of 1 KB", megabytes(quantile(&rss, 0.5)));
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}
