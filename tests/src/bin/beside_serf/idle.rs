//! What an idle agent costs.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::process::{cpu_seconds, network_bytes, rss_bytes};

use crate::comparison::{Figures, Unit};
use crate::side::{Side, all_present};

/// How long a fleet is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(20);

/// How long one run measures: several rounds of all periodic messages.
const WINDOW: Duration = Duration::from_secs(15);

/// Leaves the fleet alone and reads the kernel's meters before and after.
pub(crate) fn idle(side: &mut impl Side, runs: usize, figures: &mut Figures) {
    all_present(side);
    thread::sleep(SETTLE);
    let pids: Vec<_> = (0..side.hosts()).map(|host| side.pid(host)).collect();
    let (mut cpu, mut rss, mut traffic) = (vec![], vec![], vec![]);
    for _ in 0..runs {
        let read = |of: fn(u32) -> f64| pids.iter().map(|&pid| of(pid)).sum::<f64>();
        let (cpu_before, traffic_before) = (read(cpu_seconds), read(network_bytes));
        let started = Instant::now();
        thread::sleep(WINDOW);
        // The figures are of all agents together: one tick of the kernel's clock is coarse for a
        // single one.
        let per_agent = started.elapsed().as_secs_f64() * pids.len() as f64;
        cpu.push((read(cpu_seconds) - cpu_before) / per_agent * 100.0);
        traffic.push((read(network_bytes) - traffic_before) / per_agent);
        rss.push(read(rss_bytes) / pids.len() as f64);
    }
    figures.add("idle, per agent: CPU", Unit::Percent, cpu);
    figures.add("idle, per agent: memory (RSS)", Unit::Bytes, rss);
    figures.add("idle, per agent: network, in and out", Unit::BytesPerSecond, traffic);
}
