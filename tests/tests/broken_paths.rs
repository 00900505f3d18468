//! Two nodes that cannot reach each other, while both reach a third: both stay alive, each is shown
//! as reached through another node, and what they write arrives.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::netlab::Trouble;
use peerage_tests::patience::{LATER, eventually};
use peerage_tests::{Agent, Fleet, Lab, Layout, Verdicts};
use serde_json::{Value, json};

/// For how long a broken path is looked at: dozens of probes of each node by each other one.
const LASTS: Duration = Duration::from_secs(20);

/// How soon a write must arrive by the longer way: long before sessions would carry it.
const PROMPTLY: Duration = Duration::from_secs(2);

#[test]
fn two_nodes_apart_are_reached_through_a_third() {
    goes_round(3, Trouble::Apart(0, 1), &[(0, 1), (1, 0)]);
}

#[test]
fn two_of_five_nodes_apart_are_reached_through_another() {
    goes_round(5, Trouble::Apart(0, 4), &[(0, 4), (4, 0)]);
}

/// Either end needs the other's packets to use a connection, so the path is broken for both.
#[test]
fn a_path_that_carries_one_way_only_is_gone_round_both_ways() {
    goes_round(3, Trouble::OneWay { from: 0, to: 1 }, &[(0, 1), (1, 0)]);
}

/// Breaks the path of a pair, and looks at it for a while.
#[track_caller]
fn goes_round(nodes: usize, trouble: Trouble, pair: &[(usize, usize)]) {
    let Some(mut lab) = Lab::built(Layout::of(nodes)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut verdicts = Verdicts::from_now(&fleet);

    lab.trouble(trouble);

    let name = |at: usize| fleet[at].name().to_owned();
    for &(from, to) in pair {
        let what = format!("{} reaches {} through another", name(from), name(to));
        let member = eventually(&what, LATER, || {
            let member = member(&fleet[from], &name(to));
            let path = member["path"].as_str().unwrap_or_default();
            if path.starts_with("via pve-") && member["state"] == "alive" {
                Ok(member)
            } else {
                Err(member)
            }
        });
        let said = member["message"].as_str().unwrap_or_default();
        assert!(said.contains("direct path is broken"), "{member}");
    }
    let broken = Instant::now();
    for round in 0.. {
        for &(from, to) in pair {
            let path = format!("round/{round}/{from}");
            fleet[from].set(&path, json!({ "round": round }));
            eventually(&format!("{} reads {path}", name(to)), PROMPTLY, || {
                let found = fleet[to].fields(&path);
                if found["round"] == round { Ok(()) } else { Err(found) }
            });
        }
        thread::sleep(Duration::from_secs(1));
        if broken.elapsed() > LASTS {
            break;
        }
    }
    verdicts.nobody_is_down(&fleet);

    lab.heal();

    for &(from, to) in pair {
        let what = format!("{} reaches {} directly again", name(from), name(to));
        eventually(&what, LATER, || {
            let member = member(&fleet[from], &name(to));
            if member["path"] == "direct" { Ok(()) } else { Err(member) }
        });
    }
    verdicts.nobody_is_down(&fleet);
    fleet.converged();
}

/// A member as an agent sees it.
fn member(agent: &Agent, name: &str) -> Value {
    let members = agent.members();
    members.into_iter().find(|member| member["name"] == name).unwrap_or_default()
}
