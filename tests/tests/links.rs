//! Where nodes are found: by links that are given, that are set at run time, and that follow the
//! host's addresses as they come and go.

use std::fs;
use std::process::Command;

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Ran, skipped};
use serde_json::{Value, json};

/// The exit code of a command that makes no sense.
const USAGE: i32 = 2;

#[test]
fn links_of_the_configuration_reach_the_others_the_best_first() {
    let mut one = Agent::named("pve-1").on_host("0.0.0.0").config(
        "[[link]]\naddress = '127.0.0.3'\npriority = 2\n\
         [[link]]\naddress = '127.0.0.2'\nname = 'fast'\n",
    );
    one.restart();
    one.create("north");
    let two = joined("pve-2", &one);

    let port = one.port().unwrap();
    let expected = [format!("127.0.0.2:{port}"), format!("127.0.0.3:{port}")];
    finds(&two, "pve-1", &expected);
    let links = one.cli(&["links", "--json"]).exits(0).json();
    assert_eq!(
        (&links["source"], &links["layer"]),
        (&json!("config"), &json!(one.file("peerage.toml")))
    );
    assert_eq!(links["links"][0]["address"], expected[0]);
    assert_eq!(
        (&links["links"][0]["name"], &links["links"][1]["priority"]),
        (&json!("fast"), &json!(2))
    );
    let seeds = inspected(&one, &one.invite(json!({})));
    assert_eq!(seeds[0]["addresses"], json!(expected));
    let of_one = two.cli(&["links", "pve-1", "--json"]).exits(0).json();
    assert_eq!(of_one["addresses"], json!(expected));
}

#[test]
fn links_set_at_run_time_reach_the_others_and_outlast_a_restart() {
    let mut one = Agent::named("pve-1").on_host("0.0.0.0").args(&["--advertise", "127.0.0.1"]);
    one.restart();
    one.create("north");
    let two = joined("pve-2", &one);
    let port = one.port().unwrap();
    let advertised = [format!("127.0.0.1:{port}")];
    finds(&two, "pve-1", &advertised);

    one.cli(&["links", "set", "127.0.0.1@2", "127.0.0.2"]).exits(0).says(&["--advertise"]);

    let set = [format!("127.0.0.2:{port}"), format!("127.0.0.1:{port}")];
    finds(&two, "pve-1", &set);
    one.kill();
    one.restart();
    assert_eq!(one.client().get("links").unwrap()["source"], "set");
    assert_eq!(one.status()["addresses"], json!(set));
    finds(&two, "pve-1", &set);

    one.cli(&["links", "auto"]).exits(0);

    finds(&two, "pve-1", &advertised);
    let links = one.client().get("links").unwrap();
    assert_eq!(
        (&links["source"], &links["layer"]),
        (&json!("config"), &json!("the flag --advertise"))
    );
}

#[test]
fn links_that_make_no_sense_are_refused_and_change_nothing() {
    let agent = Agent::start("pve-1");
    let before = agent.client().get("links").unwrap();
    for (words, says) in [
        (&["10.0.0.300"][..], "four numbers from 0 to 255"),
        (&["pve_1..lan:4747"], "nothing before one of its dots"),
        (&["pve-1.lan:x"], "does not end with a port"),
        (&["a.lan", "b.lan", "c.lan", "d.lan", "e.lan"], "at most 4 of these"),
        (&["fe80::1"], "one cable"),
        (&["0.0.0.0"], "nobody can be found"),
        (&["10.0.1.5@0"], "from 1 (the best) to 255"),
        (&["10.0.1.5", "::ffff:10.0.1.5"], "twice"),
    ] {
        let line = [&["links", "set"], words].concat();
        agent.cli(&line).exits(USAGE).says(&[says]);
    }
    let failure = agent.client().patch("links", &json!({"links": []})).unwrap_err();
    assert_eq!(failure.says(&["no link"]).code(), "bad_request");
    let misspelt = json!({"links": [{"addres": "10.0.1.5"}]});
    agent.client().patch("links", &misspelt).unwrap_err().says(&["addres"]);
    assert_eq!(agent.client().get("links").unwrap(), before);
}

