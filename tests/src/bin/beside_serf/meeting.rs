//! How soon agents find each other.

use std::time::Instant;

use crate::comparison::{Figures, Unit};
use crate::side::{Side, until_present};

/// Forms the fleet. In every run the agent of the last host joins once more, as a new node.
pub(crate) fn form(side: &mut impl Side, runs: usize, figures: &mut Figures) {
    let hosts = side.hosts();
    let last = hosts - 1;
    (0..hosts).for_each(|host| side.fresh(host));
    (1..last).for_each(|host| side.join(host));
    until_present(side, 0..last, last, Instant::now());
    let mut measured = Vec::new();
    for run in 0..runs.max(1) {
        if run > 0 {
            side.leave(last);
            until_present(side, 0..last, last, Instant::now());
            side.fresh(last);
        }
        let started = Instant::now();
        side.join(last);
        measured.push(until_present(side, 0..hosts, hosts, started).as_secs_f64());
    }
    if runs > 0 {
        figures.add("one node joins, until all see all", Unit::Seconds, measured);
    }
}

/// Kills all and starts all, in every run.
pub(crate) fn cold_start(side: &mut impl Side, runs: usize, figures: &mut Figures) {
    let hosts = side.hosts();
    let mut measured = Vec::new();
    for _ in 0..runs {
        (0..hosts).for_each(|host| side.kill(host));
        let started = Instant::now();
        (0..hosts).for_each(|host| side.start(host));
        measured.push(until_present(side, 0..hosts, hosts, started).as_secs_f64());
    }
    figures.add("cold start of all, until all see all", Unit::Seconds, measured);
}
