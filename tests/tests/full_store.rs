//! A store that was filled to its limit, and what then still goes on.

use peerage_tests::patience::{LATER, SOON, eventually, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// A value of 0.9 MB.
fn large(n: usize) -> Value {
    json!({ "text": n.to_string().repeat(900_000 / n.to_string().len()) })
}

fn room(agent: &Agent) -> Value {
    agent.status()["settings"]["room"].clone()
}

fn bytes(agent: &Agent, what: &str) -> u64 {
    room(agent)[what].as_u64().unwrap_or_else(|| panic!("{what} is no number: {}", room(agent)))
}

/// Fills a node with documents `logs/0`, `logs/1`, ... until one is refused. Answers with how many
/// there are.
fn fill(agent: &Agent) -> usize {
    for n in 0..200 {
        let path = format!("settings/logs/{n}");
        if let Err(refused) = agent.client().patch(&path, &json!({ "set": large(n) })) {
            assert_eq!(refused.code(), "full", "{refused:?}");
            refused.says(&["the settings are full", "MB of 100.0 MB live", "logs 99."]);
            refused.says(&["peerage settings unset logs/", "peerage settings compact"]);
            return n;
        }
    }
    panic!("200 documents of 0.9 MB are no 100 MB");
}

/// Fills the room that large documents leave, so that not even an invitation finds room.
fn fill_up(agent: &Agent) {
    let left = || bytes(agent, "limit_bytes") - bytes(agent, "live_bytes");
    let text = "x".repeat(usize::try_from(left()).unwrap() - 600);
    agent.set("last", json!({ "text": text }));
    assert!(left() < 500, "{}", room(agent));
}

fn remove(agent: &Agent, n: usize) {
    agent.client().delete(&format!("settings/logs/{n}")).unwrap();
}

/// 104 MB had been written in 116 documents, and all were removed: `status` said "0 documents,
/// 104.5 MB", every further write was refused for ever, and no command helped.
#[test]
fn what_was_removed_gives_its_room_back_and_members_come_and_go_while_it_is_full() {
    let mut fleet = Fleet::found(2);
    let documents = fill(&fleet[0]);
    assert!(documents > 100, "only {documents}");
    let more = json!([{"path": "logs/more", "fields": large(0)}]).to_string();
    let refused = fleet[0].cli_with(&["settings", "apply", "-f", "-"], &more).exits(REFUSED);
    refused.says(&["the settings are full", "peerage settings unset logs/"]);

    fill_up(&fleet[0]);

    // The node tells of it in its notices and in `status`.
    let status = fleet[0].status();
    let notices = status["notices"].as_array().unwrap();
    assert!(notices.iter().any(|notice| notice["kind"] == "store"), "{status}");
    fleet[0].cli(&["status"]).exits(0).says(&["the settings are nearly full", "unset"]);

    // Members still come and go, and a newcomer gets all that is there.
    let newcomer = Agent::start("pve-3");
    newcomer.join(&fleet[0].invite(json!({}))).unwrap();
    fleet.push(newcomer);
    fleet.all_see_all();
    fleet.converged();
    let gone = fleet.take(1);
    fleet[0].cli(&["remove", gone.name()]).exits(0);
    drop(gone);
    fleet.converged();

    for n in 0..documents {
        remove(&fleet[0], n);
    }
    fleet[0].client().delete("settings/last").unwrap();
    assert!(bytes(&fleet[0], "live_bytes") < 100_000);
    let notices = || fleet[0].status()["notices"].clone();
    until("it is over", SOON, notices, |notices| !notices.to_string().contains("nearly full"));
    fleet[0].stop();
    fleet[0].restart();
    assert_eq!(fill(&fleet[0]), documents, "as many fit again");
    let shown = fleet[0].cli(&["status"]).exits(0).stdout;
    assert!(shown.contains(&format!("{documents} documents, 99.")), "{shown}");
    assert!(shown.contains(" of 100.0 MB"), "{shown}");
    // Removed and superseded data leaves memory and disk, on every node.
    fleet.converged();
    for agent in fleet.iter() {
        assert!(bytes(agent, "history_bytes") < 5_000_000, "{}", room(agent));
        eventually("the journal is rewritten", LATER, || match bytes(agent, "journal_bytes") {
            small if small < 220_000_000 => Ok(()),
            large => Err(large),
        });
    }
}

/// The same happened when four documents of 0.9 MB had been updated 29 times each, and removed.
#[test]
fn what_was_superseded_gives_its_room_back_and_compact_gives_back_the_disks() {
    let mut node = Agent::start("pve-1");
    node.create("north");
    for n in 0..4 * 29 + 20 {
        node.set(&format!("logs/{}", n % 4), large(n));
    }
    for n in 0..4 {
        remove(&node, n);
    }
    node.set("a/b", json!({"x": 1}));
    let before = room(&node);
    assert!(before["history_bytes"].as_u64() > Some(90_000_000), "history has the room: {before}");
    let kept = ["live_bytes", "history_bytes", "marker_bytes"].map(|what| bytes(&node, what));
    assert!(kept.iter().sum::<u64>() <= bytes(&node, "limit_bytes"), "{before}");

    let compacted = node.cli(&["settings", "compact", "--json"]).exits(0).json();
    assert!(compacted["forgotten"].as_u64() > Some(90), "{compacted}");
    let after = &compacted["after"];
    assert!(after["history_bytes"].as_u64() < Some(10_000), "{compacted}");
    assert!(compacted["after"]["journal_bytes"].as_u64() < Some(1_000_000), "{compacted}");
    let on_disk = std::fs::metadata(node.data().join("journal")).unwrap().len();
    assert_eq!(on_disk, bytes(&node, "journal_bytes"));

    node.stop();
    node.restart();
    assert_eq!(node.fields("a/b"), json!({"x": 1}));
    assert_eq!(node.status()["settings"]["documents"], 1);
    node.set("logs/0", large(1));
}

/// A change set a large value and a small one. The large one was superseded, and kept its room as
/// long as the small one showed: 100 MB could be full of values that nobody saw.
#[test]
fn what_was_superseded_gives_its_room_back_though_its_change_still_shows() {
    let mut fleet = Fleet::found(2);
    let path = "settings/logs/0";
    for n in 0..5 {
        let mut fields = large(n);
        fields[format!("kept-{n}")] = json!(n);
        fleet[0].client().patch(path, &json!({ "set": fields })).unwrap();
    }
    let before = room(&fleet[0]);
    assert!(bytes(&fleet[0], "live_bytes") < 1_000_000, "one of five values shows: {before}");
    assert!(bytes(&fleet[0], "history_bytes") > 3_000_000, "the others have room: {before}");
    fleet.converged();
    let shown = fleet[0].fields("logs/0");

    let compacted = fleet[0].cli(&["settings", "compact", "--json"]).exits(0).json();
    assert!(compacted["after"]["history_bytes"].as_u64() < Some(10_000), "{compacted}");
    assert!(compacted["after"]["journal_bytes"].as_u64() < Some(1_500_000), "{compacted}");
    let history = fleet[0].cli(&["settings", "history", "logs/0", "--json"]).exits(0).json();
    let first = history.as_array().unwrap().last().unwrap();
    assert_eq!(first["left_out"], json!(["text"]), "{first}");
    assert_eq!((&first["set"], &first["current"]), (&json!({"kept-0": 0}), &json!(true)));
    let stamp = first["stamp"].as_str().unwrap().to_owned();
    let told = fleet[0].cli(&["settings", "history", "logs/0"]).exits(0);
    let words = "kept-0=0 (and values of text, which history has let go)";
    assert!(told.stdout.contains(words), "{}", told.stdout);
    let refused = fleet[0].cli(&["settings", "revert", "logs/0", &stamp]).exits(REFUSED);
    refused.says(&["how text of logs/0 stood then is not kept any more"]);

    // A node that starts again with what is left, and a newcomer that gets only that, show the same
    // as a node that has all.
    fleet[0].stop();
    fleet[0].restart();
    let newcomer = Agent::start("pve-3");
    newcomer.join(&fleet[0].invite(json!({}))).unwrap();
    fleet.push(newcomer);
    fleet.all_see_all();
    fleet.converged();
    for agent in fleet.iter() {
        assert_eq!(agent.fields("logs/0"), shown);
    }
}
