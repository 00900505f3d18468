//! What is installed on a host, as far as it can be checked without one.

use std::fs;
use std::process::Command;

use peerage_tests::{Agent, Ran, binary, command, skipped};
use serde_json::json;

/// The highest exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: &str = "20";

#[test]
fn the_unit_is_valid_and_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skipped("no systemd-analyze here (package systemd) to check the unit with");
    }
    // The binary is not installed here, so the test makes a root folder in which it is.
    let root = tempfile::Builder::new().prefix("peerage-test-").tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let unit = at("usr/lib/systemd/system/peerage.service");
    for folder in ["bin", "usr/bin", "usr/lib/systemd/system"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for program in ["bin/sh", "usr/bin/peerage"] {
        fs::copy("/bin/true", at(program)).unwrap();
    }
    fs::copy(binary::workspace().join("deploy/peerage.service"), &unit).unwrap();
    // Our unit names these units, which every host has.
    for name in ["sysinit.target", "basic.target", "network-online.target", "shutdown.target"] {
        fs::write(at("usr/lib/systemd/system").join(name), "[Unit]\nDescription=x\n").unwrap();
    }

    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--root"]).arg(root.path()).arg("peerage.service");
    let verified = Ran::run(&mut verify, "").exits(0);
    assert_eq!((verified.stdout.as_str(), verified.stderr.as_str()), ("", ""), "it is clean");

    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold", EXPOSURE_MAX]).arg(&unit);
    let judged = Ran::run(&mut security, "").exits(0);
    eprintln!("{}", judged.stdout.lines().last().unwrap_or_default());
}

#[test]
fn the_unit_starts_the_agent_again_after_any_end_but_a_wrong_configuration() {
    let unit = fs::read_to_string(binary::workspace().join("deploy/peerage.service")).unwrap();
    let says = |key: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in the unit")).to_owned()
    };
    assert_eq!(says("Restart"), "always");
    assert_eq!(says("StartLimitIntervalSec"), "0", "however often");
    assert!(!unit.contains("SuccessExitStatus"), "nothing else counts as an end");

    // The unit takes two exits as final: of a wrong configuration, and of a data folder that needs
    // somebody.
    let exits = says("RestartPreventExitStatus");
    let exits: Vec<i32> = exits.split(' ').map(|exit| exit.parse().unwrap()).collect();
    let [is_final, needs_somebody] = exits[..] else { panic!("{exits:?}") };
    assert_eq!(needs_somebody, 4);
    for wrong in
        ["lisen = '[::]:4747'", "advertise = ['0.0.0.0']", "log = 'peerage=loud'", "group ="]
    {
        let ran = Agent::named("pve-1").config(wrong).run_to_end();
        assert_eq!(ran.code, is_final, "{wrong}: {}", ran.stderr);
    }
    let ran = Agent::named("pve-1").on_data("/dev/null/data".into()).run_to_end();
    assert_ne!(ran.code, is_final, "a disk may be mended: {}", ran.stderr);
}

#[test]
fn the_example_config_shows_every_key_with_its_default() {
    let example = fs::read_to_string(binary::workspace().join("deploy/peerage.toml")).unwrap();
    assert!(
        example.lines().all(|line| line.is_empty() || line.starts_with('#')),
        "a fresh installation runs on the defaults"
    );
    // The agent must take every key that the comments of the example offer.
    let offered: String = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        // The agent takes only one of the two ways to join.
        .filter(|line| !line.starts_with("join_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = tempfile::Builder::new().prefix("peerage-test-").suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), &offered).unwrap();
    let mut show = command::peerage();
    show.args(["config", "show", "--config"]).arg(file.path());
    let shown = Ran::run(&mut show, "").exits(0).stdout;
    for key in offered.lines().filter_map(|line| line.split_once(" =")).map(|(key, _)| key) {
        assert!(shown.contains(key), "{key:?} is not in {shown}");
    }
}

#[test]
fn the_links_of_the_example_config_are_taken_as_they_stand() {
    let example = fs::read_to_string(binary::workspace().join("deploy/peerage.toml")).unwrap();
    // The indented lines are tables that may be used as a whole.
    let tables: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("#    ")).collect();
    let file = tempfile::Builder::new().prefix("peerage-test-").suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), tables.join("\n")).unwrap();
    let mut show = command::peerage();
    show.args(["config", "show", "--json", "--config"]).arg(file.path());
    let shown = Ran::run(&mut show, "").exits(0).json();
    let links = shown.as_array().unwrap().iter().find(|setting| setting["key"] == "link").unwrap();
    assert_eq!(links["value"], json!(["10.0.1.5@1 (storage)", "pve-1.example.org:4747@2"]));
}

/// A bound below what an agent may take would kill a sound agent, again after each start.
#[test]
fn the_units_bounds_are_above_what_an_agent_takes() {
    let unit = fs::read_to_string(binary::workspace().join("deploy/peerage.service")).unwrap();
    let says = |key: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in the unit")).to_owned()
    };
    let memory = says("MemoryMax").strip_suffix('M').unwrap().parse::<u64>().unwrap();
    // The sum of the figures in the unit's comment.
    let figure = |line: &str| -> Option<u64> {
        let (figure, rest) = line.strip_prefix('#')?.trim_start().split_once(' ')?;
        rest.starts_with("MB  ").then(|| figure.parse().ok())?
    };
    let all: u64 = unit.lines().filter_map(figure).sum();
    assert!(all > 1000 && memory * 1_048_576 >= all * 3 / 2 * 1_000_000, "{memory} M for {all} MB");

    let tasks: u32 = says("TasksMax").parse().unwrap();
    let agent = Agent::start("pve-1");
    agent.create("north");
    for n in 0..20 {
        agent.set(&format!("a/{n}"), json!({ "x": n }));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let threads: u32 = threads.trim().parse().unwrap();
    assert!(threads + 16 + 2 <= tasks && threads <= 18, "{threads} of {tasks}");
}
