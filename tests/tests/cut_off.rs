//! Hosts that are cut off, and hosts that all have new addresses: an agent's notice is first about
//! its own host, no member is removed by a slip, and there is a way back.

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet, Lab, Layout};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// A node that was cut off once advised to remove all others. After that and a heal it had the Data
/// Center for itself.
#[test]
fn a_node_whose_cable_is_out_speaks_of_itself_and_removes_nobody() {
    let Some(lab) = Lab::built(Layout::of(4)) else { return };
    let fleet = Fleet::found_in(&lab);

    lab.cut_link(0, 0);

    let notice = until(
        "it says that it is cut off",
        LATER,
        || message(&fleet[0]),
        |message| message.contains("this node reaches nobody; eth0 is down"),
    );
    for (name, state) in [("pve-2", "down"), ("pve-3", "down"), ("pve-4", "down")] {
        until("it misses the others", LATER, || fleet[0].state_of(name), |seen| seen == state);
        let row = row(&fleet[0], name);
        assert!(row.starts_with("this node reaches nobody; eth0 is down"), "{row}");
        assert!(!row.contains("remove"), "{row}");
        let refused = fleet[0].cli(&["remove", name]).exits(REFUSED);
        refused.says(&["this node reaches nobody; eth0 is down", "for good", "--force"]);
    }
    let over_http = fleet[0].client().delete("members/pve-2").unwrap_err();
    assert_eq!(over_http.code(), "needs_force", "{notice}");
    assert!(row(&fleet[0], "pve-1").contains("eth0 is down"));
    let said = fleet[0].cli(&["status"]).exits(0);
    said.says(&["this node reaches nobody; eth0 is down", "this host's cable"]);
    let events = || fleet[0].cli(&["events"]).exits(0).stdout;
    until("it is an event", SOON, events, |told| told.contains("eth0 is down"));
    // The others speak of this node, and not of themselves.
    fleet[1..].iter().for_each(|agent| {
        let down = || agent.state_of("pve-1");
        until("it is missed", LATER, down, |state| state == "down");
        assert!(row(agent, "pve-1").contains("`peerage remove` it"), "{}", row(agent, "pve-1"));
        assert_eq!(message(agent), "");
    });

    lab.restore_link(0, 0);

    fleet.all_see_all();
    until("all is well", SOON, || message(&fleet[0]), String::is_empty);
    assert_eq!(fleet[0].members().len(), 4);
}

/// Each side once took the other for dead, also the smaller one.
#[test]
fn of_two_sides_only_the_larger_puts_anybody_out_without_being_told_twice() {
    let Some(mut lab) = Lab::built(Layout::of(5)) else { return };
    let fleet = Fleet::found_in(&lab);

    lab.partition(&[&[0, 1], &[2, 3, 4]]);

    for agent in &fleet[..2] {
        let seen = || agent.status()["members"]["down"].clone();
        until("the larger side is missed", LATER, seen, |down| *down == 3);
        agent.cli(&["remove", "pve-5"]).exits(REFUSED).says(&["reaches 1 of 4", "--force"]);
        assert!(message(agent).contains("this node reaches 1 of 4 other members"));
        assert!(!row(agent, "pve-5").contains("remove"));
    }
    let seen = || fleet[2].status()["members"]["down"].clone();
    until("the smaller side is missed", LATER, seen, |down| *down == 2);
    assert!(row(&fleet[2], "pve-1").contains("`peerage remove` it"));
    fleet[2].cli(&["remove", "pve-1"]).exits(0);

    lab.heal();

    let state = || fleet[0].client().get("status").unwrap_or_default()["node"]["state"].clone();
    until("it is told", LATER, state, |state| state == "removed");
    until("its side sees it again", LATER, || fleet[1].state_of("pve-5"), |state| state == "alive");
}

