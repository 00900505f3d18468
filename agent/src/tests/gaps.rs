//! What a follower is told that did not get everything.

use peerage_proto::api::Exit;
use serde_json::{Value, json};

use super::commands::{TERMINAL, words_of};
use super::{Agent, Page, until};
use crate::cli::{self, CommandLine, Console, Terminal};

#[tokio::test]
async fn a_watch_that_missed_changes_tells_the_gap_and_ends_with_1_unless_it_is_to_go_on() {
    for (words, terminal, goes_on) in [
        ("settings watch --json", Terminal::default(), false),
        ("settings watch", Terminal::default(), false),
        ("settings watch --json --on-gap continue", Terminal::default(), true),
        ("settings watch", TERMINAL, true),
        ("settings watch --on-gap stop", TERMINAL, false),
    ] {
        let agent = Agent::start().await;
        agent.run("create lab").await;
        let (out, err) = (Page::default(), Page::default());
        let (socket, json) = (agent.socket.clone(), words.contains("--json"));
        let input = Box::new(std::io::empty());
        let mut console =
            Console::new(json, Box::new(out.clone()), Box::new(err.clone()), input, terminal);
        let story = async {
            until("the watch is open", || agent.fake.watchers() == 1).await;
            agent.fake.end_streams();
            // Before it is back, three changes are made and forgotten, and one more is made.
            for value in 1..=3 {
                agent.run(&format!("settings set a x={value}")).await;
            }
            agent.fake.forget_changes();
            agent.run("settings set a x=4").await;
            until("the change behind the gap is told", || out.text().contains('4')).await;
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
            assert_eq!(
                (&gap["missed"], &gap["from"], &gap["to"]),
                (&json!(3), &json!("0"), &json!("3"))
            );
        } else {
            assert!(err.text().contains("3 are missed here"), "{words}: {}", err.text());
        }
        assert_eq!(out.text().contains("pve-1"), goes_on, "{words}: {}", out.text());
    }
}
