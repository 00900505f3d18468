//! A data folder that is full, on a file system of its own, or another user's.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use peerage_tests::Failure;
use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, eventually, until};
use serde_json::{Value, json};

use crate::writer::holds_all;

/// As small as a journaling file system can be and still hold an agent's data.
const VOLUME_MEGABYTES: u64 = 16;

/// How many documents are written at most before a full disk must have refused one.
const WRITES_MAX: usize = 10_000;

/// The size of a value that soon needs another block of the disk.
const VALUE_BYTES: usize = 4096;

#[test]
fn a_full_disk_refuses_writes_with_its_cause_and_goes_on_when_there_is_room() {
    let Some(kit) = Kit::here() else { return };
    let mut site = Site::built(&kit, 2);
    site[0].with_volume(VOLUME_MEGABYTES);
    site.power_on();
    site.found();
    let (full, other) = (&site[0], &site[1]);
    let agent = full.unit("MainPID");

    // The file that fills the disk lies in lost+found, which belongs to the file system, not to the
    // agent.
    let ballast = full.volume().path().join("lost+found/ballast");
    fill(&ballast);
    let (acknowledged, refusal) = write_until_refused(full);
    refusal.says(&["/var/lib/peerage", "space"]);
    let said = || full.journal(&["--priority=err"]);
    let why =
        |said: &String| said.contains("cannot write /var/lib/peerage") && said.contains("space");
    until("the journal says why", SOON, said, why);
    let members = || other.client().get("members").unwrap();
    let shows = |members: &Value| {
        let mut rows = members.as_array().into_iter().flatten();
        rows.any(|row| row["name"] == "pve-1" && row["notices"][0]["kind"] == "disk")
    };
    until("the other one shows it", LATER, members, shows);
    // The node with the full disk still reads, for itself and for others, and stays alive.
    holds_all(full, &acknowledged);
    holds_all(other, &acknowledged);
    other.set("storage/nas1", json!({ "server": "10.0.0.9" })).unwrap();
    until("it is seen alive", SOON, || other.state_of("pve-1"), |state| state == "alive");

    fs::remove_file(&ballast).unwrap();
    let write = || full.set("storage/nas2", json!({ "server": "10.0.0.8" }));
    eventually("it writes again by itself", LATER, write);
    site.all_read("storage/nas2", &json!({ "server": "10.0.0.8" }));
    site.all_read("storage/nas1", &json!({ "server": "10.0.0.9" }));
    holds_all(full, &acknowledged);
    assert_eq!(full.unit("MainPID"), agent, "it ran all the while");

    // The agent may be started while the disk is full. It succeeds when there is room at the
    // latest.
    fill(&ballast);
    write_until_refused(full);
    full.run(&["systemctl", "restart", "peerage"]);
    fs::remove_file(&ballast).unwrap();
    until("it starts", LATER, || full.unit("ActiveState"), |state| state == "active");
    site.all_see_all();
    holds_all(full, &acknowledged);
}

#[test]
fn a_file_of_another_user_is_refused_with_the_command_that_mends_it() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    host.answers();
    host.shell("systemctl stop peerage && chown root /var/lib/peerage/journal");
    host.run(&["systemctl", "start", "peerage"]);

    let said = || host.journal(&["--priority=err"]);
    let said = until("the journal says why", SOON, said, |said| said.contains("chown"));
    let mend = said.split('`').nth(1).expect("the command stands in back quotes");
    host.shell(mend);
    until("it starts by itself", LATER, || host.unit("ActiveState"), |state| state == "active");
    host.answers();
}

#[test]
fn a_data_folder_elsewhere_takes_one_line_in_the_unit_and_the_journal_says_which() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    host.shell("install --directory --owner=peerage --group=peerage --mode=700 /srv/peerage");
    host.shell("echo 'data_dir = \"/srv/peerage\"' >>/etc/peerage/peerage.toml");
    host.run(&["systemctl", "restart", "peerage"]);
    let said = || host.journal(&["--priority=err"]);
    until("the journal says why", SOON, said, |said| said.contains("ReadWritePaths="));

    host.shell("mkdir -p /etc/systemd/system/peerage.service.d");
    let line = "[Service]\\nReadWritePaths=/srv/peerage\\n";
    host.shell(&format!("printf '{line}' >/etc/systemd/system/peerage.service.d/data.conf"));
    host.shell("systemctl daemon-reload && systemctl restart peerage");
    host.answers();
    host.shell("test -s /srv/peerage/journal");
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4096, 512] {
        while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
    }
    // The file system may have put off a failed write until now.
    let _ = file.sync_all();
}

/// Sets documents until one is refused: the ones that were acknowledged, and the refusal.
fn write_until_refused(host: &Host) -> (Vec<String>, Failure) {
    let mut acknowledged = Vec::new();
    for number in 0..WRITES_MAX {
        let path = format!("filling/{number}");
        match host.set(&path, json!({ "value": "x".repeat(VALUE_BYTES) })) {
            Ok(_) => acknowledged.push(path),
            Err(refusal) => return (acknowledged, refusal),
        }
    }
    panic!("{WRITES_MAX} documents fit on a disk that is full");
}
