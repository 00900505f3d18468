//! Nodes whose links are DNS names, and nodes that do not know where others find them.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use peerage_tests::netlab::Families;
use peerage_tests::patience::{LATER, eventually};
use peerage_tests::{Agent, Lab, Layout};
use serde_json::{Value, json};

/// The rules of a host that begins no connection over the mesh any more, and answers those of other
/// hosts: as behind a router, or where only some addresses are let out.
const ONLY_ANSWERS: &str = "table inet quiet {\nchain out {\ntype filter hook output priority 0; \
                            policy accept;\nudp dport 4747 ct state new drop\n}\n}\n";

/// The rules of a host that takes in nothing but answers.
const TAKES_ANSWERS: &str = "table inet closed {\nchain in {\ntype filter hook input priority 0; \
                             policy accept;\nmeta l4proto udp ct state new drop\n}\n}\n";

/// An address that leads nowhere.
const NOWHERE: &str = "10.99.99.99";

#[test]
fn a_node_told_of_by_a_name_joins_is_reached_and_is_found_where_its_name_leads_later() {
    let Some(mut lab) = Lab::built(Layout::of(3).families(Families::V4)) else { return };
    let names = Names::new();
    names.lead(&[("pve-1.lab.test", v4(&lab, 0)), ("pve-2.lab.test", v4(&lab, 1))]);
    let mut one = names.agent(&lab, 0).args(&["--advertise", "pve-1.lab.test"]);
    let mut two = names.agent(&lab, 1).args(&["--advertise", "PVE-2.lab.test."]);
    let mut three = names.agent(&lab, 2);
    for agent in [&mut one, &mut two, &mut three] {
        agent.restart();
    }
    one.create("north");
    let token = one.invite(json!({"uses": "any"}));
    let inspected = one.client().post("inspect", &json!({ "token": token })).unwrap();
    assert_eq!(inspected["seeds"][0]["addresses"], json!(["pve-1.lab.test:4747"]));
    two.join(&token).expect("it finds the seed by its name, and is found by its own");
    assert!(!two.log().contains("does not resolve"), "{}", two.log());

    // From here on others can find the second node, and it can find nobody.
    lab.host(1).nft(ONLY_ANSWERS).unwrap();
    three.join(&token).expect("a third node joins by the name of the first");

    for agent in [&one, &three] {
        reaches(agent, "pve-2", v4(&lab, 1));
        let member = member(agent, "pve-2");
        assert_eq!(member["addresses"], json!(["pve-2.lab.test:4747"]), "{member}");
        assert_eq!(member["seen_at"], Value::Null, "its name leads to where it was seen");
    }

    lab.renumber(1, 200);
    names.lead(&[("pve-1.lab.test", v4(&lab, 0)), ("pve-2.lab.test", v4(&lab, 1))]);

    for agent in [&one, &three] {
        reaches(agent, "pve-2", v4(&lab, 1));
    }
    two.set("after/move", json!({"x": 1}));
    eventually("the others read what it writes", LATER, || match one.fields("after/move") {
        Value::Null => Err("nothing there"),
        _ => Ok(()),
    });
}

#[test]
fn a_joiner_that_tells_no_good_address_is_found_where_it_was_seen() {
    let Some(lab) = Lab::built(Layout::of(3).families(Families::V4)) else { return };
    let mut one = lab.agent(0);
    let mut two = lab.agent(1).args(&["--advertise", NOWHERE]);
    let mut three = lab.agent(2);
    for agent in [&mut one, &mut two, &mut three] {
        agent.restart();
    }
    one.create("north");
    let token = one.invite(json!({"uses": "any"}));

    two.join(&token).expect("it answers where its packets come from");

    lab.host(1).nft(ONLY_ANSWERS).unwrap();
    three.join(&token).expect("a third node joins");
    reaches(&three, "pve-2", v4(&lab, 1));
    let seen = format!("{}:4747", v4(&lab, 1));
    for agent in [&one, &two, &three] {
        let member = member(agent, "pve-2");
        assert_eq!(member["addresses"], json!([format!("{NOWHERE}:4747")]), "{member}");
        assert_eq!(member["seen_at"], json!([seen]), "{member}");
    }
    let shown = three.cli(&["links", "pve-2"]).exits(0);
    assert!(shown.stdout.contains(&seen), "{}", shown.stdout);
    // Join Information of another member names that address, too, behind those that the node told.
    let token = three.invite(json!({}));
    let inspected = three.client().post("inspect", &json!({ "token": token })).unwrap();
    let id = member(&three, "pve-2")["id"].clone();
    let seeds = inspected["seeds"].as_array().unwrap();
    let seed = seeds.iter().find(|seed| seed["id"] == id).expect("it is alive, so it is a seed");
    let addresses = seed["addresses"].as_array().unwrap();
    assert!(addresses.contains(&json!(seen)), "{seed}");
    // New addresses of its own do not replace the one at which it was seen.
    two.cli(&["links", "set", "10.99.99.98"]).exits(0);
    eventually("the others hear of its links", LATER, || {
        let member = member(&three, "pve-2");
        match member["addresses"] == json!(["10.99.99.98:4747"])
            && member["seen_at"] == json!([seen])
        {
            true => Ok(()),
            false => Err(member),
        }
    });
}

