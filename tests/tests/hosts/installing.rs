//! From the package to a member.

use std::fs;
use std::thread;

use peerage_tests::fleet::DATA_CENTER;
use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, until};
use serde_json::json;

/// A user without any rights, and its group.
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534";

#[test]
fn what_the_package_installs_runs_and_knows_who_may_do_what() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 1);
    let host = &site[0];
    host.install();
    host.answers();

    let unit = ["ActiveState", "SubState", "UnitFileState", "User"].map(|p| host.unit(p));
    assert_eq!(unit, ["active", "running", "enabled", "peerage"]);
    assert_ne!(host.shell("id -u peerage"), "0");
    assert_eq!(owner(host, "/run/peerage/peerage.sock"), "666 peerage:peerage");
    assert_eq!(owner(host, "/run/peerage"), "755 peerage:peerage");
    assert_eq!(owner(host, "/var/lib/peerage"), "700 peerage:peerage");
    assert_eq!(owner(host, "/etc/peerage/peerage.toml"), "644 root:root");
    assert_eq!(host.unit("StatusText"), "standalone");
    assert_eq!(host.shell("systemctl --failed --plain --no-legend"), "");

    // Every user of the host may look; only root and the group may act.
    let as_nobody = |groups: &str, command: &str| {
        host.run(&["sh", "-c", &format!("{NOBODY} {groups} peerage {command}")])
    };
    as_nobody("--clear-groups", "status").exits(0);
    as_nobody("--clear-groups", "create mine").exits(4).says(&["peerage"]);
    let group = format!("--groups={}", host.shell("getent group peerage | cut -d: -f3"));
    as_nobody(&group, &format!("create {DATA_CENTER}")).exits(0);
    assert_eq!(host.state_of("pve-1"), "alive");
    let status = || host.unit("StatusText");
    until("systemd shows how it stands", LATER, status, |text| text.contains(DATA_CENTER));
}

#[test]
fn ten_hosts_join_by_a_pasted_token_or_by_themselves() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::booted(&kit, 10);
    site.at_once(Host::install);
    let (founder, lonely) = (&site[0], &site[9]);
    founder.cli(&["create", DATA_CENTER]).exits(0);
    let token = founder.cli(&["invite", "--uses", "9"]).exits(0).stdout;

    // Eight hosts join at once as `invite` advises, so that no other user sees the token.
    thread::scope(|scope| {
        for host in &site[1..9] {
            let token = token.trim();
            scope.spawn(move || {
                let joined = host.run_with(&["peerage", "join", "-", "--yes"], token).exits(0);
                joined.says(&[host.name(), DATA_CENTER]);
            });
        }
    });

    // The last host joins as by a provisioning tool, which at first writes a wrong file.
    fs::write(lonely.path("/etc/peerage/join"), "peerage1-nonsense\n").unwrap();
    lonely.shell("chown root:peerage /etc/peerage/join && chmod 640 /etc/peerage/join");
    lonely.shell("echo 'join_file = \"/etc/peerage/join\"' >>/etc/peerage/peerage.toml");
    lonely.shell("systemctl restart peerage");
    let warnings = || lonely.journal(&["--priority=warning"]);
    let names_the_file = |said: &String| said.contains("/etc/peerage/join");
    let said = until("the journal says why", LATER, warnings, names_the_file);
    assert!(said.contains("not joined yet"), "{said}");
    // The agent reads the file again without anybody's help.
    fs::write(lonely.path("/etc/peerage/join"), &token).unwrap();

    site.all_see_all();
    lonely.set("storage/nas1", json!({ "server": "10.0.0.9" })).unwrap();
    site.all_read("storage/nas1", &json!({ "server": "10.0.0.9" }));
    let journal = || founder.journal(&["--priority=info"]);
    let joined = |said: &String| said.contains("pve-10 joined, admitted by");
    until("the journal tells of it", SOON, journal, joined);
    assert_eq!(founder.journal(&["--priority=err"]), "");
}

/// Mode and owner of a file.
fn owner(host: &Host, path: &str) -> String {
    host.shell(&format!("stat --format='%a %U:%G' {path}"))
}
