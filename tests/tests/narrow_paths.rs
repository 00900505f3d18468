//! Paths that take small packets and lose all large ones: a tunnel was put on the way, or an MTU was
//! set, and QUIC cannot make its packets smaller than 1,200 bytes.
//!
//! Such a member was once called down, though it answered, since small messages travelled in the
//! packets of large ones. Or it was shown alive, while no setting arrived there, and nothing said
//! so.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::netlab::Trouble;
use peerage_tests::patience::{LATER, eventually, until};
use peerage_tests::{Agent, Fleet, Lab, Layout, Verdicts};
use serde_json::{Value, json};

/// Less than the smallest full packet of QUIC (1,200 bytes of UDP), and more than what the failure
/// detector sends between few members. Where it has much to tell, its datagrams have up to 1,100
/// bytes, and such a one does not pass.
const NARROW_BYTES: u32 = 1100;
const USUAL_BYTES: u32 = 1500;

/// How soon a narrow path must be shown. It takes some 10 s.
const SHOWN: Duration = Duration::from_secs(60);

/// For how long a link that loses packets is looked at.
const LASTS: Duration = Duration::from_secs(20);

#[test]
fn a_member_to_which_nothing_large_gets_through_is_alive_and_shown_so_until_it_does() {
    let Some(lab) = Lab::built(Layout::of(3)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut verdicts = Verdicts::from_now(&fleet);

    lab.narrow(1, 0, NARROW_BYTES);
    let big = large(200_000);
    fleet[0].set("a/big", big.clone());

    let row = shown(&fleet[0], "pve-2");
    let said = row["message"].as_str().unwrap();
    assert!(said.contains("see to the MTU of the way there"), "{row}");
    assert_ne!(fleet[1].fields("a/big"), big);
    // A person who asks another node is told, too, and so is a person who waits for a write.
    let told = until(
        "pve-3 shows it",
        LATER,
        || member(&fleet[2], "pve-1"),
        |row| {
            row["notices"]
                .as_array()
                .is_some_and(|told| told.iter().any(|one| one["kind"] == "bulk"))
        },
    );
    assert!(told["message"].as_str().unwrap().contains("bulk: "), "{told}");
    let notices = &fleet[0].status()["notices"];
    assert!(notices.as_array().unwrap().iter().any(|one| one["kind"] == "bulk"), "{notices}");
    // A small write passes, and so does its receipt.
    fleet[0].cli(&["settings", "set", "a/b", "x=1", "--wait", "all", "--timeout", "20s"]).exits(0);
    let large = format!("x={}", "y".repeat(2_000));
    let waited =
        fleet[0].cli(&["settings", "set", "a/c", &large, "--wait", "all", "--timeout", "1s"]);
    waited
        .exits(6)
        .says(&["pve-2 is reached, but nothing larger than a small packet arrives there"]);
    let lag = fleet[0].client().get("lag").unwrap();
    let lag = lag.as_array().unwrap().iter().find(|lag| lag["name"] == "pve-2").unwrap();
    assert!(lag["message"].as_str().unwrap().contains("nothing larger"), "{lag}");
    verdicts.nobody_is_down(&fleet);

    lab.narrow(1, 0, USUAL_BYTES);

    fleet.all_read("a/big", &big);
    fleet.converged();
    for agent in fleet.iter() {
        let standing = || agent.status()["notices"].clone();
        until("it is over", LATER, standing, |notices| *notices == json!([]));
    }
    assert_eq!(member(&fleet[0], "pve-2")["stalled_s"], Value::Null);
    verdicts.nobody_is_down(&fleet);
    let told = verdicts.of_kind("bulk");
    let of_first: Vec<_> = told.iter().filter(|one| one.by == "pve-1").collect();
    assert_eq!(of_first.len(), 2, "it begins and ends under one word: {told:#?}");
}

#[test]
fn where_the_kernel_knows_what_the_way_takes_the_size_is_named() {
    let Some(lab) = Lab::built(Layout::of(2)) else { return };
    let fleet = Fleet::found_in(&lab);

    lab.narrow_card(0, 0, NARROW_BYTES);
    fleet[0].set("a/big", large(200_000));

    let row = shown(&fleet[0], "pve-2");
    let said = row["message"].as_str().unwrap();
    assert!(said.contains("takes packets of 1100 bytes, and QUIC needs 1228"), "{row}");
}

#[test]
fn a_member_that_has_a_wider_path_is_reached_by_that() {
    let Some(lab) = Lab::built(Layout::of(3).networks(2)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut verdicts = Verdicts::from_now(&fleet);

    lab.narrow(1, 0, NARROW_BYTES);
    let big = large(200_000);
    fleet[0].set("a/big", big.clone());

    fleet.all_read("a/big", &big);
    // The third node may have brought the document meanwhile, so the link itself is checked.
    eventually("it is reached by the wider path", SHOWN, || {
        let row = member(&fleet[0], "pve-2");
        let link = row["link"].as_str().unwrap_or_default();
        match link.contains("10.78.") || link.contains("fd77:1:") {
            true => Ok(()),
            false => Err(row),
        }
    });
    verdicts.nobody_is_down(&fleet);
}

/// This link loses packets of any size, which must not be taken for a narrow path.
#[test]
fn a_link_that_loses_a_quarter_of_all_packets_is_not_shown_as_narrow() {
    let Some(mut lab) = Lab::built(Layout::of(3)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut verdicts = Verdicts::from_now(&fleet);

    lab.trouble(Trouble::Loss(25));
    let start = Instant::now();
    for round in 0.. {
        fleet[round % 3].set(&format!("a/{round}"), large(100_000));
        thread::sleep(Duration::from_millis(500));
        if start.elapsed() > LASTS {
            break;
        }
    }
    lab.heal();

    fleet.converged();
    verdicts.read(&fleet);
    assert!(verdicts.of_kind("bulk").is_empty(), "{:#?}", verdicts.of_kind("bulk"));
}

fn large(bytes: usize) -> Value {
    json!({ "x": "y".repeat(bytes) })
}

/// Waits until a member is shown alive, and as one to which nothing large gets through.
#[track_caller]
fn shown(agent: &Agent, name: &str) -> Value {
    let row = eventually("it is shown", SHOWN, || {
        let row = member(agent, name);
        match row["stalled_s"].is_number() {
            true => Ok(row),
            false => Err(row),
        }
    });
    assert_eq!(row["state"], "alive", "{row}");
    assert!(
        row["message"].as_str().unwrap().contains("nothing larger than a small packet"),
        "{row}"
    );
    row
}

/// A member as an agent sees it.
fn member(agent: &Agent, name: &str) -> Value {
    let members = agent.members();
    members.into_iter().find(|member| member["name"] == name).unwrap_or_default()
}
