//! The commands that read and write the settings.

use peerage_proto::api::Exit;
use peerage_proto::api::settings::{ListConflicts, SetFields};
use serde_json::{Value, json};

use super::agent::Agent;
use super::{DEADLINE, Said, run_on};
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

/// A value that was already there was once sent to nobody until something else was written, so a
/// second run of the same command waited in vain.
#[tokio::test]
async fn what_stands_there_already_is_confirmed_by_the_others_too() {
    let (agent, _other) = Agent::pair().await;
    let file = r#"[{"path": "a", "fields": {"x": 1}}, {"path": "b", "fields": {}}]"#;
    for _ in 0..2 {
        let said = agent.run("settings set a x=1 --wait all").await;
        assert_eq!(said.exit, Exit::Done, "{said:?}");
        let apply = "settings apply -f - --wait all";
        let said = agent.run_with(apply, file, Terminal::default()).await;
        assert_eq!(said.exit, Exit::Done, "{said:?}");
    }
    let said = agent.run_with("settings apply -f - --wait all", "[]", Terminal::default()).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
}

#[tokio::test]
async fn what_was_exported_can_be_applied_and_writes_only_what_differs() {
    let agent = Agent::founder().await;
    agent.do_it("settings set storage/nas1 server=10.0.0.5 size=8").await;
    agent.do_it("settings set dns domain=example.org").await;
    let exported = agent.run("settings export").await.out;

    let said = agent.run_with("settings apply -f - --json", &exported, Terminal::default()).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let counts = |said: &Said| ["changed", "unchanged", "removed"].map(|c| said.json()[c].clone());
    assert_eq!(counts(&said), [0, 2, 0]);
    assert_eq!(said.json()["paths"], json!([]));

    agent.do_it("settings set storage/nas1 size=9").await;
    agent.do_it("settings unset dns").await;
    let dry = "settings apply -f - --dry-run --json";
    let said = agent.run_with(dry, &exported, Terminal::default()).await;
    assert_eq!(
        (counts(&said), &said.json()["dry_run"]),
        ([2, 0, 0].map(Value::from), &json!(true))
    );
    assert_eq!(agent.run("settings get storage/nas1 size").await.out, "9\n", "nothing was written");
    let said = agent.run_with("settings apply -f -", &exported, Terminal::default()).await;
    let told = "dns: changed\nstorage/nas1: changed\n2 documents changed, 0 unchanged\n";
    assert_eq!(said.err, told);
    assert_eq!(agent.run("settings export").await.out, exported);

    let said = agent.run_with("settings apply -f -", "{}", Terminal::default()).await;
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.err.contains("settings export"), "{said:?}");
    assert_eq!(agent.run("settings apply -f /no/such/file").await.exit, Exit::Usage);
}

/// The agent once wrote the documents before a wrong one, and not the documents behind it.
#[tokio::test]
async fn of_a_file_with_one_wrong_document_nothing_is_written() {
    let agent = Agent::founder().await;
    agent.do_it("settings set a x=1").await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (wrong, names) in [
        (r#"{"path": "b//c", "fields": {}}"#.to_owned(), "b//c"),
        (r#"{"path": "b", "fields": {"": 1}}"#.to_owned(), "b"),
        (r#"{"path": "a", "fields": {"x": 3}}"#.to_owned(), "a is named twice"),
        (
            format!(r#"{{"path": "b", "fields": {{"x": {:?}}}}}"#, "x".repeat(1 << 20)),
            "b: its size",
        ),
        (format!(r#"{{"path": "b", "fields": {{"x": {deep}}}}}"#), ""),
    ] {
        for option in ["", " --dry-run"] {
            let file = format!(r#"[{{"path": "a", "fields": {{"x": 2}}}}, {wrong}]"#);
            let apply = format!("settings apply -f -{option}");
            let said = agent.run_with(&apply, &file, Terminal::default()).await;
            assert_ne!(said.exit, Exit::Done, "{said:?}");
            assert!(said.err.contains(names), "{said:?}");
            assert_eq!(agent.run("settings get a x").await.out, "1\n", "{names}");
        }
    }
}

#[tokio::test]
async fn what_a_file_does_not_name_is_taken_away_below_a_prefix_where_one_is_given() {
    let agent = Agent::founder().await;
    for path in ["keep/a", "web/a", "web/b", "web/c", "webmail"] {
        agent.do_it(&format!("settings set {path} x=1")).await;
    }
    let file = r#"[{"path": "web/a", "fields": {"x": 1}}, {"path": "web/d", "fields": {"x": 1}}]"#;
    let apply = "settings apply -f - --prune web --json";
    let said = agent.run_with(apply, file, Terminal::default()).await.json();
    assert_eq!(
        (&said["changed"], &said["unchanged"], &said["removed"]),
        (&json!(1), &json!(1), &json!(2))
    );
    assert_eq!(said["paths"], json!(["web/d", "web/b", "web/c"]));
    let left = agent.run("settings list --json").await.json();
    let paths: Vec<_> = left.as_array().unwrap().iter().map(|d| d["path"].clone()).collect();
    assert_eq!(paths, ["keep/a", "web/a", "web/d", "webmail"]);
    for wrong in ["@member", ""] {
        let words = ["settings", "apply", "-f", "-", "--prune", wrong];
        let said = run_on(&agent.socket, &words, file, Terminal::default()).await;
        assert_ne!(said.exit, Exit::Done, "{said:?}");
    }
    assert_eq!(agent.run("settings list --json").await.json().as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_is_too_large_for_one_write_can_be_written_in_parts() {
    let agent = Agent::founder().await;
    let document =
        |n| json!({"path": format!("logs/{n}"), "fields": {"text": "x".repeat(900_000)}});
    let file = json!((0..20).map(document).collect::<Vec<_>>()).to_string();
    let said = agent.run_with("settings apply -f -", &file, Terminal::default()).await;
    assert_eq!(said.exit, Exit::Refused, "{}", said.err);
    assert!(said.err.contains("--parts"), "{}", said.err);
    let said =
        agent.run_with("settings apply -f - --parts 7 --json", &file, Terminal::default()).await;
    assert_eq!(
        (said.json()["changed"].clone(), said.json()["paths"].as_array().unwrap().len()),
        (json!(20), 20)
    );
}

#[tokio::test]
async fn conflicts_show_both_edits_and_the_whole_change_that_lost() {
    let (first, second) = Agent::pair().await;
    let set = |value: u32| SetFields {
        path: "storage/nas1".into(),
        set: [("size".to_owned(), json!(value)), ("by".to_owned(), json!(value % 2))].into(),
        ..SetFields::default()
    };
    // Both members write before either hears of the other's write. Should one be faster, they try
    // again.
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
