//! What strangers can do to an agent in a minute: how long the others wait meanwhile, and what
//! memory it takes.

use std::thread;
use std::time::{Duration, Instant};

use peerage_tests::process::rss_bytes;
use peerage_tests::strangers::{Attack, MANY_SOURCES, UnderWay};
use peerage_tests::{Agent, Fleet};
use serde_json::json;

use super::{GIVE_UP, until_all};

/// How long each attack lasts.
const LASTS: Duration = Duration::from_secs(60);

/// Measures under each attack, `runs` times over a minute, how long a new node takes to join and
/// how long a killed member takes to be back.
pub(crate) fn strangers(fleet: &mut Fleet, runs: usize, cell: &mut impl FnMut(&str, String)) {
    for (attack, sources) in Attack::ALL.into_iter().flat_map(|a| [(a, 1), (a, MANY_SOURCES)]) {
        let before: Vec<f64> = fleet.iter().map(|agent| rss_bytes(agent.pid())).collect();
        let under_way: Vec<_> =
            fleet.iter().take(5).map(|agent| UnderWay::begin(attack, sources, agent)).collect();
        let (mut joined, mut back, mut more) = (Duration::ZERO, Duration::ZERO, 0.0_f64);
        for run in 0..runs {
            thread::sleep(LASTS / u32::try_from(runs).unwrap_or(1));
            let newcomer = Agent::start(&format!("{attack:?}-{sources}-{run}").to_lowercase());
            let begun = Instant::now();
            newcomer.join(&fleet[0].invite(json!({}))).expect("who holds an invitation joins");
            joined = joined.max(begun.elapsed());
            let grown = fleet.iter().zip(&before).map(|(a, before)| rss_bytes(a.pid()) - before);
            more = grown.fold(more, f64::max);
            newcomer.cli(&["leave"]).exits(0);

            let last = fleet.len() - 1;
            fleet[last].kill();
            let begun = Instant::now();
            fleet[last].restart();
            let name = fleet[last].name().to_owned();
            let sees = |agent: &Agent| agent.state_of(&name) == "alive";
            back = back.max(until_all(&[&fleet[0]], begun, sees).min(GIVE_UP));
        }
        let connections: u64 = under_way.iter().map(UnderWay::connections).sum();
        drop(under_way);
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
        let name = format!("{attack:?} from {sources}").to_lowercase();
        cell(&format!("strangers, {name}: one joins (slowest)"), ms(joined));
        cell(&format!("strangers, {name}: a member is back (slowest)"), ms(back));
        cell(&format!("strangers, {name}: memory (most)"), format!("+{:.1} MB", more / 1e6));
        cell(&format!("strangers, {name}: connections"), connections.to_string());
    }
}
