//! What a follower is told over an agent that is away for a while, and over a gap.

use std::cell::Cell;
use std::path::Path;

use futures_util::future::join_all;
use peerage_proto::api::Exit;
use peerage_proto::api::settings::SetFields;
use serde_json::{Value, json};

use super::agent::Agent;
use super::commands::{TERMINAL, words_of};
use super::{Page, until};
use crate::cli::{self, CommandLine, Console, Terminal};

/// The size of a value of which the agent keeps four in memory for its followers.
const LARGE_BYTES: usize = 900_000;

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_the_agent_comes_back() {
    let mut agent = Agent::founder().await;
    let (out, err) = (Page::default(), Page::default());
    let mut console = Console::new(
        true,
        Box::new(out.clone()),
        Box::new(err),
        Box::new(std::io::empty()),
        Terminal::default(),
    );
    let socket = agent.socket.clone();
    let story = async {
        agent.is_watched_by(1).await;
        agent.do_it("settings set a x=1").await;
        until("the first change is told", || out.text().lines().count() == 1).await;
        // The agent has closed its socket, and a change comes meanwhile.
        agent.hang_up().await;
        agent.ask_inside(set(json!(2))).await;
        agent.serve().await;
        until("the second change is told", || out.text().lines().count() == 2).await;
        agent.hang_up().await;
        agent.serve().await;
        agent.do_it("settings unset a").await;
        until("the third change is told", || out.text().lines().count() == 3).await;
    };
    let command = CommandLine::read(words_of("settings watch --json")).unwrap().command.unwrap();
    tokio::select! {
        exit = cli::run(command, &socket, &mut console) => panic!("it ended with {exit:?}"),
        () = story => {}
    }
    let items: Vec<Value> =
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |item: &Value| -> u64 {
        let (_, number) = item["id"].as_str().unwrap().split_once('-').unwrap();
        number.parse().unwrap()
    };
    let first = number(&items[0]);
    assert_eq!([number(&items[1]), number(&items[2])], [first + 1, first + 2]);
    assert_eq!(items[1]["fields"], json!({"x": 2}));
    assert_eq!((&items[2]["removed"], &items[2]["fields"]), (&json!(true), &json!(null)));
}

#[tokio::test]
async fn a_watch_that_missed_changes_tells_the_gap_and_ends_with_1_unless_it_is_to_go_on() {
    let mut agent = Agent::founder().await;
    let socket = agent.socket.clone();
    let watches = [
        Watch::of("settings watch --json", Terminal::default(), false),
        Watch::of("settings watch", Terminal::default(), false),
        Watch::of("settings watch --json --on-gap continue", Terminal::default(), true),
        Watch::of("settings watch", TERMINAL, true),
        Watch::of("settings watch --on-gap stop", TERMINAL, false),
    ];
    let story = async {
        agent.is_watched_by(watches.len()).await;
        agent.ask_inside(set(json!("the first"))).await;
        let has_begun = |watch: &Watch| watch.out.text().ends_with('\n');
        until("each has a place", || watches.iter().all(has_begun)).await;
        let from = agent.node.changes().latest();
        agent.hang_up().await;
        // Before it is back, eight changes are made; the agent keeps the last five.
        for letter in ["a", "b", "c", "d", "e", "f", "g"] {
            agent.ask_inside(set(json!(letter.repeat(LARGE_BYTES)))).await;
        }
        agent.ask_inside(set(json!("the last"))).await;
        agent.serve().await;
        let done = |watch: &Watch| watch.ended.get().is_some() || told_last(&watch.out);
        until("each has ended or told the last change", || watches.iter().all(done)).await;
        from
    };
    let running = join_all(watches.iter().map(|watch| watch.run(&socket)));
    let from = tokio::select! {
        _ = running => panic!("all have ended"),
        from = story => from,
    };
    for Watch { words, out, err, goes_on, ended, .. } in &watches {
        assert_eq!(ended.get(), (!goes_on).then_some(Exit::Failed), "{words}: {}", err.text());
        if words.contains("--json") {
            let second: Value = serde_json::from_str(out.text().lines().nth(1).unwrap()).unwrap();
            let gap = &second["gap"];
            assert_eq!((&gap["missed"], &gap["from"]), (&json!(3), &json!(from)));
        } else {
            assert!(err.text().contains("3 are missed here"), "{words}: {}", err.text());
        }
        assert_eq!(told_last(out), *goes_on, "{words}");
    }
}

/// A command that watches, with what it said and how it ended.
struct Watch {
    words: &'static str,
    terminal: Terminal,
    /// Whether it is to go on over a gap.
    goes_on: bool,
    out: Page,
    err: Page,
    ended: Cell<Option<Exit>>,
}

impl Watch {
    fn of(words: &'static str, terminal: Terminal, goes_on: bool) -> Self {
        let (out, err) = (Page::default(), Page::default());
        Self { words, terminal, goes_on, out, err, ended: Cell::default() }
    }

    async fn run(&self, socket: &Path) {
        let (out, err) = (Box::new(self.out.clone()), Box::new(self.err.clone()));
        let json = self.words.contains("--json");
        let mut console = Console::new(json, out, err, Box::new(std::io::empty()), self.terminal);
        let command = CommandLine::read(words_of(self.words)).unwrap().command.unwrap();
        self.ended.set(Some(cli::run(command, socket, &mut console).await));
    }
}

/// Whether the page ends with the last change, which is short. Of a long page only the end is read.
fn told_last(page: &Page) -> bool {
    let text = page.0.lock().unwrap();
    let end = String::from_utf8_lossy(&text[text.len().saturating_sub(500)..]).into_owned();
    let mut lines = end.rsplit('\n');
    let whole = lines.next() == Some("");
    let last = lines.next().unwrap_or_default();
    whole && lines.next().is_some() && last.contains("the last")
}

fn set(value: Value) -> SetFields {
    let set = [("x".to_owned(), value)].into();
    SetFields { path: "a".into(), set, ..SetFields::default() }
}
