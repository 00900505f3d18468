//! What a follower is told over an agent that is away for a while, and over a gap.

use peerage_proto::api::Exit;
use peerage_proto::api::settings::SetFields;
use serde_json::{Value, json};

use super::agent::Agent;
use super::commands::{TERMINAL, words_of};
use super::{Page, until};
use crate::cli::{self, CommandLine, Console, Terminal};

/// A value of which the agent keeps four in memory for those who follow.
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
        // It ended, and changes come meanwhile.
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
    for (words, terminal, goes_on) in [
        ("settings watch --json", Terminal::default(), false),
        ("settings watch", Terminal::default(), false),
        ("settings watch --json --on-gap continue", Terminal::default(), true),
        ("settings watch", TERMINAL, true),
        ("settings watch --on-gap stop", TERMINAL, false),
    ] {
        let mut agent = Agent::founder().await;
        let from = agent.node.changes().latest();
        let (out, err) = (Page::default(), Page::default());
        let (socket, json) = (agent.socket.clone(), words.contains("--json"));
        let input = Box::new(std::io::empty());
        let mut console =
            Console::new(json, Box::new(out.clone()), Box::new(err.clone()), input, terminal);
        let story = async {
            agent.is_watched_by(1).await;
            agent.hang_up().await;
            // Before it is back, eight changes are made; the agent keeps the last five.
            for letter in ["a", "b", "c", "d", "e", "f", "g"] {
                agent.ask_inside(set(json!(letter.repeat(LARGE_BYTES)))).await;
            }
            agent.ask_inside(set(json!("the last"))).await;
            agent.serve().await;
            until("the last change is told", || told_last(&out)).await;
        };
        let command = CommandLine::read(words_of(words)).unwrap().command.unwrap();
        let ended = tokio::select! {
            exit = cli::run(command, &socket, &mut console) => Some(exit),
            () = story => None,
        };
        assert_eq!(ended, (!goes_on).then_some(Exit::Failed), "{words}: {}", err.text());
        if json {
            let first: Value = serde_json::from_str(out.text().lines().next().unwrap()).unwrap();
            let gap = &first["gap"];
            assert_eq!((&gap["missed"], &gap["from"]), (&json!(3), &json!(from)));
        } else {
            assert!(err.text().contains("3 are missed here"), "{words}: {}", err.text());
        }
        assert_eq!(out.text().contains("pve-1"), goes_on, "{words}");
    }
}

/// Whether the last change was told, which is short. Of what is long only the end is looked at.
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
