//! Disks that lose a bit or a file, seen from outside: the node stays who it is, or does not start
//! and says why.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use peerage_tests::patience::{LATER, until};
use peerage_tests::{Agent, Fleet, Ran};
use serde_json::{Value, json};

/// The exit code of a start that fails until somebody helps: systemd leaves the agent alone.
const NEEDS_SOMEBODY: i32 = 4;

/// The length of the head of a record, behind which lies its name.
const HEAD_LEN: usize = 36;

/// The kind of a record of the journal that keeps a value under a name.
const META: u8 = 4;

/// The node once quit its Data Center by itself, and told nobody.
#[test]
fn a_flipped_bit_in_the_record_of_the_data_center_is_told_and_costs_nothing() {
    let mut fleet = Fleet::found(3);
    fleet[1].set("a/b", json!({"x": 1}));
    fleet.converged();
    let id = fleet[1].status()["node"]["id"].clone();
    fleet[1].stop();
    flip_value_of("datacenter", &fleet[1].data().join("journal"));

    fleet[1].restart();

    let status = fleet[1].status();
    assert_eq!((&status["node"]["state"], &status["node"]["id"]), (&json!("member"), &id));
    let said = status["notices"].to_string();
    assert!(said.contains("which Data Center this node is in was damaged"), "{said}");
    assert!(fleet[1].log().contains("datacenter"), "the journal says so, too");
    fleet.all_see_all();
    fleet[1].set("a/c", json!({"x": 2}));
    fleet.all_read("a/c", &json!({"x": 2}));
    fleet[1].stop();
    fleet[1].restart();
    assert!(!fleet[1].status()["notices"].to_string().contains("damaged"), "told once");
    fleet.all_see_all();
}

/// The node once started under another identity, called itself a member, and acknowledged writes
/// that no other member took.
#[test]
fn a_key_that_is_damaged_missing_or_another_nodes_stops_the_start_until_it_is_back() {
    let mut fleet = Fleet::found(2);
    let short = fleet[1].status()["node"]["id"].as_str().unwrap()[..8].to_owned();
    fleet[0].stop();
    fleet[1].stop();
    let path = fleet[1].data().join("node.key");
    let key = fs::read(&path).unwrap();
    let mut flipped = key.clone();
    flipped[40] ^= 1;
    let others = fs::read(fleet[0].data().join("node.key")).unwrap();
    for (content, word) in
        [(Some(flipped), "damaged"), (None, "missing"), (Some(others), "belong to different nodes")]
    {
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let ended = fleet[1].run_to_end().exits(NEEDS_SOMEBODY);
        let whose = format!("pve-2 ({short}), a member of the Data Center north");
        ended.says(&[
            "node.key",
            word,
            &whose,
            "bring node.key back",
            "reset --identity --data-dir",
        ]);
    }

    fs::write(&path, key).unwrap();

    fleet[0].restart();
    fleet[1].restart();
    fleet.all_see_all();
}

#[test]
fn a_folder_that_makes_no_node_any_more_is_put_aside_by_a_reset_and_the_host_joins_anew() {
    let mut fleet = Fleet::found(2);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet[1].kill();
    let data = fleet[1].data().to_owned();
    fs::remove_file(data.join("journal")).unwrap();
    let ended = fleet[1].run_to_end().exits(NEEDS_SOMEBODY);
    ended.says(&["journal is missing", "pve-2", "north"]);

    reset(&fleet[1], &data).exits(0).says(&["kept in"]);

    fleet[1].restart();
    assert_eq!(fleet[1].status()["datacenter"], Value::Null);
    let state = || fleet[0].state_of("pve-2");
    until("it is found down", LATER, state, |state| state == "down");
    let token = fleet[0].invite(json!({"uses": "any"}));
    fleet[1].cli(&["join", "--replace", &token, "--yes"]).exits(0);
    fleet.all_see_all();
    fleet.all_read("a/b", &json!({"x": 1}));
}

#[test]
fn a_folder_of_an_older_format_is_refused_by_name_and_put_aside_by_a_reset() {
    let mut agent = Agent::named("pve-1");
    let data = agent.data().to_owned();
    fs::create_dir_all(&data).unwrap();
    let key = format!("{}\n", "ab".repeat(32));
    fs::write(data.join("node.key"), &key).unwrap();
    fs::write(data.join("journal"), b"peerage-store\0\0\x01").unwrap();

    let ended = agent.run_to_end().exits(NEEDS_SOMEBODY);

    ended.says(&["node.key has format 1", "older version", "reset --identity --data-dir"]);
    reset(&agent, &data).exits(0);
    assert_eq!(fs::read_to_string(data.join("node.key.old")).unwrap(), key);
    agent.restart();
    assert_eq!(agent.status()["node"]["state"], "standalone");
}

/// The agent once wrote its process id into the file to which such a link pointed.
#[test]
fn no_file_of_the_data_folder_is_opened_through_a_link() {
    for name in ["lock", "node.key", "journal", "node.about"] {
        let mut agent = Agent::start("pve-1");
        agent.stop();
        let (path, target) = (agent.data().join(name), agent.file("target"));
        fs::rename(&path, &target).unwrap();
        let before = fs::read(&target).unwrap();
        symlink(&target, &path).unwrap();

        let ended = agent.run_to_end();

        assert_ne!(ended.code, 0, "{name}");
        ended.says(&[name, "follows no link"]);
        assert_eq!(fs::read(&target).unwrap(), before, "{name}");
        fs::remove_file(&path).unwrap();
        fs::rename(&target, &path).unwrap();
        agent.restart();
    }
}

fn reset(agent: &Agent, data: &Path) -> Ran {
    agent.cli(&["reset", "--identity", "--yes", "--data-dir", data.to_str().unwrap()])
}

/// Flips one bit of what a journal keeps under a name.
fn flip_value_of(name: &str, journal: &Path) {
    let mut bytes = fs::read(journal).unwrap();
    let is_record = |at: &usize| {
        bytes[*at..].starts_with(name.as_bytes())
            && *at > HEAD_LEN
            && bytes[at - HEAD_LEN + 4] == META
    };
    let at = (0..bytes.len()).rfind(is_record).expect("there is such a record");
    bytes[at + name.len()] ^= 1;
    fs::write(journal, bytes).unwrap();
}
