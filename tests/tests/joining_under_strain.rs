//! Joining while seeds hang or have left, many hosts that join at once, and what a join must not
//! leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// How long an agent that waits for nobody may take to stop.
const PROMPT: Duration = Duration::from_secs(4);

/// How many nodes come at once with an invitation of fewer uses.
const COMERS: usize = 6;

/// How many of these nodes the invitation admits.
const USES: usize = 2;

/// The agent once went on until it had given up every seed, and the service manager killed it.
#[test]
fn an_agent_that_is_told_to_stop_does_not_wait_for_a_seed_that_hangs() {
    let seed = Agent::start("pve-1");
    seed.create("north");
    let token = seed.invite(json!({"uses": "any"}));
    seed.pause();
    let mut joiner = Agent::named("pve-2").args(&["--join", &token]);
    joiner.restart();

    let told = Instant::now();
    assert!(joiner.stop().success());

    assert!(told.elapsed() < PROMPT, "it took {:?}", told.elapsed());
    seed.resume();
}

/// The first seed answers that it belongs to no Data Center. The joiner once did not ask the
/// others.
#[test]
fn a_token_admits_by_its_other_seeds_once_its_issuer_has_left() {
    let fleet = Fleet::found(2);
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet[0].cli(&["leave"]).exits(0);
    let joiner = Agent::start("pve-3");

    joiner.join(&token).unwrap();

    let state = || fleet[1].state_of("pve-3");
    until("the node is seen by the seed that is left", SOON, state, |state| state == "alive");
}

/// Each address that the seed was still dialling back when another one answered once left a socket
/// behind.
#[test]
fn a_seed_keeps_nothing_of_a_join_but_the_member() {
    let seed = Agent::start("pve-1");
    seed.create("north");
    let token = seed.invite(json!({"uses": "any"}));
    let before = udp_sockets(&seed);
    let mut joiner = Agent::named("pve-2").args(&[
        "--advertise",
        "127.0.0.1",
        "--advertise",
        "127.0.0.2:9",
        "--advertise",
        "127.0.0.3:9",
    ]);
    joiner.restart();

    joiner.join(&token).unwrap();

    until("the dial-backs are gone", LATER, || udp_sockets(&seed), |now| *now == before);
}

#[test]
fn of_many_that_come_at_once_as_many_are_let_in_as_the_invitation_says() {
    let fleet = Fleet::found(2);
    // The uses are exact where one seed counts them; another seed that is late may let one more in.
    let token = fleet[0].invite(json!({"uses": USES, "strict": true}));
    let comers: Vec<_> = (3..3 + COMERS).map(|n| Agent::start(&format!("pve-{n}"))).collect();

    let outcomes: Vec<_> = thread::scope(|scope| {
        let joining: Vec<_> =
            comers.iter().map(|comer| scope.spawn(|| comer.join(&token))).collect();
        joining.into_iter().map(|join| join.join().unwrap()).collect()
    });

    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), USES);
    let members = || fleet[1].members().len();
    until("both members know them", SOON, members, |count| *count == 2 + USES);
    let refused = outcomes.into_iter().filter_map(Result::err);
    refused.for_each(|failure| _ = failure.says(&["used up"]));
}

/// The first invitation was once open again, and the second, which nobody had checked, was used up.
#[test]
fn a_member_that_lost_its_data_and_joins_again_uses_no_second_invitation() {
    let seed = Agent::start("pve-1");
    seed.create("north");
    let [first, second] =
        ["pve-*", "*-2"].map(|names| seed.invite(json!({"uses": 1, "node_name": names})));
    let mut node = Agent::start("pve-2");
    node.stop();
    let disk = node.file("disk");
    node.save_disk(&disk);
    node.restart();
    node.join(&first).unwrap();
    node.kill();
    node.restore_disk(&disk);
    node.restart();

    node.join(&second).unwrap();

    let invites = seed.client().get("invites").unwrap();
    let used: BTreeMap<_, _> = invites
        .as_array()
        .unwrap()
        .iter()
        .map(|invite| (invite["node_name"].as_str().unwrap(), &invite["used"]))
        .collect();
    assert_eq!(json!(used), json!({"pve-*": 1, "*-2": 0}));
}

/// Both renames once looked before either wrote, and both were told that they were done.
#[test]
fn of_two_renames_at_once_to_one_name_one_is_refused() {
    let fleet = Fleet::found(3);
    let rename = |name: &str| {
        let client = fleet[0].client();
        client.patch(&format!("members/{name}"), &json!({"name": "db"})).is_ok()
    };

    let done = thread::scope(|scope| {
        let renaming = ["pve-2", "pve-3"].map(|name| scope.spawn(move || rename(name)));
        renaming.map(|renaming| renaming.join().unwrap())
    });

    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    eventually("all show the one name", SOON, || {
        let members = fleet[2].members();
        let named = |name: &str| members.iter().any(|member| member["name"] == name);
        if named("db") && !members.iter().any(suffixed) { Ok(()) } else { Err(members) }
    });
}

fn suffixed(member: &Value) -> bool {
    member["name"].as_str().is_some_and(|name| name.contains('~'))
}

/// How many UDP sockets the agent holds.
fn udp_sockets(agent: &Agent) -> usize {
    let process = format!("/proc/{}", agent.pid());
    let held: Vec<_> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let tables = ["udp", "udp6"].map(|table| fs::read_to_string(format!("{process}/net/{table}")));
    let rows: Vec<_> = tables.into_iter().flatten().collect();
    let inodes = rows.iter().flat_map(|table| table.lines().skip(1));
    let inodes = inodes.filter_map(|row| row.split_whitespace().nth(9));
    inodes.filter(|inode| held.iter().any(|own| own == inode)).count()
}