#[test]
fn a_node_that_comes_back_elsewhere_is_found_by_those_that_do_not_know_where() {
    let one = Agent::start("pve-1");
    one.create("north");
    let mut two = joined("pve-2", &one);
    let before = two.status()["addresses"].clone();
    two.stop();
    until("pve-1 sees it down", LATER, || one.state_of("pve-2"), |state| state == "down");

    two.move_to("127.0.0.9");
    two.restart();

    until("pve-1 sees it alive", LATER, || one.state_of("pve-2"), |state| state == "alive");
    let now = two.status()["addresses"].clone();
    assert_ne!(now, before);
    let now: Vec<String> = serde_json::from_value(now).unwrap();
    finds(&one, "pve-2", &now);
    one.set("a/b", json!({"x": 1}));
    until("it goes on as before", SOON, || two.fields("a/b"), |fields| *fields == json!({"x": 1}));
}

#[test]
fn nodes_of_one_family_each_join_by_a_seed_that_has_both() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return skipped("this host has no IPv6");
    }
    let both = ["--advertise", "::1", "--advertise", "127.0.0.1"];
    let mut dual = Agent::named("dual").on_host("[::]").args(&both);
    dual.restart();
    dual.create("north");
    let token = dual.invite(json!({"uses": "any"}));
    let mut six = Agent::named("six").on_host("[::1]");
    let mut four = Agent::named("four").on_host("0.0.0.0").args(&["--advertise", "127.0.0.1"]);
    for agent in [&mut six, &mut four] {
        agent.restart();
        agent.join(&token).expect("it joins by the family that it has");
    }

    four.set("a/b", json!({"x": 1}));
    until("it comes through the seed", LATER, || six.fields("a/b"), |f| *f == json!({"x": 1}));
    for agent in [&dual, &six, &four] {
        for path in ["links", "members", "status"] {
            let said = agent.client().get(path).unwrap().to_string();
            assert!(!said.contains("::ffff"), "{} tells of {said}", agent.name());
        }
    }
    let links = four.client().get("links").unwrap();
    let to_dual = links["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == "dual");
    let used = to_dual.unwrap()["address"].as_str().unwrap_or_default().to_owned();
    assert!(used.starts_with("127.0.0.1:"), "{links}");
}

#[test]
fn addresses_that_come_and_go_are_followed_while_the_agent_runs() {
    if !alone_in_a_network(&["ip addr add 10.77.0.1/24 dev eth7"]) {
        return;
    }
    let (mut one, two) = pair_on("[::]");
    let port = one.port().unwrap();
    let first = format!("10.77.0.1:{port}");
    finds(&two, "pve-1", std::slice::from_ref(&first));
    assert_eq!(one.client().get("links").unwrap()["links"][0]["interface"], "eth7");

    run("ip addr add fd77::1/64 dev eth7 nodad");
    finds(&two, "pve-1", &[first, format!("[fd77::1]:{port}")]);

    // The host is renumbered: the address that both nodes use goes away, they meet at another one,
    // and the member's record names it.
    run("ip addr add 10.78.0.1/24 dev eth7");
    run("ip addr del 10.77.0.1/24 dev eth7");
    finds(&two, "pve-1", &[format!("10.78.0.1:{port}"), format!("[fd77::1]:{port}")]);
    one.set("a/a", json!({"x": 1}));
    until(
        "what one writes the other reads",
        LATER,
        || two.fields("a/a"),
        |f| *f == json!({"x": 1}),
    );

    // A node without a usable address keeps the last ones in its record: nobody could hear of
    // others.
    run("ip addr flush dev eth7");
    run("ip addr add 10.79.0.1/24 dev eth7");
    says(&one, &[format!("10.79.0.1:{port}")]);
    let told = one.log().matches("addresses changed").count();
    assert_eq!(told, 3, "one word for each time that it settled:\n{}", one.log());

    // A node that starts before its host has a network keeps them, too.
    one.stop();
    run("ip addr flush dev eth7");
    one.restart();
    assert_eq!(one.status()["addresses"], json!([format!("127.0.0.1:{port}")]));
    // The agent did the writes of its start before this one.
    one.set("a/b", json!({"x": 1}));
    says(&one, &[format!("10.79.0.1:{port}")]);
    run("ip addr add 10.80.0.1/24 dev eth7");
    says(&one, &[format!("10.80.0.1:{port}")]);
}

