//! Networks that fall apart: every side goes on, and all is one again with nobody's help.

use std::thread;
use std::time::Duration;

use peerage_tests::patience::{LATER, eventually};
use peerage_tests::soak::lasting;
use peerage_tests::{Agent, Fleet, Lab, Layout};
use serde_json::{Value, json};

#[test]
fn two_halves_go_on_apart_and_are_one_again() {
    splits_and_heals(&[&[0, 1, 2, 3, 4], &[5, 6, 7, 8, 9]]);
}

#[test]
fn the_founder_alone_against_nine_goes_on_and_is_one_of_them_again() {
    splits_and_heals(&[&[0], &[1, 2, 3, 4, 5, 6, 7, 8, 9]]);
}

#[test]
fn three_sides_go_on_apart_and_are_one_again() {
    splits_and_heals(&[&[0, 1, 2], &[3, 4, 5], &[6, 7, 8]]);
}

/// No node forgets members that it met long ago, and the member that invited them is not needed to
/// find them. In the long form the split outlasts every timeout of the mesh.
#[test]
fn a_long_split_heals_without_the_founder_whom_all_had_joined_by() {
    let Some(mut lab) = Lab::built(Layout::of(6)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    lab.partition(&[&[0, 1, 2], &[3, 4, 5]]);
    each_side_is_alone(&fleet, &[&[0, 1, 2], &[3, 4, 5]]);
    // The founder is destroyed: its process and its disk are gone.
    fleet.kill(&[0]);
    drop(fleet.take(0));
    let sides: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
    each_side_is_alone(&fleet, &sides);
    // Two of six cannot tell who is gone.
    fleet[0].cli(&["remove", "pve-1"]).exits(4).says(&["reaches 1 of 5", "--force"]);
    fleet[0].cli(&["remove", "pve-1", "--force"]).exits(0);
    fleet[0].set("split/one", json!({"by": "pve-2"}));
    fleet[4].set("split/other", json!({"by": "pve-6"}));

    thread::sleep(lasting(Duration::from_secs(20), Duration::from_secs(200)));
    lab.heal();

    fleet.all_see_all();
    fleet.all_read("split/one", &json!({"by": "pve-2"}));
    fleet.all_read("split/other", &json!({"by": "pve-6"}));
    fleet.all_see("pve-1", &["removed"], LATER);
    fleet.converged();
}

/// Splits a fleet, writes on every side, and heals.
#[track_caller]
fn splits_and_heals(sides: &[&[usize]]) {
    let nodes = sides.iter().map(|side| side.len()).sum();
    let Some(mut lab) = Lab::built(Layout::of(nodes)) else { return };
    let fleet = Fleet::found_in(&lab);
    fleet[0].set("split/both", json!({"before": true}));
    fleet.all_read("split/both", &json!({"before": true}));

    lab.partition(sides);
    each_side_is_alone(&fleet, sides);
    let mut both = json!({"before": true});
    for (at, side) in sides.iter().enumerate() {
        let writer = &fleet[side[side.len() - 1]];
        writer.set(&format!("split/{at}"), json!({"side": at}));
        // Every side writes a field of its own in one document.
        writer.set("split/both", json!({format!("side-{at}"): at}));
        both[format!("side-{at}")] = json!(at);
        for &node in *side {
            reads(&fleet[node], &format!("split/{at}"), &json!({"side": at}));
        }
        let elsewhere = sides.iter().filter(|other| *other != side).flat_map(|side| side.iter());
        for &node in elsewhere {
            assert_eq!(
                fleet[node].fields(&format!("split/{at}")),
                Value::Null,
                "{node} is cut off"
            );
        }
    }
    lab.heal();

    fleet.all_see_all();
    for at in 0..sides.len() {
        fleet.all_read(&format!("split/{at}"), &json!({"side": at}));
    }
    fleet.all_read("split/both", &both);
    fleet.converged();
}

/// Waits until every node sees its own side alive and everybody else down.
#[track_caller]
fn each_side_is_alone(fleet: &[Agent], sides: &[&[usize]]) {
    for side in sides {
        for &node in *side {
            eventually(&format!("{} sees its side alone", fleet[node].name()), LATER, || {
                let members = fleet[node].status()["members"].clone();
                let alone = members["alive"] == side.len() && members["suspect"] == 0;
                if alone { Ok(()) } else { Err(members) }
            });
        }
    }
}

#[track_caller]
fn reads(agent: &Agent, path: &str, fields: &Value) {
    eventually(&format!("{} reads {path}", agent.name()), LATER, || {
        let found = agent.fields(path);
        if found == *fields { Ok(()) } else { Err(found) }
    });
}
