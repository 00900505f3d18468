//! How soon all agents know that one of them is gone.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::Lab;

use crate::comparison::{Figures, Unit};
use crate::side::{Side, all_present, others, until_present, victims};

/// For how long a cable stays out. Where members are many, a Serf that is cut off doubts itself
/// more and more and comes to its last verdict only after minutes, so the bench does not wait for
/// that.
const CABLE_OUT: Duration = Duration::from_secs(30);

/// Measures the goodbye of one agent, in every run another one's.
pub(crate) fn goodbye(side: &mut impl Side, runs: usize, figures: &mut Figures) {
    let hosts = side.hosts();
    let mut measured = Vec::new();
    for victim in victims(hosts, runs) {
        let started = Instant::now();
        side.stop(victim);
        let took = until_present(side, others(hosts, victim), hosts - 1, started);
        measured.push(took.as_secs_f64());
        side.ended(victim);
        side.start(victim);
        all_present(side);
    }
    figures.add("a goodbye, until all others know", Unit::Seconds, measured);
}

/// Measures the death of one agent, in every run another one's.
pub(crate) fn kill(side: &mut impl Side, runs: usize, figures: &mut Figures) {
    let hosts = side.hosts();
    let mut measured = Vec::new();
    for victim in victims(hosts, runs) {
        let started = Instant::now();
        side.kill(victim);
        let took = until_present(side, others(hosts, victim), hosts - 1, started);
        measured.push(took.as_secs_f64());
        side.start(victim);
        all_present(side);
    }
    figures.add("kill -9, until all survivors say down", Unit::Seconds, measured);
}

/// Measures the cut of one host's cable and its return, in every run another host's.
pub(crate) fn cable(side: &mut impl Side, lab: &Lab, runs: usize, figures: &mut Figures) {
    let hosts = side.hosts();
    let (mut down, mut back) = (Vec::new(), Vec::new());
    for victim in victims(hosts, runs) {
        let started = Instant::now();
        lab.cut_link(victim, 0);
        let took = until_present(side, others(hosts, victim), hosts - 1, started);
        down.push(took.as_secs_f64());
        thread::sleep(CABLE_OUT.saturating_sub(started.elapsed()));
        let started = Instant::now();
        lab.restore_link(victim, 0);
        back.push(until_present(side, 0..hosts, hosts, started).as_secs_f64());
    }
    figures.add("cable pulled, until all survivors say down", Unit::Seconds, down);
    let row = format!("cable put back after {} s, until all see all", CABLE_OUT.as_secs());
    figures.add(&row, Unit::Seconds, back);
}
