//! How soon a message of one agent has reached all.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::figures::quantile;

use crate::comparison::{Figures, Unit};
use crate::side::{Side, all_present};

/// How many messages are sent, one after the other, each from another host.
const MESSAGES: u64 = 100;

/// The size of what a message carries, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 256;

/// The pause between messages, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);

/// After this time a message that has not reached all counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// A reader ends after this time without any message. A single lost message must not end it, or
/// else all later messages would be lost as well.
const SILENT_AFTER: Duration = Duration::from_secs(3 * LOST_AFTER.as_secs());

/// Sends messages, and takes the time from before a message is sent until the last agent has told
/// its reader of it.
pub(crate) fn to_all(side: &mut impl Side, figures: &mut Figures) {
    all_present(side);
    let hosts = side.hosts();
    let (told, seen) = mpsc::channel();
    let mut inboxes: Vec<_> = (0..hosts).map(|host| side.inbox(host)).collect();
    let (mut took, mut lost) = (Vec::new(), 0);
    thread::scope(|scope| {
        for inbox in &mut inboxes {
            let told = told.clone();
            scope.spawn(move || {
                while let Some(number) = inbox.next(SILENT_AFTER) {
                    // The other end is gone once all is measured.
                    if told.send((number, Instant::now())).is_err() || number + 1 == MESSAGES {
                        return;
                    }
                }
            });
        }
        for number in 0..MESSAGES {
            thread::sleep(PAUSE);
            let started = Instant::now();
            side.send(number as usize % hosts, number);
            match last_arrival(&seen, number, hosts, started) {
                Some(last) => took.push((last - started).as_secs_f64()),
                None => lost += 1,
            }
        }
    });
    assert!(!took.is_empty(), "{}: not one message arrived on all", side.name());
    let p99 = quantile(&took, 0.99);
    figures.add("a 256 B message to all, median", Unit::Seconds, vec![quantile(&took, 0.5)]);
    figures.add("a 256 B message to all, 99th percentile", Unit::Seconds, vec![p99]);
    let row = format!("messages of {MESSAGES} that did not reach all within 10 s");
    figures.add(&row, Unit::Times, vec![f64::from(lost)]);
}

/// When the last of so many hosts got this message; `None` when a host did not get it in time.
fn last_arrival(
    seen: &mpsc::Receiver<(u64, Instant)>,
    number: u64,
    hosts: usize,
    started: Instant,
) -> Option<Instant> {
    let mut last = started;
    let mut missing = hosts;
    while missing > 0 {
        let left = LOST_AFTER.saturating_sub(started.elapsed());
        let (message, at) = seen.recv_timeout(left).ok()?;
        if message == number {
            last = last.max(at);
            missing -= 1;
        }
    }
    Some(last)
}
