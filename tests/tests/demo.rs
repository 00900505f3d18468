//! The demo, which is the first thing that a newcomer runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use peerage_tests::agent::exit_of;
use peerage_tests::command;
use peerage_tests::patience::{LATER, SOON, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long the demo may take on a busy machine.
const DEMO_BOUND: Duration = Duration::from_secs(120);

#[test]
fn the_demo_shows_its_steps_and_leaves_nothing_behind() {
    let temp = folder();
    let mut child = demo(&["--once"], temp.path());

    let ended = exit_of(&mut child, DEMO_BOUND).expect("the demo ends");

    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(ended.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" ms") && said.contains("pve-3"), "{said}");
    nothing_is_left(temp.path());
}

#[test]
fn a_demo_that_stays_up_ends_at_a_signal_and_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let temp = folder();
        let mut child = running(temp.path());

        signalled(&child, signal);

        exit_of(&mut child, DEMO_BOUND).expect("the demo ends");
        nothing_is_left(temp.path());
    }
}

#[test]
fn a_demo_that_is_killed_takes_its_agents_and_its_folder_with_it() {
    let temp = folder();
    let mut child = running(temp.path());

    child.kill().unwrap();

    child.wait().unwrap();
    nothing_is_left(temp.path());
}

/// Starts the demo with its temporary files below `temp`.
fn demo(args: &[&str], temp: &Path) -> Child {
    let mut command = command::peerage();
    command.arg("demo").args(args).env("TMPDIR", temp);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts the demo and waits until it stays up: then it tells how to talk to the agents.
fn running(temp: &Path) -> Child {
    let mut child = demo(&["--nodes", "2"], temp);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.any(|line| line.is_ok_and(|line| line.contains("--socket")));
    assert!(told, "it ended before it told how to talk to the agents");
    assert!(!processes(temp).is_empty(), "agents run");
    child
}

fn signalled(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("peerage-test-").tempdir().unwrap()
}

#[track_caller]
fn nothing_is_left(temp: &Path) {
    until("no process is left", SOON, || processes(temp), Vec::is_empty);
    let names = || fs::read_dir(temp).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    until("no file is left", LATER, names, Vec::is_empty);
}

/// The command lines that speak of this folder.
fn processes(temp: &Path) -> Vec<String> {
    let temp = temp.to_str().unwrap();
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(temp)).collect()
}
