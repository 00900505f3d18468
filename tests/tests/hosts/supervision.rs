//! What systemd does for an agent that hangs, crashes, or cannot start.

use peerage_tests::fleet::DATA_CENTER;
use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, until};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn an_agent_that_hangs_or_crashes_is_started_anew_with_what_it_had() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    assert_eq!(host.unit("WatchdogUSec"), "1min");
    // The test shortens the watchdog's time, to wait less.
    host.shell("mkdir -p /run/systemd/system/peerage.service.d");
    host.shell("cd /run/systemd/system/peerage.service.d && printf '[Service]\\nWatchdogSec=3s\\n' >soon.conf");
    host.shell("systemctl daemon-reload && systemctl restart peerage");
    host.cli(&["create", DATA_CENTER]).exits(0);
    host.set("storage/nas1", json!({ "server": "10.0.0.9" })).unwrap();

    for (fatal, cause) in [
        (Signal::STOP, "Watchdog timeout"),
        (Signal::KILL, "status=9/KILL"),
        (Signal::ABORT, "status=6/ABRT"),
        // These signals do not mean the unit, which only `systemctl stop` stops, so systemd starts
        // it again.
        (Signal::TERM, "Scheduled restart job"),
        (Signal::QUIT, "Scheduled restart job"),
    ] {
        let before = host.unit("MainPID");
        host.signal_agent(fatal);
        let process = || host.unit("MainPID");
        until(&format!("systemd acts on {fatal:?}"), LATER, process, |now| *now != before);
        let process = || host.unit("MainPID");
        until(&format!("it runs again after {fatal:?}"), LATER, process, |now| now != "0");
        host.answers();
        assert_eq!(host.fields("storage/nas1"), json!({ "server": "10.0.0.9" }), "{fatal:?}");
        let said = || journal_of_systemd(host);
        until("the journal says why", SOON, said, |said| said.contains(cause));
    }
}

#[test]
fn a_reload_changes_the_log_and_ends_nothing() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    let before = host.unit("MainPID");
    host.shell("echo 'log = \"debug\"' >>/etc/peerage/peerage.toml && systemctl reload peerage");
    let said = || host.journal(&[]);
    until("the journal says so", SOON, said, |said| said.contains("the log is at \"debug\" now"));
    assert_eq!(host.unit("MainPID"), before);
    host.answers();
}

#[test]
fn a_wrong_configuration_is_named_in_the_journal_and_not_tried_again() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    host.shell("echo 'lisen = \"[::]:4747\"' >>/etc/peerage/peerage.toml");
    assert_ne!(host.run(&["systemctl", "restart", "peerage"]).code, 0, "whoever restarts it hears");

    until("it failed", SOON, || host.unit("ActiveState"), |state| state == "failed");
    assert_eq!(host.unit("NRestarts"), "0");
    let words = ["lisen", "/etc/peerage/peerage.toml", "peerage config show"];
    let said = || host.journal(&["--priority=err"]);
    until("the journal says why", SOON, said, |said| words.iter().all(|word| said.contains(word)));

    host.shell("sed -i /lisen/d /etc/peerage/peerage.toml && systemctl restart peerage");
    host.answers();
}

fn journal_of_systemd(host: &Host) -> String {
    host.shell("journalctl --no-pager --quiet --output=cat UNIT=peerage.service _PID=1")
}
