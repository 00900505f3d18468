//! What becomes of a node when its package is upgraded, removed and purged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peerage_tests::Ran;
use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, until};
use serde_json::json;

/// The version of the package that is upgraded to.
const NEWER: &str = "99.0-1";

#[test]
fn an_upgrade_of_host_after_host_keeps_data_and_configuration() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::founded(&kit, 3);
    let folder = tempfile::tempdir().unwrap();
    let newer = newer_package(kit.package(), folder.path());
    let before = site[0].cli(&["status", "--json"]).json()["datacenter"].clone();
    // An administrator's own line, which no upgrade may take away.
    site[1].shell("echo 'log = \"info,peerage::mesh=debug\"' >>/etc/peerage/peerage.toml");

    for (round, host) in site.iter().enumerate() {
        let ran_before = host.unit("MainPID");
        fs::copy(&newer, host.path("/srv/newer.deb")).unwrap();
        host.run(&["dpkg", "--install", "/srv/newer.deb"]).exits(0);
        assert_ne!(host.unit("MainPID"), ran_before, "the new binary runs");
        assert_eq!(host.shell("dpkg-query --show --showformat='${Version}' peerage"), NEWER);
        // Hosts with the old and the new version write, and all of them read it.
        for writer in site.iter() {
            writer.answers();
            let path = format!("round/{round}/{}", writer.name());
            writer.set(&path, json!({ "by": writer.name() })).unwrap();
            site.all_read(&path, &json!({ "by": writer.name() }));
        }
    }

    site.all_see_all();
    assert_eq!(site[0].cli(&["status", "--json"]).json()["datacenter"], before);
    let config = site[1].shell("cat /etc/peerage/peerage.toml");
    assert!(config.contains("peerage::mesh=debug"), "{config}");
    assert_eq!(site[1].unit("NeedDaemonReload"), "no");
}

#[test]
fn a_removed_package_leaves_the_node_and_a_purged_one_nothing_but_its_user() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::founded(&kit, 2);
    let (first, second) = (&site[0], &site[1]);
    first.set("storage/nas1", json!({ "server": "10.0.0.9" })).unwrap();
    site.all_read("storage/nas1", &json!({ "server": "10.0.0.9" }));
    let node = second.cli(&["status", "--json"]).json()["node"]["id"].clone();

    second.run(&["dpkg", "--remove", "peerage"]).exits(0);
    let seen = || first.told("stopped", "pve-2");
    until("the removal said goodbye", SOON, seen, |told| !told.is_empty());
    second.shell("! test -e /usr/bin/peerage && ! systemctl --quiet is-active peerage");
    second.shell("test -s /var/lib/peerage/journal && test -e /etc/peerage/peerage.toml");

    second.install();
    site.all_see_all();
    assert_eq!(second.cli(&["status", "--json"]).json()["node"]["id"], node, "who it was");
    assert_eq!(second.fields("storage/nas1"), json!({ "server": "10.0.0.9" }));

    // Join Information may lie beside the configuration; a secret must not be left behind.
    second.shell("touch /etc/peerage/join");
    second.run(&["dpkg", "--purge", "peerage"]).exits(0);
    for gone in ["/var/lib/peerage", "/etc/peerage", "/run/peerage", "/usr/bin/peerage"] {
        assert_eq!(second.run(&["test", "-e", gone]).code, 1, "{gone} is left");
    }
    assert_eq!(second.shell("find /etc/systemd /var/lib/systemd -name '*peerage*'"), "");
    second.shell("getent passwd peerage");
    assert_eq!(second.shell("systemctl --failed --plain --no-legend"), "");

    // After a new installation the host is another node, which knows of no Data Center.
    second.install();
    second.answers();
    let status = second.cli(&["status", "--json"]).json();
    assert!(status["datacenter"].is_null() && status["node"]["id"] != node, "{status}");
    first.cli(&["remove", "pve-2"]).exits(0);
    rejoin(first, second);
    until("it reads again", LATER, || second.fields("storage/nas1"), |read| !read.is_null());
}

fn rejoin(seed: &Host, host: &Host) {
    let token = seed.cli(&["invite"]).exits(0).stdout;
    host.cli(&["join", token.trim(), "--yes"]).exits(0);
}

/// The same package under a higher version.
fn newer_package(package: &Path, folder: &Path) -> PathBuf {
    let (tree, newer) = (folder.join("tree"), folder.join("newer.deb"));
    Ran::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&tree), "").exits(0);
    let control = fs::read_to_string(tree.join("DEBIAN/control")).unwrap();
    let renumbered = control.lines().map(|line| match line.split_once(": ") {
        Some(("Version", _)) => format!("Version: {NEWER}\n"),
        _ => format!("{line}\n"),
    });
    fs::write(tree.join("DEBIAN/control"), renumbered.collect::<String>()).unwrap();
    Ran::run(Command::new("dpkg-deb").args(["-Znone", "--build"]).arg(&tree).arg(&newer), "")
        .exits(0);
    newer
}
