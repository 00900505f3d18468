//! What the kernel knows of a process.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The kernel's unit of processor time in `/proc`, on every Linux that has been built for years.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processor time that a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces, and ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// The memory that a process holds, in bytes.
pub fn rss_bytes(pid: u32) -> f64 {
    let kilobytes = field(&format!("/proc/{pid}/status"), "VmRSS:");
    kilobytes * 1024.0
}

/// What a process has made the kernel write to disks so far, in bytes.
pub fn written_bytes(pid: u32) -> f64 {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

/// What the network of a process has carried, in and out, with all headers. The loopback does not
/// count.
pub fn network_bytes(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let cards = text.lines().filter_map(|line| line.split_once(':'));
    let cards = cards.filter(|(card, _)| card.trim() != "lo");
    // A line has eight figures of what came in, then those of what went out. The first figure of
    // each counts bytes.
    let bytes = cards.flat_map(|(_, figures)| {
        let figures: Vec<_> = figures.split_whitespace().collect();
        [0, 8].map(|at| figures.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN))
    });
    bytes.sum()
}

/// Sends a process a signal.
///
/// # Panics
/// When it does not run, or is not ours.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("processes have ids");
    kill_process(pid, signal).expect("a process of ours takes signals");
}

fn field(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}
