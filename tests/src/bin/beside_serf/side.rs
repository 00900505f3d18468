//! What both sides of the comparison can be asked to do.

use std::time::{Duration, Instant};
use std::{iter, thread};

/// How long a measured state may take before the bench gives up.
const GIVE_UP: Duration = Duration::from_secs(300);

/// The pause between two rounds of asking, per agent: asking all takes the same share of the
/// machine's time at every size.
const PAUSE_PER_AGENT: Duration = Duration::from_micros(500);

/// A fleet of agents of one kind, one on each host of a lab. Hosts are told by their index.
pub(crate) trait Side {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// How many hosts there are.
    fn hosts(&self) -> usize;

    /// Puts an agent on a host in place of any that was there: a new node that runs, answers, and
    /// knows of no other one. The first host's is the one to join.
    fn fresh(&mut self, host: usize);

    /// Lets the agent of a host join that of the first.
    fn join(&mut self, host: usize);

    /// Lets the agent of a host leave for good.
    fn leave(&mut self, host: usize);

    /// Starts an agent again, with what it had on disk, and does not wait until it answers.
    fn start(&mut self, host: usize);

    /// Kills an agent without a word.
    fn kill(&mut self, host: usize);

    /// Tells an agent to stop in good order, and does not wait until it has.
    fn stop(&mut self, host: usize);

    /// Waits until an agent that was told to stop has ended.
    fn ended(&mut self, host: usize);

    /// The process of a host.
    fn pid(&self, host: usize) -> u32;

    /// How many members an agent believes to be there, itself among them: all that it knows but
    /// those it calls down, failed or left. `None` where it does not answer yet.
    fn present(&mut self, host: usize) -> Option<usize>;

    /// How many times any agent has called another one down so far.
    fn downs(&mut self) -> usize;

    /// Sends a message with this number and [`messages::MESSAGE_BYTES`](crate::messages) bytes
    /// from a host to all.
    fn send(&mut self, host: usize, number: u64);

    /// What receives messages on a host.
    fn inbox(&mut self, host: usize) -> Box<dyn Inbox>;
}

/// Receives the messages that arrive on one host.
pub(crate) trait Inbox: Send {
    /// The number of the next message; `None` when none came within `bound`, which ends it.
    fn next(&mut self, bound: Duration) -> Option<u64>;
}

/// How long it takes, from `started` on, until each of these hosts' agents counts so many members.
/// Each is asked only until it does.
///
/// # Panics
/// When it takes too long to be measured.
pub(crate) fn until_present(
    side: &mut impl Side,
    hosts: impl IntoIterator<Item = usize>,
    members: usize,
    started: Instant,
) -> Duration {
    let mut waiting: Vec<_> = hosts.into_iter().collect();
    while !waiting.is_empty() {
        if started.elapsed() > GIVE_UP {
            let seen: Vec<_> = waiting.iter().map(|&host| (host, side.present(host))).collect();
            panic!("{}: {seen:?} never counted {members}", side.name());
        }
        waiting.retain(|&host| side.present(host) != Some(members));
        if !waiting.is_empty() {
            thread::sleep(PAUSE_PER_AGENT * u32::try_from(side.hosts()).unwrap_or(u32::MAX));
        }
    }
    started.elapsed()
}

/// Waits until all agents count all.
pub(crate) fn all_present(side: &mut impl Side) {
    let hosts = side.hosts();
    until_present(side, 0..hosts, hosts, Instant::now());
}

/// A host for each run, another one each time, never the first.
pub(crate) fn victims(hosts: usize, runs: usize) -> impl Iterator<Item = usize> {
    let mut next = 0;
    iter::from_fn(move || {
        next = (next + 7) % (hosts - 1);
        Some(next + 1)
    })
    .take(runs)
}

/// All hosts but one.
pub(crate) fn others(hosts: usize, one: usize) -> impl Iterator<Item = usize> {
    (0..hosts).filter(move |host| *host != one)
}
