//! Whole agents in simulated worlds: every task of the agent, real QUIC with real TLS, foca and
//! chitchat, on a simulated network, with simulated disks and clocks; the same seed, the same world,
//! to the last byte of the last packet.
//!
//! A world runs in a process of its own, which this test starts from its own binary: tokio counts
//! its runtimes through the life of a process, and that number is in the seed of every `select!`.
//!
//! - `PEERAGE_SEED=n` replays one world and prints what happened in it.
//! - `PEERAGE_SEEDS=n` runs so many worlds, from seed 0 on, rather than [`SEEDS`].
//! - `PEERAGE_SECONDS=n` runs worlds for so long.

mod disk;
mod entropy;
mod flaw;
mod host;
mod panics;
mod wire;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::flaw::Flaw;
use self::world::{Outcome, World};

/// How many worlds run where nobody says.
const SEEDS: u64 = 24;

/// How many worlds may be needed until one shows a mistake made on purpose.
const SEEDS_FOR_A_FLAW: u64 = 12;

/// The kinds of trouble, in the words of the logs. Where many worlds ran, each must have happened
/// at least once.
const TROUBLES: [&str; 13] = [
    "are cut from",
    "are not heard by",
    "10 % get lost",
    "up to 300 ms",
    "is frozen",
    "is killed",
    "is asked to Stop",
    "takes no more",
    "is as it was at",
    "is destroyed",
    "ms ahead",
    "is asked to remove",
    "is asked to Leave",
];

/// From how many worlds on each kind of trouble must have happened.
const WORLDS_FOR_ALL_TROUBLES: u64 = 20;

/// How many events are shown of a world in which a promise broke.
const LINES_SHOWN: usize = 80;

/// The variables of a process that runs one world: its seed, and what is wrong in it.
const WORLD: &str = "PEERAGE_TEST_WORLD";
const FLAW: &str = "PEERAGE_TEST_FLAW";

/// The variable that shows what the agents log, too.
const LOG: &str = "PEERAGE_LOG";

/// The test that such a process runs.
const THIS: &str = "every_promise_is_kept_by_whole_agents_in_every_world";

#[test]
fn every_promise_is_kept_by_whole_agents_in_every_world() {
    if let Some(seed) = number(WORLD) {
        return one_world(seed);
    }
    if let Some(seed) = number("PEERAGE_SEED") {
        let ran = Ran::of(seed, None);
        io::stdout().write_all(ran.text.as_bytes()).expect("standard output takes the log");
        assert!(ran.broken.is_none(), "seed {seed}: {}", ran.broken.unwrap_or_default());
        return;
    }
    let started = Instant::now();
    let seconds = number("PEERAGE_SECONDS").map(Duration::from_secs);
    let seeds = number("PEERAGE_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let run = || {
        let mut sums = Sums::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = seconds.map_or(seed >= seeds, |seconds| started.elapsed() >= seconds);
            if over {
                return sums;
            }
            let ran = Ran::of(seed, None);
            if let Some(broken) = &ran.broken {
                panic!(
                    "seed {seed}: {broken}\n{}\nreplay: PEERAGE_SEED={seed} cargo test -p \
                     peerage-tests --test whole_agents",
                    ran.tail(LINES_SHOWN)
                );
            }
            sums.add(&ran);
        }
    };
    let sums = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).fold(
            Sums::default(),
            |mut all, sums| {
                all.worlds += sums.worlds;
                all.packets += sums.packets;
                all.lasted_ms += sums.lasted_ms;
                all.acknowledged += sums.acknowledged;
                all.rest_ms_max = all.rest_ms_max.max(sums.rest_ms_max);
                all.troubles.extend(sums.troubles);
                all
            },
        )
    });
    let Sums { worlds, packets, lasted_ms, rest_ms_max, acknowledged, troubles } = sums;
    // Written, not printed: the harness keeps back what a test that passes prints.
    let took = started.elapsed().as_secs();
    let line = format!(
        "whole agents: {worlds} worlds, {} simulated minutes, {packets} packets, {acknowledged} \
         acknowledged writes, at rest within {:.1} s of the end of all trouble, in {took} s\n",
        lasted_ms / 60_000,
        rest_ms_max as f64 / 1e3
    );
    io::stdout().write_all(line.as_bytes()).expect("standard output takes a line");
    assert!(acknowledged > worlds * 5, "the worlds are too quiet to show anything");
    let missing = TROUBLES.iter().find(|trouble| !troubles.contains(*trouble));
    assert!(worlds < WORLDS_FOR_ALL_TROUBLES || missing.is_none(), "in no world {missing:?}");
}

#[test]
fn a_seed_determines_every_byte_on_the_network_and_every_event() {
    let [first, second, other] = [1, 1, 2].map(|seed| Ran::of(seed, None));
    assert!(first.packets > 1_000, "the world is too quiet to show anything");
    assert_eq!((first.digest, first.text), (second.digest, second.text));
    assert_ne!(first.digest, other.digest);
}

