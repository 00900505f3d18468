//! Hosts with several addresses: traffic takes the best link that works, and nodes are found at
//! addresses that change.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use peerage_tests::netlab::Families;
use peerage_tests::patience::{LATER, eventually};
use peerage_tests::{Agent, Fleet, Lab, Layout, Verdicts};
use serde_json::{Value, json};

/// How soon a write arrives after the link that it would have taken was cut.
const MOVES_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn traffic_moves_to_the_second_network_when_the_first_dies_and_back() {
    let Some(lab) = Lab::built(Layout::of(3).networks(2).families(Families::V4)) else { return };
    let fleet = Fleet::found_of((0..3).map(|host| advertised(&lab, host)).collect());
    let [first, second] = lab.addresses(1)[..] else { panic!("two networks, two addresses") };
    all_reach(&fleet, "pve-2", first, LATER);
    let mut verdicts = Verdicts::from_now(&fleet);

    let cut = Instant::now();
    lab.cut_link(1, 0);
    fleet[0].set("after/cut", json!({"x": 1}));
    arrives(&fleet[1], "after/cut", MOVES_WITHIN);
    eprintln!("a write arrived {:?} after its link was cut", cut.elapsed());
    all_reach(&fleet, "pve-2", second, LATER);
    eprintln!("all moved to the second network after {:?}", cut.elapsed());
    verdicts.nobody_is_down(&fleet);

    let restored = Instant::now();
    lab.restore_link(1, 0);

    all_reach(&fleet, "pve-2", first, LATER);
    eprintln!("all moved back after {:?}", restored.elapsed());
    fleet[0].set("after/return", json!({"x": 1}));
    arrives(&fleet[1], "after/return", MOVES_WITHIN);
    verdicts.nobody_is_down(&fleet);
}

#[test]
fn a_whole_network_dies_and_nobody_is_called_down() {
    let Some(lab) = Lab::built(Layout::of(4).networks(2).families(Families::V4)) else { return };
    let fleet = Fleet::found_of((0..4).map(|host| advertised(&lab, host)).collect());
    for agent in fleet.iter() {
        let host = host_of(agent);
        all_reach(&fleet, agent.name(), lab.addresses(host)[0], LATER);
    }
    let mut verdicts = Verdicts::from_now(&fleet);

    (0..4).for_each(|host| lab.cut_link(host, 0));

    for agent in fleet.iter() {
        all_reach(&fleet, agent.name(), lab.addresses(host_of(agent))[1], LATER);
    }
    fleet[3].set("after/cut", json!({"x": 1}));
    fleet.all_read("after/cut", &json!({"x": 1}));
    verdicts.nobody_is_down(&fleet);
}

#[test]
fn a_node_whose_address_changes_while_it_runs_is_found_again() {
    let Some(mut lab) = Lab::built(Layout::of(4)) else { return };
    let fleet = Fleet::found_in(&lab);

    lab.renumber(2, 200);

    let new = lab.addresses(2);
    for agent in fleet.iter() {
        eventually(&format!("{} is told the new addresses", agent.name()), LATER, || {
            let member = member(agent, "pve-3");
            let listed = member["addresses"].as_array().cloned().unwrap_or_default();
            let ips = listed.iter().filter_map(Value::as_str).map(ip_of).collect::<Vec<_>>();
            if ips == new { Ok(()) } else { Err(member) }
        });
    }
    fleet[2].set("after/move", json!({"x": 1}));
    fleet.all_read("after/move", &json!({"x": 1}));
    fleet.all_see_all();
}

