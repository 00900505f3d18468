//! Hosts that reboot, lose their power, are paused, or are restarted one after the other.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::hosts::{Host, Kit, Site};
use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::skipped;
use serde_json::{Value, json};

use crate::writer::{Writer, holds_all};

/// A stall that happens on every host and is no failure.
const STALL: Duration = Duration::from_secs(1);

/// The longest stall that still counts on a busy machine.
const STALL_MAX: Duration = Duration::from_millis(1_100);

/// A pause that is longer than any failure detector waits, and that the watchdog has to outlast.
const PAUSE: Duration = Duration::from_secs(30);

/// Room for the data of an agent that writes for some seconds.
const VOLUME_MEGABYTES: u64 = 64;

#[test]
fn hosts_that_reboot_come_back_as_who_they_were() {
    let Some(kit) = Kit::here() else { return };
    let mut site = Site::founded(&kit, 3);
    site[1].set("storage/nas1", json!({ "server": "10.0.0.9" })).unwrap();
    site.all_read("storage/nas1", &json!({ "server": "10.0.0.9" }));
    let before = who_is_who(&site[0]);

    site[2].reboot();
    site[2].up();
    site.all_see_all();
    let told = || site[0].told("stopped", "pve-3");
    until("a host that goes down says goodbye", SOON, told, |told| !told.is_empty());

    site.iter_mut().for_each(Host::reboot);
    site.iter_mut().for_each(Host::up);
    site.all_see_all();
    for host in site.iter() {
        assert_eq!(who_is_who(host), before, "as {} sees it", host.name());
        assert_eq!(host.fields("storage/nas1"), json!({ "server": "10.0.0.9" }));
        assert_eq!(host.journal(&["--boot", "--priority=warning"]), "", "{}", host.name());
    }
}

#[test]
fn a_host_that_boots_without_its_cable_comes_back_when_it_is_plugged_in() {
    let Some(kit) = Kit::here() else { return };
    let mut site = Site::founded(&kit, 3);
    site.network().cut_link(2, 0);
    site.all_see("pve-3", &["down"], LATER);
    site[2].reboot();
    site[2].up();
    site[2].answers();
    site[2].set("while/alone", json!({ "written": true })).unwrap();

    site.network().restore_link(2, 0);
    site.all_see_all();
    site.all_read("while/alone", &json!({ "written": true }));
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_of_one_host_and_of_all() {
    let Some(kit) = Kit::here() else { return };
    let mut site = Site::built(&kit, 3);
    site.iter_mut().for_each(|host| host.with_volume(VOLUME_MEGABYTES));
    site.power_on();
    site.found();

    let writers = writers(&site, "first");
    site[2].power_cut();
    site.all_see("pve-3", &["down"], LATER);
    let mut acknowledged: Vec<_> = writers.into_iter().flat_map(Writer::stop).collect();
    site[2].power_on();
    site[2].up();
    site.all_see_all();
    site.iter().for_each(|host| holds_all(host, &acknowledged));

    let writers = self::writers(&site, "second");
    site.iter_mut().for_each(Host::power_cut);
    acknowledged.extend(writers.into_iter().flat_map(Writer::stop));
    site.power_on();
    site.all_see_all();
    site.iter().for_each(|host| holds_all(host, &acknowledged));
}

#[test]
fn a_host_that_stalls_is_not_called_down_and_one_that_was_paused_comes_back() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::founded(&kit, 3);
    let paused = &site[2];
    let agent = paused.unit("MainPID");
    let down = || -> Vec<Value> {
        let told = site.iter().flat_map(Host::events);
        told.filter(|event| event["kind"] == "down").collect()
    };
    let before = down();

    let started = Instant::now();
    paused.freeze();
    thread::sleep(STALL);
    paused.thaw();
    let stalled = started.elapsed();
    site.all_see_all();
    if stalled <= STALL_MAX {
        assert_eq!(down(), before, "neither it nor the others, after {stalled:?}");
    } else {
        skipped("this machine is too busy to freeze a host for a second");
    }

    paused.freeze();
    site.all_see("pve-3", &["down"], LATER);
    thread::sleep(PAUSE);
    paused.thaw();
    site.all_see_all();
    for other in &site[..2] {
        let back = || other.told("alive", "pve-3");
        let same = |told: &Vec<String>| told.last().is_some_and(|told| told.contains("same boot"));
        until("it is told as back", SOON, back, same);
    }
    assert_eq!(paused.unit("MainPID"), agent, "the watchdog let it live");
}

#[test]
fn a_restart_of_agent_after_agent_loses_nothing_and_each_says_goodbye() {
    let Some(kit) = Kit::here() else { return };
    let site = Site::founded(&kit, 5);
    let mut acknowledged = Vec::new();
    for (index, host) in site.iter().enumerate() {
        let other = &site[(index + 1) % site.len()];
        let writer = Writer::on(other, &format!("while/{}", host.name()));
        writer.gets_on_by(10);
        host.shell("systemctl restart peerage");
        let goodbye = || other.told("stopped", host.name());
        until("its goodbye is heard", SOON, goodbye, |told| !told.is_empty());
        site.all_see_all();
        writer.gets_on_by(10);
        acknowledged.extend(writer.stop());
    }
    for host in site.iter() {
        holds_all(host, &acknowledged);
        assert_eq!(host.client().get("conflicts").unwrap(), json!([]));
        let down = host.events().into_iter().filter(|event| event["kind"] == "down");
        assert_eq!(down.collect::<Vec<_>>(), Vec::<Value>::new(), "{}", host.name());
        assert_eq!(host.journal(&["--priority=warning"]), "", "{}", host.name());
    }
}

/// A writer on each host, each with some writes behind it.
fn writers(site: &Site, name: &str) -> Vec<Writer> {
    let begin = |host: &Host| Writer::on(host, &format!("{name}/{}", host.name()));
    let writers: Vec<_> = site.iter().map(begin).collect();
    writers.iter().for_each(|writer| writer.gets_on_by(50));
    writers
}

/// Names and ids of all members, as a host knows them.
fn who_is_who(host: &Host) -> Vec<Value> {
    let list = || host.client().get("members").unwrap_or_default();
    let list = until("it lists all", LATER, list, |list| list.as_array().is_some());
    let mut known: Vec<_> = list.as_array().into_iter().flatten().cloned().collect();
    known.sort_by_key(|member| member["name"].to_string());
    known.iter().map(|member| json!([member["name"], member["id"]])).collect()
}
