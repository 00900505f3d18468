//! Ten agents, each on a host of its own: the nodes that are cut off are called down, and no
//! others.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::netlab::Trouble;
use peerage_tests::patience::{LATER, SOON};
use peerage_tests::soak::lasting;
use peerage_tests::{Fleet, Lab, Layout, Verdicts, skipped};

/// How many hosts there are.
const NODES: usize = 10;

/// For how long a host is frozen, and the longest freeze that still counts on a busy machine.
const FREEZE: Duration = Duration::from_secs(1);
const FREEZE_MAX: Duration = Duration::from_millis(1_050);

/// How long a verdict may still be on its way when its cause is over.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How often verdicts are read: agents keep a bounded number.
const READ_EVERY: Duration = Duration::from_secs(5);

#[test]
fn a_host_whose_cable_is_pulled_is_down_on_all_others_until_it_is_back() {
    let Some(lab) = Lab::built(Layout::of(NODES)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    let boot_of_it = |fleet: &Fleet| {
        let members = fleet[0].members();
        members.iter().find(|member| member["name"] == "pve-4").map(|it| it["boot"].clone())
    };
    let boot = boot_of_it(&fleet);
    assert!(boot.is_some());

    let started = Instant::now();
    lab.cut_link(3, 0);
    let away = fleet.take(3);
    let mut verdicts = Verdicts::from_now(&fleet);
    fleet.all_see("pve-4", &["down"], LATER);
    eprintln!("a pulled cable was seen by all after {:?}", started.elapsed());
    verdicts.read(&fleet);
    let others = verdicts.of_kind("down").into_iter().filter(|verdict| verdict.of != "pve-4");
    assert_eq!(others.count(), 0, "{verdicts:#?}");

    lab.restore_link(3, 0);
    fleet.push(away);

    fleet.all_see_all();
    assert_eq!(boot_of_it(&fleet), boot, "the agent ran on");
}

#[test]
fn a_goodbye_reaches_all_of_ten_before_any_silence_does() {
    let Some(lab) = Lab::built(Layout::of(NODES)) else { return };
    let mut fleet = Fleet::found_in(&lab);
    let mut leaver = fleet.take(6);
    let mut verdicts = Verdicts::from_now(&fleet);
    let started = Instant::now();
    assert!(leaver.stop().success());
    fleet.all_see("pve-7", &["down", "left"], SOON);
    eprintln!("a goodbye was heard by all after {:?}", started.elapsed());
    verdicts.nobody_is_down(&fleet);
    assert_eq!(verdicts.of_kind("stopped").len(), NODES - 1, "{verdicts:#?}");
}

#[test]
fn nobody_is_called_down_while_a_host_is_frozen_for_a_second() {
    let Some(lab) = Lab::built(Layout::of(NODES)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut frozen_for_a_second = 0;
    for frozen in [2, 8] {
        let mut verdicts = Verdicts::from_now(&fleet);
        let started = Instant::now();
        fleet[frozen].pause();
        thread::sleep(FREEZE);
        fleet[frozen].resume();
        let lasted = started.elapsed();
        // The frozen node, too, may take its own lateness for that of the others.
        thread::sleep(AFTERMATH);
        if lasted <= FREEZE_MAX {
            frozen_for_a_second += 1;
            verdicts.nobody_is_down(&fleet);
        }
    }
    if frozen_for_a_second == 0 {
        skipped("this machine is too busy to freeze anything for a second");
    }
    fleet.all_see_all();
}

#[test]
fn nobody_is_called_down_while_a_tenth_of_all_packets_is_lost() {
    nobody_is_called_down_under_loss(10);
}

#[test]
fn nobody_is_called_down_while_a_quarter_of_all_packets_is_lost() {
    nobody_is_called_down_under_loss(25);
}

#[track_caller]
fn nobody_is_called_down_under_loss(percent: u8) {
    let Some(mut lab) = Lab::built(Layout::of(NODES)) else { return };
    let fleet = Fleet::found_in(&lab);
    let mut verdicts = Verdicts::from_now(&fleet);

    lab.trouble(Trouble::Loss(percent));
    let lasts = lasting(Duration::from_secs(30), Duration::from_secs(300));
    let started = Instant::now();
    while started.elapsed() < lasts {
        thread::sleep(READ_EVERY.min(lasts.saturating_sub(started.elapsed())));
        verdicts.nobody_is_down(&fleet);
    }

    let suspected = verdicts.of_kind("suspect").len();
    eprintln!("{percent} % lost over {lasts:?}: nobody down, {suspected} times somebody suspect");
    lab.heal();
    fleet.all_see_all();
}
