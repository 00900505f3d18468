//! What signals do to an agent: a goodbye or a line in the log, never a death without a word.

use std::fs;

use peerage_tests::patience::{SOON, until};
use peerage_tests::{Agent, Fleet, process};
use rustix::process::Signal;

/// Signals that do not mean the agent's end. Left alone, each would end it.
const STRAY: [(&str, Signal); 9] = [
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGALRM", Signal::ALARM),
    ("SIGXCPU", Signal::XCPU),
    ("SIGVTALRM", Signal::VTALARM),
    ("SIGPROF", Signal::PROF),
    ("SIGIO", Signal::IO),
    ("SIGSTKFLT", Signal::STKFLT),
];

#[test]
fn a_stray_signal_is_a_line_in_the_log_and_the_agent_goes_on() {
    let agent = Agent::start("pve-1");
    for (name, stray) in STRAY {
        process::signal(agent.pid(), stray);
        let log = || agent.log();
        until(&format!("{name} is told"), SOON, log, |log| log.contains(name));
        agent.status();
    }
    // SIGPIPE comes from a reader that hung up, and SIGXFSZ with a write that fails. The agent goes
    // on without a line.
    for known in [Signal::PIPE, Signal::XFSZ] {
        process::signal(agent.pid(), known);
        agent.status();
    }
}

#[test]
fn a_hangup_reads_the_configuration_anew_and_takes_over_what_it_can() {
    let mut agent = Agent::named("pve-1").config("log = \"warn\"\n");
    agent.restart();
    assert_eq!(agent.log(), "", "what is no warning is not told");
    let says = |words: &str| {
        let log = || agent.log();
        until(&format!("{words:?} is told"), SOON, log, |log| log.contains(words));
    };
    fs::write(agent.file("peerage.toml"), "log = \"info\"\ngroup = \"wheel\"\n").unwrap();
    process::signal(agent.pid(), Signal::HUP);
    says("the log is at \"info\" now; what changed of group holds from the next start");

    fs::write(agent.file("peerage.toml"), "lgo = \"info\"\n").unwrap();
    process::signal(agent.pid(), Signal::HUP);
    says("nothing is changed: there is no key \"lgo\"");
    agent.status();
}

#[test]
fn a_signal_to_stop_is_a_goodbye() {
    for (name, stop) in [
        ("SIGTERM", Signal::TERM),
        ("SIGINT", Signal::INT),
        ("SIGQUIT", Signal::QUIT),
        ("SIGPWR", Signal::POWER),
    ] {
        let mut fleet = Fleet::found(2);
        let mut leaver = fleet.take(1);
        process::signal(leaver.pid(), stop);
        assert!(leaver.ended().success(), "{name}: {}", leaver.log());
        let events = || fleet[0].cli(&["events"]).exits(0).stdout;
        until(&format!("{name} is heard as a goodbye"), SOON, events, |events| {
            events.lines().any(|line| line.contains("stopped") && line.contains(leaver.name()))
        });
    }
}