/// Each node once saw only itself, for ever, and no command helped.
#[test]
fn a_fleet_whose_addresses_all_change_at_once_meets_again_by_join_information() {
    let Some(mut lab) = Lab::built(Layout::of(3)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    fleet[1].set("storage/nas1", json!({"x": 1}));
    fleet.all_read("storage/nas1", &json!({"x": 1}));
    let ids: Vec<_> = fleet.iter().map(|agent| agent.status()["node"]["id"].clone()).collect();
    fleet.kill(&[0, 1, 2]);
    for host in 0..3_u8 {
        lab.renumber(host.into(), 200 + u16::from(host));
    }
    fleet.iter_mut().for_each(Agent::restart);
    for agent in fleet.iter() {
        let seen = || agent.status()["members"]["down"].clone();
        until("it misses all others", LATER, seen, |down| *down == 2);
        let other = if agent.name() == "pve-1" { "pve-2" } else { "pve-1" };
        let said = row(agent, other);
        assert!(
            ["peerage invite", "peerage meet TOKEN"].iter().all(|w| said.contains(w)),
            "{said}"
        );
    }
    fleet[2].set("storage/nas2", json!({"x": 2}));

    // The token need not admit anybody any more, so its invitation is revoked.
    let invite = fleet[0].client().post("invites", &json!({"uses": 1})).unwrap();
    let (token, id) = (invite["token"].as_str().unwrap(), invite["id"].as_str().unwrap());
    fleet[0].cli(&["invite", "revoke", id]).exits(0);
    let met = fleet[1].cli(&["meet", token, "--json"]).exits(0).json();
    assert_eq!(met["met"][0]["name"], "pve-1", "{met}");
    fleet[2].cli(&["join", token, "--yes"]).exits(0).says(&["already", "met pve-1"]);

    fleet.all_see_all();
    fleet.all_read("storage/nas1", &json!({"x": 1}));
    fleet.all_read("storage/nas2", &json!({"x": 2}));
    fleet.converged();
    let now: Vec<_> = fleet.iter().map(|agent| agent.status()["node"]["id"].clone()).collect();
    assert_eq!(now, ids, "nobody became another");
    assert!(fleet[1].cli(&["events"]).exits(0).stdout.contains("met pve-1 by Join Information"));
    // Meeting a member that is met already succeeds at once.
    fleet[1].cli(&["meet", token]).exits(0).says(&["met pve-1 of north"]);
}

#[test]
fn only_members_of_one_data_center_meet() {
    let mut fleet = Fleet::found(2);
    let stranger = Agent::start("oak-1");
    stranger.cli(&["meet", &fleet[0].invite(json!({}))]).exits(REFUSED).says(&["join"]);
    stranger.create("south");
    let of_another = stranger.invite(json!({}));
    fleet[0].cli(&["meet", &of_another]).exits(REFUSED).says(&["already", "north"]);
    assert_eq!(fleet[0].members().len(), 2);

    let own = fleet[0].client().post("invites", &json!({"strict": true})).unwrap();
    let own = own["token"].as_str().unwrap();
    fleet[0].cli(&["meet", own]).exits(REFUSED).says(&["this very node", "peerage invite"]);
    fleet.kill(&[0]);
    let address = format!("127.0.0.1:{}", fleet[0].port().unwrap());
    fleet[1].cli(&["meet", own]).exits(1).says(&["pve-1", &address]);
    fleet[1].cli(&["meet", "peerage1-nonsense"]).exits(2);
}

/// What the agent says first that a person should know.
fn message(agent: &Agent) -> String {
    let status = agent.client().get("status").unwrap_or_default();
    status["notice"]["message"].as_str().unwrap_or_default().to_owned()
}

/// What an agent says of a member.
fn row(agent: &Agent, name: &str) -> String {
    let member = eventually("the member is listed", SOON, || {
        let members = agent.members();
        members.into_iter().find(|member| member["name"] == name).ok_or(Value::Null)
    });
    member["message"].as_str().unwrap_or_default().to_owned()
}
