//! What one isolated write costs the disk of the node where it is written.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use peerage_tests::agent::die_with_parent;
use peerage_tests::process::written_bytes;
use peerage_tests::{Agent, Fleet};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// How many isolated writes are made.
const WRITES: u32 = 20;

/// The pause between two writes: longer than any commit waits for others.
const PAUSE: Duration = Duration::from_millis(150);

/// How long a tracer may take to attach itself.
const ATTACH: Duration = Duration::from_secs(2);

/// Writes one after the other on the first node, and counts what its disk had to do.
pub(crate) fn isolated(fleet: &Fleet, cell: &mut impl FnMut(&str, String)) {
    let agent = &fleet[0];
    write(agent);
    let before = written_bytes(agent.pid());
    write(agent);
    let bytes = (written_bytes(agent.pid()) - before) / f64::from(WRITES);
    cell("one isolated write: written to disk", format!("{bytes:.0} B"));
    let syncs = syncs_of(agent).map_or("not told (no strace)".to_owned(), |syncs| {
        format!("{:.1}", f64::from(syncs) / f64::from(WRITES))
    });
    cell("one isolated write: fsyncs", syncs);
}

fn write(agent: &Agent) {
    for i in 0..WRITES {
        agent.set("bench/isolated", json!({"i": i, "value": "x".repeat(256)}));
        thread::sleep(PAUSE);
    }
}

/// How often the agent has the disk synchronised during the writes; `None` without a tracer.
fn syncs_of(agent: &Agent) -> Option<u32> {
    let trace = agent.file("syncs");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o"]);
    command.arg(&trace).args(["-p", &agent.pid().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    die_with_parent(&mut command);
    let mut tracer = command.spawn().ok()?;
    thread::sleep(ATTACH);
    write(agent);
    let pid = i32::try_from(tracer.id()).ok().and_then(Pid::from_raw)?;
    kill_process(pid, Signal::INT).ok()?;
    tracer.wait().ok()?;
    let text = fs::read_to_string(&trace).ok()?;
    // A call that another thread interrupts takes two lines, of which one is unfinished.
    let begun = text.lines().filter(|line| line.contains("sync(") && !line.contains("resumed"));
    u32::try_from(begun.count()).ok()
}
