//! The commands that read and write the settings.

use peerage_proto::api::Exit;
use peerage_proto::api::settings::{ListConflicts, SetFields};
use serde_json::{Value, json};

use super::DEADLINE;
use super::agent::Agent;
use crate::cli::Terminal;

#[tokio::test]
async fn settings_are_set_read_and_taken_away() {
    let agent = Agent::start().await;
    let said = agent.run("settings set storage/nas1 server=10.0.0.5").await;
    assert_eq!(said.exit, Exit::Refused, "a standalone node has no settings");
    assert!(said.err.contains("peerage create NAME"), "{said:?}");
    agent.do_it("create lab").await;

    let said = agent.run("settings set storage/nas1 server=10.0.0.5 size=8 tags=[\"a\"]").await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Done, ""));
    assert_eq!(agent.run("settings get storage/nas1 server").await.out, "10.0.0.5\n");
    assert_eq!(agent.run("settings get storage/nas1 server --json").await.out, "\"10.0.0.5\"\n");
    assert_eq!(agent.run("settings get storage/nas1 tags").await.out, "[\"a\"]\n");
    let shown = agent.run("settings get storage/nas1").await.out;
    assert_eq!(shown, "server  10.0.0.5\nsize    8\ntags    [\"a\"]\n");
    assert_eq!(agent.run("settings list").await.out.lines().next(), Some("storage/nas1"));
    assert_eq!(agent.run("settings list --json nothing/").await.json(), json!([]));
    let full = agent.run("settings list --full --json").await.json();
    let stamp = full[0]["meta"]["size"]["stamp"].as_str().unwrap();
    assert_eq!(full[0]["meta"]["size"]["writer"], "pve-1");

    assert_eq!(agent.run("settings get storage/nas1 color").await.exit, Exit::NotFound);
    assert_eq!(agent.run("settings get storage/nas2").await.exit, Exit::NotFound);
    agent.do_it("settings unset storage/nas1 tags").await;
    assert_eq!(agent.run("settings get storage/nas1 tags").await.exit, Exit::NotFound);
    assert_eq!(agent.run("settings unset storage/nas1").await.exit, Exit::Done);
    assert_eq!(agent.run("settings get storage/nas1").await.exit, Exit::NotFound);

    let history = agent.run("settings history storage/nas1 --json").await.json();
    let removed: Vec<&Value> = history.as_array().unwrap().iter().map(|e| &e["removed"]).collect();
    assert_eq!(removed, [true, false, false]);
    assert_eq!(history[2]["stamp"], stamp);
    agent.do_it(&format!("settings revert storage/nas1 {stamp}")).await;
    assert_eq!(agent.run("settings get storage/nas1 size").await.out, "8\n");
}

#[tokio::test]
async fn a_wait_that_is_not_reached_ends_with_6_and_names_who_is_missing() {
    let (agent, other) = Agent::pair().await;
    other.stop().await;
    let said = agent.run("settings set a x=1 --wait all --timeout 50ms").await;
    assert_eq!(said.exit, Exit::NotReached);
    assert!(said.err.contains("not yet on pve-2"), "{said:?}");
    let said = agent.run("settings set a x=2 --wait majority --timeout 50ms --json").await;
    assert_eq!(said.exit, Exit::NotReached);
    assert_eq!(said.json()["wait"]["missing"], json!(["pve-2"]));
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["code"], "not_reached");
    assert_eq!(agent.run("settings get a x").await.out, "2\n", "it is done here all the same");
}

#[tokio::test]
async fn what_was_exported_can_be_applied_and_writes_only_what_differs() {
    let agent = Agent::founder().await;
    agent.do_it("settings set storage/nas1 server=10.0.0.5 size=8").await;
    agent.do_it("settings set dns domain=example.org").await;
    let exported = agent.run("settings export").await.out;

    let said = agent.run_with("settings apply -f - --json", &exported, Terminal::default()).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert!(said.json().as_array().unwrap().iter().all(|applied| applied["stamp"].is_null()));

    agent.do_it("settings set storage/nas1 size=9").await;
    agent.do_it("settings unset dns").await;
    let said = agent.run_with("settings apply -f -", &exported, Terminal::default()).await;
    assert_eq!(said.err, "dns: set domain\nstorage/nas1: set size\n");
    assert_eq!(agent.run("settings export").await.out, exported);

    let said = agent.run_with("settings apply -f -", "{}", Terminal::default()).await;
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.err.contains("settings export"), "{said:?}");
    assert_eq!(agent.run("settings apply -f /no/such/file").await.exit, Exit::Usage);
}

#[tokio::test]
async fn conflicts_show_both_edits_and_the_whole_change_that_lost() {
    let (first, second) = Agent::pair().await;
    let set = |value: u32| SetFields {
        path: "storage/nas1".into(),
        set: [("size".to_owned(), json!(value)), ("by".to_owned(), json!(value % 2))].into(),
        ..SetFields::default()
    };
    // Both write before either hears of the other; should one be faster, they try again.
    let contested = async {
        for value in (0..).step_by(2) {
            tokio::join!(first.ask_inside(set(value)), second.ask_inside(set(value + 1)));
            let settled = || async { first.ask_inside(ListConflicts {}).await.all().is_empty() };
            for _ in 0..100 {
                if !settled().await {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(DEADLINE, contested).await.expect("a conflict in time");
    let said = first.run("settings conflicts").await;
    let shown =
        said.out.split_once("storage/nas1 size\n").map(|(_, rest)| rest).unwrap_or_default();
    assert!(shown.starts_with("  shows  "), "{said:?}");
    assert!(shown.contains("\n  lost   ") && shown.contains("with: set by="), "{said:?}");
    assert!(said.err.contains("to settle one"), "{said:?}");
    let json = first.run("settings conflicts --json").await.json();
    let lost =
        &json.as_array().unwrap().iter().find(|c| c["field"] == "size").unwrap()["losers"][0];
    assert_eq!(lost["change"]["set"]["size"], lost["value"]);
    assert_eq!(lost["change"]["set"].as_object().unwrap().len(), 2);
}
