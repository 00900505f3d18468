//! Power cuts, restarts and old disks: what was acknowledged is there, and stays there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// How often a node is killed in the middle of its writes.
const KILLS: u64 = 20;

#[test]
fn a_killed_node_returns_with_its_data_and_without_a_token() {
    let mut fleet = Fleet::found(3);
    let id = fleet[1].status()["node"]["id"].clone();
    fleet[1].set("a/b", json!({"x": 1}));
    fleet.kill(&[1]);
    fleet[0].set("a/c", json!({"x": 2}));

    fleet[1].restart();

    assert_eq!(fleet[1].fields("a/b"), json!({"x": 1}), "before it met anyone");
    assert_eq!(fleet[1].status()["node"]["id"], id);
    fleet.all_see_all();
    fleet.all_read("a/b", &json!({"x": 1}));
    fleet.all_read("a/c", &json!({"x": 2}));
}

#[test]
fn all_nodes_go_off_and_come_on_in_any_order() {
    let mut fleet = Fleet::found(4);
    for (round, order) in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]].into_iter().enumerate() {
        for i in 0..4 {
            fleet[i].set(&format!("docs/{i}"), json!({ "round": round }));
        }
        fleet.kill(&order);
        for &i in order.iter().rev() {
            fleet[i].restart();
            assert_eq!(fleet[i].fields(&format!("docs/{i}")), json!({ "round": round }));
        }
        fleet.all_see_all();
        for i in 0..4 {
            fleet.all_read(&format!("docs/{i}"), &json!({ "round": round }));
        }
        fleet.converged();
    }
}

#[test]
fn the_last_to_go_off_may_be_the_only_one_to_come_on() {
    let mut fleet = Fleet::found(3);
    fleet[0].set("a/b", json!({"x": 1}));
    fleet.converged();
    fleet.kill(&[0, 1, 2]);
    fleet[2].restart();
    assert_eq!(fleet[2].fields("a/b"), json!({"x": 1}));
    fleet[2].set("a/b", json!({"x": 2}));
    fleet[0].restart();
    fleet[1].restart();
    fleet.all_read("a/b", &json!({"x": 2}));
}

#[test]
fn every_acknowledged_write_survives_twenty_kills_in_the_middle_of_writing() {
    let mut fleet = Fleet::found(3);
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for round in 0..KILLS {
        let path = format!("round/{round}");
        // How many writes were acknowledged: one more than the number of the last one.
        let (count, killed) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let (client, path, count, killed) = (fleet[1].client(), &path, &count, &killed);
            scope.spawn(move || {
                for i in 0u64.. {
                    match client.patch(&format!("settings/{path}"), &json!({"set": {"i": i}})) {
                        Ok(_) => count.store(i + 1, Ordering::Release),
                        Err(failure) => {
                            assert!(killed.load(Ordering::Acquire), "before the kill: {failure}");
                            break;
                        }
                    }
                }
            });
            let acknowledged = || count.load(Ordering::Acquire);
            until("writes are acknowledged", LATER, acknowledged, |count| *count > round % 5);
            // Each round cuts at another point of the commit's cycle.
            thread::sleep(Duration::from_micros(round * 370));
            killed.store(true, Ordering::Release);
            fleet[1].kill();
        });
        acknowledged.push((path, count.into_inner() - 1));
        fleet[1].restart();
        // What was acknowledged is there at once, and what was not may be there or not.
        let (path, last) = acknowledged.last().expect("one was pushed");
        let found = fleet[1].fields(path)["i"].as_u64();
        assert!(found == Some(*last) || found == Some(last + 1), "{path}: {found:?}, not {last}");
    }
    fleet.all_see_all();
    fleet.converged();
    for agent in fleet.iter() {
        for (path, last) in &acknowledged {
            let found = agent.fields(path)["i"].as_u64();
            let kept = found == Some(*last) || found == Some(last + 1);
            assert!(kept, "{} on {}: {found:?}, not {last}", path, agent.name());
        }
    }
    let writes: u64 = acknowledged.iter().map(|(_, last)| last + 1).sum();
    eprintln!("{writes} acknowledged writes survived {KILLS} kills");
}

#[test]
fn a_disk_that_was_rolled_back_gets_back_what_it_lost() {
    let mut fleet = Fleet::found(3);
    let documents = rolled_back(&mut fleet);

    fleet[1].restart();
    fleet[1].set("new/a", json!({"x": 1}));

    fleet.all_see_all();
    fleet.all_read("new/a", &json!({"x": 1}));
    for path in documents {
        fleet.all_read(&path, &json!({"kept": path}));
    }
    fleet.converged();
}

#[test]
fn a_rolled_back_node_that_writes_before_it_meets_anyone_loses_nothing() {
    let mut fleet = Fleet::found(3);
    let documents = rolled_back(&mut fleet);
    let digests = || (fleet[0].digest(), fleet[2].digest());
    until("two disks hold it", SOON, digests, |(one, other)| one == other);
    fleet.kill(&[0, 2]);

    fleet[1].restart();
    // The node writes more than it had written after the snapshot, so reused sequence numbers would
    // collide.
    for i in 0..documents.len() + 3 {
        fleet[1].set(&format!("alone/{i}"), json!({ "i": i }));
    }
    fleet[0].restart();
    fleet[2].restart();

    fleet.all_see_all();
    for i in 0..documents.len() + 3 {
        fleet.all_read(&format!("alone/{i}"), &json!({ "i": i }));
    }
    for path in documents {
        fleet.all_read(&path, &json!({"kept": path}));
    }
    fleet.converged();
}

#[test]
fn a_second_agent_on_the_same_data_is_refused() {
    let fleet = Fleet::start(1);
    let data = fleet[0].data();

    let ended = Agent::named("twin").on_data(data.into()).run_to_end();

    assert_ne!(ended.code, 0);
    ended.says(&[data.to_str().unwrap()]);
    assert_eq!(fleet[0].status()["node"]["name"], "pve-1");
}

/// Saves the second node's disk, writes five documents on it that all see, and puts the old disk
/// back. The node does not run afterwards.
fn rolled_back(fleet: &mut Fleet) -> Vec<String> {
    fleet[1].set("before/a", json!({"kept": "before/a"}));
    fleet.converged();
    fleet[1].stop();
    let disk = fleet[1].file("disk");
    fleet[1].save_disk(&disk);
    fleet[1].restart();
    let mut documents: Vec<_> = (0..5).map(|i| format!("after/{i}")).collect();
    for path in &documents {
        fleet[1].set(path, json!({ "kept": path }));
    }
    for path in &documents {
        let read = || fleet[0].fields(path);
        until("another node has it", LATER, read, |fields| *fields != Value::Null);
    }
    fleet[1].kill();
    fleet[1].restore_disk(&disk);
    documents.push("before/a".to_owned());
    documents
}