#[test]
fn a_node_that_comes_back_with_another_address_is_found() {
    let Some(mut lab) = Lab::built(Layout::of(4)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    fleet.kill(&[2]);
    let mut away = fleet.take(2);
    fleet.all_see("pve-3", &["down"], LATER);
    lab.renumber(2, 200);

    away.restart();

    fleet.push(away);
    fleet.all_see_all();
    all_reach_one_of(&fleet, "pve-3", &lab.addresses(2), LATER);
}

/// Each node that moved still knows where the other two are, though neither of those knows where it
/// is.
#[test]
fn a_node_and_half_of_its_peers_come_back_with_other_addresses() {
    let Some(mut lab) = Lab::built(Layout::of(4)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    fleet.kill(&[1, 2]);
    lab.renumber(1, 201);
    lab.renumber(2, 202);

    fleet[1].restart();
    fleet[2].restart();

    fleet.all_see_all();
    fleet[1].set("after/move", json!({"x": 1}));
    fleet.all_read("after/move", &json!({"x": 1}));
}

#[test]
fn a_fleet_with_ipv6_alone_is_as_any_other() {
    let Some(lab) = Lab::built(Layout::of(4).families(Families::V6)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    fleet[1].set("docs/one", json!({"x": 1}));
    fleet.all_read("docs/one", &json!({"x": 1}));
    for address in fleet[0].members().iter().flat_map(|m| m["addresses"].as_array()).flatten() {
        assert!(address.as_str().is_some_and(|text| text.starts_with('[')), "{address}");
    }
    fleet.kill(&[3]);
    let mut gone = fleet.take(3);
    fleet.all_see("pve-4", &["down"], LATER);
    gone.restart();
    fleet.push(gone);
    fleet.all_see_all();
}

#[test]
fn a_node_without_ipv4_is_reached_by_those_that_have_both() {
    let Some(lab) = Lab::built(Layout::of(4)) else { return };
    lab.host(3)
        .ip("addr flush dev eth0 scope global\naddr add fd77::99/64 dev eth0 nodad\n")
        .unwrap();
    let fleet = Fleet::found_in(&lab);
    fleet[3].set("docs/one", json!({"x": 1}));
    fleet.all_read("docs/one", &json!({"x": 1}));
    all_reach_one_of(&fleet, "pve-4", &["fd77::99".parse().unwrap()], LATER);
}

/// Hypervisors have the same addresses on their bridges. The joiner was told that "the host at
/// 10.10.1.1 is node X, not the one that was dialled", where X was the joiner itself.
#[test]
fn an_address_that_the_joiner_has_itself_is_said_to_be_its_own() {
    let Some(lab) = Lab::built(Layout::of(2).families(Families::V4)) else { return };
    for host in 0..2 {
        let bridge =
            "link add lan1 type bridge\nlink set lan1 up\naddr add 10.10.1.1/24 dev lan1\n";
        lab.host(host).ip(bridge).unwrap();
    }
    let mut founder = lab.agent(0).args(&["--advertise", "10.10.1.1"]);
    let mut joiner = lab.agent(1);
    founder.restart();
    joiner.restart();
    founder.create("north");
    let token = founder.invite(json!({}));

    let refused = joiner.cli(&["join", &token, "--yes"]).exits(1);

    refused.says(&["10.10.1.1:4747", "that address is this very host's"]);
    let me = joiner.status()["node"]["id"].as_str().unwrap()[..8].to_owned();
    assert!(!refused.stderr.contains(&me), "{}", refused.stderr);
}

/// QUIC needs packets of 1,228 bytes. Over a tunnel that takes only smaller ones ping works, and
/// the joiner was once told that the seed is silent, although the kernel knew the size.
#[test]
fn a_path_that_takes_no_packets_of_quic_is_said_to_be_too_narrow() {
    let Some(lab) = Lab::built(Layout::of(2).families(Families::V4)) else { return };
    lab.host(1).ip("link set eth0 mtu 1227\n").unwrap();
    let [mut founder, mut joiner] = [lab.agent(0), lab.agent(1)];
    founder.restart();
    joiner.restart();
    founder.create("north");
    let token = founder.invite(json!({}));

    joiner.cli(&["join", &token, "--yes"]).exits(1).says(&["1227 bytes", "1228", "MTU"]);

    lab.host(1).ip("link set eth0 mtu 1228\n").unwrap();
    joiner.join(&token).expect("that is just enough");
}

/// An agent that tells its addresses in the order of the networks.
fn advertised(lab: &Lab, host: usize) -> Agent {
    let addresses = lab.addresses(host).iter().map(ToString::to_string).collect::<Vec<_>>();
    let flags = addresses.iter().flat_map(|address| ["--advertise", address]).collect::<Vec<_>>();
    lab.agent(host).args(&flags)
}

/// Waits until every other agent reaches a member directly at this address.
#[track_caller]
fn all_reach(fleet: &[Agent], name: &str, address: IpAddr, bound: Duration) {
    all_reach_one_of(fleet, name, &[address], bound);
}

#[track_caller]
fn all_reach_one_of(fleet: &[Agent], name: &str, addresses: &[IpAddr], bound: Duration) {
    for agent in fleet.iter().filter(|agent| agent.name() != name) {
        let what = format!("{} reaches {name} at {addresses:?}", agent.name());
        eventually(&what, bound, || {
            let member = member(agent, name);
            let link = member["link"].as_str().map(ip_of);
            if link.is_some_and(|ip| addresses.contains(&ip)) { Ok(()) } else { Err(member) }
        });
    }
}

#[track_caller]
fn arrives(agent: &Agent, path: &str, bound: Duration) {
    eventually(&format!("{} reads {path}", agent.name()), bound, || match agent.fields(path) {
        Value::Null => Err("nothing there"),
        _ => Ok(()),
    });
}

/// A member as an agent sees it.
fn member(agent: &Agent, name: &str) -> Value {
    let members = agent.members();
    members.into_iter().find(|member| member["name"] == name).unwrap_or_default()
}

/// The host that an agent of a lab runs on.
fn host_of(agent: &Agent) -> usize {
    let number: usize = agent.name().trim_start_matches("pve-").parse().expect("a number");
    number - 1
}

/// The address in `ADDRESS:PORT`.
fn ip_of(text: &str) -> IpAddr {
    let address: std::net::SocketAddr = text.parse().expect("agents write whole addresses");
    address.ip().to_canonical()
}
