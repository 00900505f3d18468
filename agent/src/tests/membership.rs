//! The commands that rename members, accept them, and take them out.

use peerage_proto::api::Exit;
use serde_json::Value;

use super::agent::Agent;
use super::commands::{TERMINAL, words_of};
use crate::cli::CommandLine;

#[tokio::test]
async fn nodes_are_renamed_and_removed_and_a_node_leaves() {
    let (agent, _other) = Agent::pair().await;
    let said = agent.do_it("rename pve-2 db-1").await;
    assert!(said.err.contains("pve-2 is called db-1 now"), "{said:?}");
    assert_eq!(agent.run("rename pve-9 c").await.exit, Exit::NotFound);
    assert!(agent.run("members accept db-1").await.err.contains("accepted already"));
    assert_eq!(agent.run("members accept pve-9").await.exit, Exit::NotFound);
    let both = words_of("members --watch accept pve-1");
    assert_eq!(CommandLine::read(both).unwrap_err(), Exit::Usage);
    assert!(agent.run("remove db-1").await.err.contains("db-1 is removed"));
    let invite = agent.run("invite --json").await.json()["id"].as_str().unwrap().to_owned();
    let revoked = agent.run(&format!("invite revoke {}", &invite[..8])).await;
    assert!(revoked.err.contains("revoked"), "{revoked:?}");
    assert_eq!(agent.run("invite --uses 3 revoke abc").await.exit, Exit::Usage);
    let left = agent.do_it("leave --force").await;
    let backup = agent.folder().join("backup");
    assert!(left.err.contains(&format!("kept in {}", backup.display())), "{left:?}");
    assert_eq!(agent.run("leave").await.exit, Exit::Refused);
}

#[tokio::test]
async fn on_a_terminal_leaving_asks_and_what_would_be_lost_is_asked_for_by_name() {
    let (_other, agent) = Agent::pair().await;
    let no = agent.run_with("leave", "n\n", TERMINAL).await;
    assert_eq!(no.exit, Exit::Refused, "{no:?}");
    assert!(no.err.contains("lab (") && no.err.contains("Leave? [y/N]"), "{no:?}");
    assert_eq!(agent.run_with("leave", "y\n", TERMINAL).await.exit, Exit::Done);

    agent.do_it("create lab").await;
    let script = agent.run("leave").await;
    assert_eq!(script.exit, Exit::Refused);
    assert!(script.err.contains("--force"), "{script:?}");
    let json: Value = serde_json::from_str(&agent.run("leave --json").await.err).unwrap();
    assert_eq!(json["code"], "needs_force");
    let lost = json["message"].as_str().unwrap();
    for (words, input) in [("leave", "y\ny\n"), ("leave", "y\n"), ("leave --yes", "yes\n")] {
        let said = agent.run_with(words, input, TERMINAL).await;
        assert_eq!(said.exit, Exit::Refused, "{words}: {said:?}");
        assert!(said.err.contains(lost), "{said:?}");
        assert!(said.err.contains("To go on all the same, type lab: "), "{said:?}");
    }
    let named = agent.run_with("leave --yes", "lab\n", TERMINAL).await;
    assert_eq!(named.exit, Exit::Done, "{named:?}");
    agent.do_it("create lab").await;
    let forced = agent.run_with("leave --force", "", TERMINAL).await;
    assert!(forced.exit == Exit::Done && !forced.err.contains('?'), "{forced:?}");
}

#[tokio::test]
async fn on_a_terminal_removing_a_member_that_lives_asks_and_elsewhere_it_does_as_told() {
    let (agent, second) = Agent::pair().await;
    let id = second.node.id().to_string();
    let (start, at) = (&id[..8], second.node.addresses()[0].to_string());
    for (words, input, exit) in [
        ("remove pve-2".to_owned(), "n\n", Exit::Refused),
        (format!("remove {start}"), "\n", Exit::Refused),
        // Names and ids match in any case of their letters.
        ("remove PVE-2".to_owned(), "n\n", Exit::Refused),
        (format!("remove {}", start.to_uppercase()), "n\n", Exit::Refused),
        ("remove pve-9".to_owned(), "", Exit::NotFound),
        ("remove pve-2".to_owned(), "y\n", Exit::Done),
    ] {
        let said = agent.run_with(&words, input, TERMINAL).await;
        assert_eq!(said.exit, exit, "{words}: {said:?}");
        let asks = said.err.contains(&at) && said.err.contains("for good? [y/N]");
        assert_eq!(asks, exit != Exit::NotFound, "{words}: {said:?}");
    }
    for words in ["remove pve-3 --yes", "remove pve-3 --force"] {
        let _third = agent.with_member("pve-3").await;
        assert_eq!(agent.run_with(words, "", TERMINAL).await.exit, Exit::Done, "{words}");
    }
    let _fourth = agent.with_member("pve-4").await;
    assert_eq!(agent.run("remove pve-4").await.exit, Exit::Done, "nobody is there to ask");

    let fifth = agent.with_member("pve-5").await;
    fifth.stop().await;
    agent.sees(1, "down").await;
    let down = agent.run_with("remove pve-5", "", TERMINAL).await;
    assert!(down.exit == Exit::Done && !down.err.contains('?'), "{down:?}");
}
