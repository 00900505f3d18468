//! How often a live agent is called down.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::Lab;
use peerage_tests::netlab::Trouble;
use peerage_tests::process::signal;
use rustix::process::Signal;

use crate::comparison::{Figures, Unit};
use crate::side::{Side, all_present, victims};

/// For how long a process is held still.
const FREEZE: Duration = Duration::from_secs(1);

/// How many processes are held still, one after the other.
const FREEZES: usize = 5;

/// How long a verdict may still be on its way when its cause is over.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How often verdicts are read: agents keep a bounded number.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Holds some agents still, one after the other.
pub(crate) fn freeze(side: &mut impl Side, figures: &mut Figures) {
    all_present(side);
    let before = side.downs();
    for victim in victims(side.hosts(), FREEZES) {
        signal(side.pid(victim), Signal::STOP);
        thread::sleep(FREEZE);
        signal(side.pid(victim), Signal::CONT);
        thread::sleep(AFTERMATH);
    }
    let downs = side.downs() - before;
    all_present(side);
    let row = format!("false downs: {FREEZES} agents frozen for 1 s each, in turn");
    figures.add(&row, Unit::Times, vec![downs as f64]);
}

/// Loses a share of all packets for a while.
pub(crate) fn loss(
    side: &mut impl Side,
    lab: &mut Lab,
    percent: u8,
    lasts: Duration,
    figures: &mut Figures,
) {
    all_present(side);
    let before = side.downs();
    lab.trouble(Trouble::Loss(percent));
    let started = Instant::now();
    let mut downs = 0;
    while started.elapsed() < lasts {
        thread::sleep(READ_EVERY.min(lasts.saturating_sub(started.elapsed())));
        downs = side.downs() - before;
    }
    lab.heal();
    all_present(side);
    let row = format!("false downs: {percent} % of all packets lost for {} s", lasts.as_secs());
    figures.add(&row, Unit::Times, vec![downs as f64]);
}