#[test]
fn a_name_that_does_not_resolve_is_said_on_each_side() {
    let Some(lab) = Lab::built(Layout::of(2).families(Families::V4)) else { return };
    let (known, unknown) = (Names::new(), Names::new());
    known.lead(&[("pve-1.lab.test", v4(&lab, 0))]);
    let mut one = known.agent(&lab, 0).args(&["--advertise", "pve-1.lab.test"]);
    let mut two = unknown.agent(&lab, 1).args(&["--advertise", "pve-2.lab.test"]);
    one.restart();
    two.restart();
    one.create("north");
    let token = one.invite(json!({"uses": "any"}));
    eventually("the log warns of a name that leads nowhere here", LATER, || {
        match two.log().contains("pve-2.lab.test does not resolve") {
            true => Ok(()),
            false => Err(two.log()),
        }
    });

    let refused = two.cli(&["join", &token, "--yes"]).exits(1);

    refused.says(&["pve-1.lab.test:4747", "pve-1.lab.test does not resolve", "/etc/hosts"]);

    // The joiner finds the seed's name now. The seed does not find the joiner's, whose host takes
    // in nothing but answers.
    unknown.lead(&[("pve-1.lab.test", v4(&lab, 0))]);
    lab.host(1).nft(TAKES_ANSWERS).unwrap();
    let source = format!("{}:4747", v4(&lab, 1));
    eventually("the seed says why it does not let it in", LATER, || {
        let refused = two.cli(&["join", &token, "--yes"]);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        let all =
            ["pve-2.lab.test does not resolve", "pve-1, too, finds this host", source.as_str()];
        if all.iter().all(|words| said.contains(words)) { Ok(()) } else { Err(said) }
    });
}

/// What hosts of a lab take for `/etc/hosts`.
struct Names {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

impl Names {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("hosts");
        let names = Self { _folder: folder, file };
        names.lead(&[]);
        names
    }

    /// Lets these names lead to these addresses, and no others anywhere.
    fn lead(&self, names: &[(&str, IpAddr)]) {
        let lines = names.iter().map(|(name, ip)| format!("{ip} {name}\n"));
        // Into the file that is mounted, not in place of it.
        fs::write(&self.file, lines.collect::<String>())
            .expect("a file of the test can be written");
    }

    fn agent(&self, lab: &Lab, host: usize) -> Agent {
        lab.agent(host).with_hosts(&self.file)
    }
}

fn v4(lab: &Lab, host: usize) -> IpAddr {
    lab.addresses(host)[0]
}

/// Waits until an agent has dialled a member at this address, and it is alive.
#[track_caller]
fn reaches(agent: &Agent, name: &str, ip: IpAddr) {
    let at = json!(format!("{ip}:4747"));
    eventually(&format!("{} reaches {name} at {at}", agent.name()), LATER, || {
        let member = member(agent, name);
        let links = agent.client().get(&format!("links/{name}")).unwrap_or_default();
        let is_there = links["address"] == at && links["dialled"] == json!(true);
        if is_there && member["state"] == "alive" { Ok(()) } else { Err(json!([member, links])) }
    });
}

/// A member as an agent sees it.
fn member(agent: &Agent, name: &str) -> Value {
    let members = agent.members();
    members.into_iter().find(|member| member["name"] == name).unwrap_or_default()
}
