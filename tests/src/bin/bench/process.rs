//! What the kernel knows of a process.

use std::fs;

/// The kernel's unit of processor time in `/proc`, on every Linux that has been built for years.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processor time that a process has used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces, and ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// The memory that a process holds, in bytes.
pub(crate) fn rss_bytes(pid: u32) -> f64 {
    let kilobytes = field(&format!("/proc/{pid}/status"), "VmRSS:");
    kilobytes * 1024.0
}

/// What a process has made the kernel write to disks so far, in bytes.
pub(crate) fn written_bytes(pid: u32) -> f64 {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn field(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}
