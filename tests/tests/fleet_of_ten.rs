//! Ten agents: what grows with their number shows here first.

use std::time::Instant;

use peerage_tests::Fleet;
use peerage_tests::patience::{LATER, eventually};
use serde_json::json;

/// How many agents there are.
const NODES: usize = 10;

#[test]
fn ten_nodes_find_each_other_agree_and_notice_two_that_die() {
    let started = Instant::now();
    let mut fleet = Fleet::found(NODES);
    eprintln!("{NODES} agents: started, joined, and all see all after {:?}", started.elapsed());

    for (i, agent) in fleet.iter().enumerate() {
        agent.set(&format!("docs/{i}"), json!({"by": agent.name()}));
    }
    for i in 0..NODES {
        fleet.all_read(&format!("docs/{i}"), &json!({"by": format!("pve-{}", i + 1)}));
    }
    fleet.converged();

    let started = Instant::now();
    fleet.kill(&[0, 5]);
    let (mut sixth, mut first) = (fleet.take(5), fleet.take(0));
    fleet.all_see("pve-1", &["down"], LATER);
    fleet.all_see("pve-6", &["down"], LATER);
    eprintln!("two killed at once: all see it after {:?}", started.elapsed());
    fleet[3].set("after/a", json!({"x": 1}));

    sixth.restart();
    first.restart();
    fleet.push(sixth);
    fleet.push(first);
    fleet.all_see_all();
    fleet.all_read("after/a", &json!({"x": 1}));
    let vitals = || {
        let members = fleet[0].members();
        let silent = members.iter().find(|member| member["version"].is_null());
        silent.map_or(Ok(()), |member| Err(member.clone()))
    };
    eventually("every node's version is known", LATER, vitals);
}