/// A checker is worth something if it catches what it is for.
#[test]
fn every_flaw_is_caught_by_the_promise_that_it_breaks() {
    for (flaw, promises) in [
        (Flaw::AcknowledgesBeforeCommit, &["AcknowledgedMeansKept"][..]),
        (Flaw::DiskLies, &["AcknowledgedMeansKept", "RemovedStaysRemoved"]),
        (Flaw::NeverHeals, &["AlwaysWritable"]),
        (Flaw::Chatters, &["Quiet"]),
    ] {
        let broken =
            (0..SEEDS_FOR_A_FLAW).find_map(|seed| Some((seed, Ran::of(seed, Some(flaw)).broken?)));
        let (seed, broken) = broken.unwrap_or_else(|| panic!("{flaw:?} is not caught"));
        println!("{flaw:?}: seed {seed}: {broken}");
        let named = promises.iter().any(|promise| broken.starts_with(promise));
        assert!(named, "{flaw:?}, seed {seed}: {broken}");
    }
}

/// Lets one world happen in this process, and prints how it went.
fn one_world(seed: u64) {
    let flaw = env::var(FLAW).ok().and_then(|name| Flaw::named(&name));
    panics::keep();
    let backups = tempfile::tempdir().expect("there is room for what agents set aside");
    let ran = thread::scope(|scope| {
        let world = scope.spawn(|| {
            entropy::seed_this_thread(seed);
            let _logging = env::var_os(LOG).map(|_| {
                let subscriber = tracing_subscriber::fmt()
                    .with_max_level(tracing::Level::DEBUG)
                    .without_time()
                    .with_ansi(false)
                    .finish();
                tracing::subscriber::set_default(subscriber)
            });
            World::run(seed, flaw, backups.path())
        });
        world.join()
    });
    let Outcome { log, digest, packets, lasted_ms, rest_ms, acknowledged, broken } =
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let mut text = log.tail(usize::MAX);
    let _ = write!(
        text,
        "\nworld {seed} digest {digest} packets {packets} lasted {lasted_ms} rest {rest_ms} \
         acknowledged {acknowledged}\n"
    );
    if let Some(broken) = broken {
        let _ = writeln!(text, "broken {broken}");
    }
    io::stdout().write_all(text.as_bytes()).expect("standard output takes the log");
}

/// How a world went, as its process told it.
struct Ran {
    text: String,
    digest: u64,
    packets: u64,
    lasted_ms: u64,
    rest_ms: u64,
    acknowledged: u64,
    broken: Option<String>,
}

impl Ran {
    /// Runs the world of a seed in a process of its own.
    fn of(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut command = Command::new(env::current_exe().expect("this binary has a path"));
        command
            .args(["--exact", "--nocapture", "--test-threads=1", THIS])
            .env(WORLD, seed.to_string())
            .stdin(Stdio::null());
        if let Some(flaw) = flaw {
            command.env(FLAW, format!("{flaw:?}"));
        }
        let Output { stdout, stderr, .. } = command.output().expect("this binary runs");
        let text = String::from_utf8_lossy(&stdout);
        let told = text.lines().find_map(|line| line.strip_prefix("world ")).unwrap_or_else(|| {
            let stderr = String::from_utf8_lossy(&stderr);
            panic!("the world of seed {seed} ended early:\n{text}\n{stderr}")
        });
        let words: Vec<&str> = told.split_ascii_whitespace().collect();
        let number = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(0)
        };
        let events = text.lines().filter(|line| line.contains(" ms  "));
        Self {
            digest: number("digest"),
            packets: number("packets"),
            lasted_ms: number("lasted"),
            rest_ms: number("rest"),
            acknowledged: number("acknowledged"),
            broken: text.lines().find_map(|line| Some(line.strip_prefix("broken ")?.to_owned())),
            text: match env::var_os(LOG) {
                Some(_) => text.to_string(),
                None => events.collect::<Vec<_>>().join("\n") + "\n",
            },
        }
    }

    /// The last of its events.
    fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// What some worlds add up to.
#[derive(Default)]
struct Sums {
    worlds: u64,
    packets: u64,
    lasted_ms: u64,
    rest_ms_max: u64,
    acknowledged: u64,
    troubles: BTreeSet<&'static str>,
}

impl Sums {
    fn add(&mut self, ran: &Ran) {
        self.worlds += 1;
        self.packets += ran.packets;
        self.lasted_ms += ran.lasted_ms;
        self.rest_ms_max = self.rest_ms_max.max(ran.rest_ms);
        self.acknowledged += ran.acknowledged;
        self.troubles.extend(TROUBLES.iter().filter(|trouble| ran.text.contains(*trouble)));
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}
