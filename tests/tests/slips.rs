//! Slips that must not cost a Data Center: the last copy that goes, and an image of a disk that was
//! copied before it joined.

use std::thread;

use peerage_tests::patience::{LATER, SOON, until};
use peerage_tests::{Agent, Fleet};
use serde_json::{Value, json};

/// The exit code of a command that a rule forbids.
const REFUSED: i32 = 4;

/// The last member once left without a question, and all settings were gone.
#[test]
fn the_last_member_goes_with_the_data_center_only_when_it_is_told_twice() {
    let agent = Agent::start("pve-1");
    agent.create("north");
    agent.set("storage/nas1", json!({"server": "10.0.0.9"}));
    agent.set("dns", json!({"domain": "example.org"}));

    let refused = agent.cli(&["leave"]).exits(REFUSED);
    refused.says(&["last member of north", "2 documents", "leave --force", "settings export"]);
    // Nobody can be asked here, so the answer to the first question is not one to the second.
    agent.cli(&["leave", "--yes"]).exits(REFUSED);
    let over_http = agent.client().post("leave", &json!({})).unwrap_err();
    assert_eq!(over_http.code(), "needs_force");

    // The node is a member as before, and writes.
    assert_eq!(agent.status()["datacenter"]["name"], "north");
    agent.set("dns", json!({"domain": "example.com"}));

    agent.client().post("leave?force=true", &json!({})).unwrap();
    assert_eq!(agent.status()["datacenter"], Value::Null);
}

#[test]
fn who_leaves_while_nobody_is_reached_is_told_what_only_it_has() {
    let mut fleet = Fleet::found(2);
    fleet[0].set("dns", json!({"x": 1}));
    fleet.all_read("dns", &json!({"x": 1}));
    fleet.converged();
    // The second node starts again, since its hello tells what it holds.
    fleet.kill(&[1]);
    fleet[1].restart();
    fleet.all_see_all();
    fleet.kill(&[1]);
    fleet.all_see("pve-2", &["down"], LATER);
    fleet[0].set("storage/nas1", json!({"x": 1}));

    let refused = fleet[0].cli(&["leave"]).exits(REFUSED);
    refused.says(&[
        "pve-2",
        "nobody is known to hold",
        "2 documents",
        "to storage/nas1",
        "--force",
    ]);
    assert!(!refused.stderr.contains("dns"), "pve-2 has that: {}", refused.stderr);

    // As soon as the other member is back it is given what it lacks, and then there is nothing to
    // lose.
    fleet[1].restart();
    fleet.all_see_all();
    fleet[0].cli(&["leave"]).exits(0);
    assert_eq!(fleet[1].fields("storage/nas1"), json!({"x": 1}));
}

/// The other member is alive, as far as anybody knows, and does not answer.
#[test]
fn who_leaves_while_the_others_hang_is_told_that_none_confirmed() {
    let fleet = Fleet::found(2);
    fleet[1].pause();
    fleet[0].set("storage/nas1", json!({"x": 1}));

    fleet[0].cli(&["leave"]).exits(REFUSED).says(&["pve-2", "1 document", "leave --force"]);

    fleet[1].resume();
    fleet.all_see_all();
    fleet.all_read("storage/nas1", &json!({"x": 1}));
}

/// Each node was once sure that the other held everything.
#[test]
fn two_that_leave_at_once_do_not_count_on_each_other() {
    for _ in 0..3 {
        let fleet = Fleet::found(2);
        fleet[0].set("a/b", json!({"x": 1}));
        fleet.all_read("a/b", &json!({"x": 1}));

        let codes: Vec<i32> = thread::scope(|scope| {
            let leaving: Vec<_> =
                fleet.iter().map(|agent| scope.spawn(|| agent.cli(&["leave"]).code)).collect();
            leaving.into_iter().map(|one| one.join().unwrap()).collect()
        });

        assert!(codes.contains(&REFUSED), "one stays: {codes:?}");
        for (agent, code) in fleet.iter().zip(codes).filter(|(_, code)| *code == REFUSED) {
            assert_eq!(agent.fields("a/b"), json!({"x": 1}), "{code}");
        }
    }
}

/// `join` once ended with 0 and the name of another host, and a second later the copy was refused.
#[test]
fn a_copy_of_an_image_is_refused_when_it_joins() {
    let mut fleet = Fleet::found(2);
    let token = fleet[0].invite(json!({"uses": "any"}));
    let mut image = Agent::start("pve-3");
    let copy = copy_of(&mut image);
    image.restart();
    image.join(&token).expect("it is the first with this key");
    fleet.push(image);
    fleet.all_see_all();
    let original = format!("at 127.0.0.1:{}", fleet[2].port().unwrap());

    // The copy tries the member that let the original in, and one that only heard of the original.
    for token in [token, fleet[1].invite(json!({}))] {
        let refused = copy.cli(&["join", &token, "--name", "pve-4", "--yes"]).exits(REFUSED);
        refused.says(&["node.key", "pve-3", &original, "copied", "reset --identity"]);
        assert_eq!(copy.status()["node"]["state"], "standalone");
    }
    fleet.all_see_all();

    copy.cli(&["reset", "--identity", "--yes"]).exits(0);
    let token = fleet[0].invite(json!({"uses": "any"}));
    copy.cli(&["join", &token, "--name", "pve-4", "--yes"]).exits(0);
    fleet.push(copy);
    fleet.all_see_all();
}

/// The copy was once told that it could not be reached, since no node dials itself.
#[test]
fn a_copy_of_the_seed_is_refused_when_it_joins() {
    let mut seed = Agent::start("pve-1");
    let copy = copy_of(&mut seed);
    seed.restart();
    seed.create("north");
    let token = seed.invite(json!({"uses": "any"}));

    let refused = copy.cli(&["join", &token, "--name", "pve-2", "--yes"]).exits(REFUSED);

    refused.says(&["node.key", "pve-1", "copied", "reset --identity"]);
    assert_eq!(seed.members().len(), 1);
}

#[test]
fn of_two_copies_that_join_at_once_one_is_let_in() {
    let seed = Agent::start("pve-1");
    seed.create("north");
    let token = seed.invite(json!({"uses": "any"}));
    let mut image = Agent::start("pve-2");
    let copy = copy_of(&mut image);
    image.restart();

    let joined: Vec<_> = thread::scope(|scope| {
        let joining: Vec<_> = [&image, &copy]
            .map(|agent| scope.spawn(|| agent.cli(&["join", &token, "--yes"])))
            .into_iter()
            .collect();
        joining.into_iter().map(|one| one.join().unwrap()).collect()
    });

    let refused: Vec<_> = joined.iter().filter(|ran| ran.code == REFUSED).collect();
    let done = joined.iter().filter(|ran| ran.code == 0).count();
    assert_eq!((done, refused.len()), (1, 1), "{joined:?}");
    refused[0].says(&["node.key", "copied", "reset --identity"]);
    let state = || seed.state_of("pve-2");
    until("the one that is in is seen", SOON, state, |state| state == "alive");
}

/// A host with a copy of the folder of `image`, which is no member yet. The copy runs, and `image`
/// is stopped.
fn copy_of(image: &mut Agent) -> Agent {
    image.stop();
    let mut copy = Agent::named(image.name());
    let disk = copy.file("disk");
    image.save_disk(&disk);
    copy.restore_disk(&disk);
    // The image runs meanwhile, so that the copy takes a port of its own.
    image.restart();
    copy.restart();
    image.stop();
    copy
}
