//! What must not grow with the number of nodes, counted in simulations: no clock is read.

use std::time::Duration;

use peerage_tests::sim::crowd::Crowd;
use peerage_tests::sim::spread::spread;

const MINUTE: Duration = Duration::from_secs(60);

/// How many datagrams an idle node sends per second, in a Data Center of so many nodes that is at
/// rest.
fn idle_datagrams_per_second(nodes: usize) -> f64 {
    let mut crowd = Crowd::new(nodes, 0.0, 7);
    crowd.until_all_see(nodes - 1, MINUTE).expect("all see all");
    // The news of the start are passed on for a while.
    crowd.pass(Duration::from_secs(20));
    let before = crowd.sent().datagrams;
    crowd.pass(Duration::from_secs(10));
    (crowd.sent().datagrams - before) as f64 / nodes as f64 / 10.0
}

#[test]
fn an_idle_nodes_datagrams_do_not_grow_with_the_number_of_nodes() {
    let few = idle_datagrams_per_second(10);
    let many = idle_datagrams_per_second(150);
    // Two probes and two answers in each period of 0.6 s, by chance and along the ring.
    assert!((6.0..7.0).contains(&few), "{few}");
    assert!((many / few - 1.0).abs() < 0.05, "{few} and {many}");
}

#[test]
fn all_of_150_see_all_after_a_cold_start_with_loss_and_call_nobody_down() {
    let mut crowd = Crowd::new(150, 0.02, 3);
    let took = crowd.until_all_see(149, MINUTE).expect("all see all");
    assert!(took < Duration::from_secs(5), "{took:?}");
    crowd.pass(Duration::from_secs(20));
    assert_eq!(crowd.false_downs(), 0);
}

#[test]
fn a_death_among_150_is_known_to_all_within_seconds() {
    let mut crowd = Crowd::new(150, 0.01, 5);
    crowd.until_all_see(149, MINUTE).expect("all see all");
    crowd.pass(Duration::from_secs(20));
    crowd.kill(17);
    let took = crowd.until_all_see(148, MINUTE).expect("all know");
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(crowd.false_downs(), 0);
}

#[test]
fn a_push_reaches_nearly_all_of_300_with_loss_and_comparing_reaches_the_rest() {
    for seed in 0..5 {
        let spread = spread(300, 0.05, seed);
        assert!(spread.pushed_to >= 295, "{spread:?}");
        assert!(spread.frames <= 300 * 8, "{spread:?}");
        assert!(spread.all_within < Duration::from_secs(20), "{spread:?}");
    }
}