#[test]
fn a_host_without_ipv6_runs_on_ipv4_by_the_same_default() {
    let off = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    if !alone_in_a_network(&["ip addr add 10.77.0.1/24 dev eth7"]) {
        return;
    }
    fs::write(off, "1").expect("root may");
    let (one, two) = pair_on("[::]");
    finds(&two, "pve-1", &[format!("10.77.0.1:{}", one.port().unwrap())]);
}

#[test]
fn a_host_without_ipv4_runs_on_ipv6() {
    if !alone_in_a_network(&["ip addr add fd77::1/64 dev eth7 nodad"]) {
        return;
    }
    let (one, two) = pair_on("[::]");
    finds(&two, "pve-1", &[format!("[fd77::1]:{}", one.port().unwrap())]);
}

/// This was seen on hosts with bridges for guests: the token named the first four of the bridges
/// and silently left out the address of the network.
#[test]
fn join_information_names_the_default_routes_address_and_tells_what_it_left_out() {
    if !alone_in_a_network(&["ip addr add 192.0.2.7/24 dev eth7"]) {
        return;
    }
    run("ip route add default via 192.0.2.1");
    (1..=5).for_each(bridge);
    let one = founder_on("0.0.0.0");

    let made = one.cli(&["invite"]).exits(0);

    let port = one.port().unwrap();
    let named = [
        format!("192.0.2.7:{port}"),
        format!("10.10.1.1:{port}"),
        format!("10.10.2.1:{port}"),
        format!("10.10.3.1:{port}"),
    ];
    assert_eq!(inspected(&one, made.stdout.trim())[0]["addresses"], json!(named));
    made.says(&["left out", "10.10.4.1", "10.10.5.1", "peerage links set"]);
    let warnings = one.client().post("invites", &json!({})).unwrap()["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().contains("10.10.5.1"), "{warnings}");
    // Links that the operator sets stay in the order in which they were given.
    one.cli(&["links", "set", "10.10.5.1", "192.0.2.7"]).exits(0);
    let made = one.client().post("invites", &json!({})).unwrap();
    let given = [format!("10.10.5.1:{port}"), format!("192.0.2.7:{port}")];
    let token = made["token"].as_str().unwrap();
    assert_eq!(inspected(&one, token)[0]["addresses"], json!(given));
    assert_eq!(made["warnings"], json!([]));
}

/// With twenty bridges the address of the network came last and was told to nobody, and the refusal
/// blamed a firewall.
#[test]
fn bridges_of_guests_stand_behind_the_network_however_many_and_early_they_are() {
    if !alone_in_a_network(&[]) {
        return;
    }
    (1..=20).for_each(bridge);
    run("ip link add eth9 type veth peer name eth10");
    run("ip link set eth9 up");
    run("ip addr add 192.0.2.9/24 dev eth9");
    // A bridge with a guest's cable still counts as a bridge of guests, and so does a bridge
    // without a cable.
    run("ip link set eth10 master lan20");
    let one = founder_on("0.0.0.0");

    let port = one.port().unwrap();
    assert_eq!(one.status()["addresses"][0], format!("192.0.2.9:{port}"));
    let seeds = inspected(&one, &one.invite(json!({})));
    assert_eq!(seeds[0]["addresses"][0], format!("192.0.2.9:{port}"));
}

/// The token once named 127.0.0.1 without a warning.
#[test]
fn a_founder_that_nobody_can_reach_says_so_with_its_token() {
    if !alone_in_a_network(&[]) {
        return;
    }
    let one = founder_on("0.0.0.0");
    one.cli(&["invite"]).exits(0).says(&["127.0.0.1", "this host alone", "peerage links set"]);
    let bound = founder_on("127.0.0.1");
    let made = bound.cli(&["invite", "--json"]).exits(0);
    let warning = made.json()["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(warning.contains("this host alone") && warning.contains("--listen"), "{warning}");
}

/// The agent once asked whether another agent was running.
#[test]
fn an_address_that_the_host_does_not_have_yet_is_named_when_the_agent_cannot_listen() {
    // The addresses are of networks for documentation, the IPv4 one in both spellings.
    for host in ["192.0.2.77", "[::ffff:192.0.2.77]", "[2001:db8::77]"] {
        let ended = Agent::named("pve-1").on_host(host).run_to_end();
        assert_eq!(ended.code, 1, "{ended:?}");
        let spelt = if host.contains("2001") { "2001:db8::77" } else { "192.0.2.77" };
        ended.says(&[&format!("this host has no address {spelt} (yet)"), "--listen"]);
        assert!(!ended.stderr.contains("another agent"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("::ffff"), "{}", ended.stderr);
    }
}

/// An agent on all addresses has one socket for both families, on which the kernel shows an IPv4
/// address as an IPv6 one: a joiner was once refused by "the node at [::ffff:127.0.0.1]".
#[test]
fn a_seed_that_refuses_is_told_by_its_ipv4_address() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return skipped("this host has no IPv6");
    }
    let one = founder_on("127.0.0.1");
    let mut two = Agent::named("pve-2").on_host("[::]").args(&["--advertise", "127.0.0.1"]);
    two.restart();
    let token = one.invite(json!({"node_name": "web-*"}));

    let refused = two.cli(&["join", &token, "--yes"]).exits(4);

    refused.says(&[&format!("the node at 127.0.0.1:{} refused", one.port().unwrap())]);
    assert!(!two.log().contains("::ffff") && !one.log().contains("::ffff"), "{}", two.log());
}

/// A bridge of this host as hypervisors have them, with an address.
fn bridge(number: u8) {
    run(&format!("ip link add lan{number} type bridge"));
    run(&format!("ip link set lan{number} up"));
    run(&format!("ip addr add 10.10.{number}.1/24 dev lan{number}"));
}

fn founder_on(host: &str) -> Agent {
    let mut one = Agent::named("pve-1").on_host(host);
    one.restart();
    one.create("north");
    one
}

/// Two nodes of one Data Center on this host.
fn pair_on(host: &str) -> (Agent, Agent) {
    let [mut one, mut two] = ["pve-1", "pve-2"].map(|name| Agent::named(name).on_host(host));
    one.restart();
    two.restart();
    one.create("north");
    two.join(&one.invite(json!({}))).expect("it joins");
    (one, two)
}

fn joined(name: &str, seed: &Agent) -> Agent {
    let agent = Agent::start(name);
    agent.join(&seed.invite(json!({}))).expect("it joins");
    agent
}

/// Waits until `agent` shows the member alive and at these addresses, in this order.
#[track_caller]
fn finds(agent: &Agent, name: &str, addresses: &[String]) {
    eventually(&format!("{} finds {name} at {addresses:?}", agent.name()), LATER, || {
        let members = agent.members();
        let member = members.iter().find(|member| member["name"] == name).cloned();
        let member = member.unwrap_or_default();
        let right = member["addresses"] == json!(addresses) && member["state"] == "alive";
        if right { Ok(()) } else { Err(member) }
    });
}

/// Waits until an agent's own record of the roster says these addresses.
#[track_caller]
fn says(agent: &Agent, addresses: &[String]) {
    let own = || agent.members().into_iter().find(|member| member["self"] == true);
    let said = || own().map(|member| member["addresses"].clone()).unwrap_or_default();
    until(&format!("{} says {addresses:?}", agent.name()), LATER, said, |said| {
        *said == json!(addresses)
    });
}

fn inspected(agent: &Agent, token: &str) -> Value {
    agent.client().post("inspect", &json!({ "token": token })).expect("it reads")["seeds"].clone()
}

/// Puts this thread, and the agents that it starts, into a network of its own with one interface,
/// `eth7`, which goes with them. Answers `false` where that cannot be, and says so.
#[allow(unsafe_code)]
fn alone_in_a_network(steps: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can make a network of its own");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        skipped("no ip here (package iproute2) to make a network with");
        return false;
    }
    // SAFETY: a network is no memory or file that the rest of the process relies on, and only this
    // thread changes over.
    let apart = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    if let Err(error) = apart {
        skipped(&format!("the kernel gives no network of its own: {error}"));
        return false;
    }
    let made = [
        "ip link set lo up",
        "ip link add eth7 type veth peer name eth8",
        "ip link set eth7 up",
        "ip link set eth8 up",
    ];
    made.iter().chain(steps).for_each(|step| run(step));
    true
}

#[track_caller]
fn run(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    Ran::run(Command::new(words[0]).args(&words[1..]), "").exits(0);
}
