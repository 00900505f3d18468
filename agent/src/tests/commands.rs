//! What the commands promise to people and to scripts.

use peerage_proto::api::Exit;
use serde_json::{Value, json};

use super::fake::{PASSWORD, TOKEN, TOKEN_WITHOUT_SECRET};
use super::{Agent, Page, run_on, until};
use crate::cli::{self, CommandLine, Console, Terminal};

/// A person sits before it.
pub(super) const TERMINAL: Terminal = Terminal { out: true, err: true, input: true };

#[tokio::test]
async fn data_goes_to_stdout_and_words_to_stderr() {
    let agent = Agent::start().await;
    let said = agent.run("create lab").await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Done, ""));
    assert!(said.err.contains("founded lab"), "{said:?}");

    let said = agent.run("invite").await;
    assert_eq!(said.out, format!("{TOKEN}\n"), "the token stands alone");
    assert!(said.err.contains(&format!("peerage join {TOKEN}")), "{said:?}");

    let said = agent.run("status --json").await;
    assert_eq!(said.err, "");
    assert_eq!(said.json()["datacenter"]["name"], "lab");
    assert_eq!(said.json()["members"]["down"], 1);
}

#[tokio::test]
async fn json_and_socket_stand_anywhere() {
    let agent = Agent::start().await;
    let socket = agent.socket.to_str().unwrap();
    for words in [
        "--json --socket S members".to_owned(),
        "members --json --socket S".to_owned(),
        "--json members --socket S".to_owned(),
        "--socket S settings --json list".to_owned(),
        "--socket S invite --json list".to_owned(),
        "invite list --socket S --json".to_owned(),
    ] {
        let words = words.replace("S ", &format!("{socket} ")).replace(" S", &format!(" {socket}"));
        let line = CommandLine::read(words_of(&words)).unwrap();
        assert!(line.json, "{words}");
        assert_eq!(line.socket.as_deref(), Some(agent.socket.as_path()), "{words}");
        assert!(agent.run(&words).await.json().is_array(), "{words}");
    }
}

#[tokio::test]
async fn tables_line_up_and_the_unknown_is_a_dash() {
    let agent = Agent::start().await;
    let expected = "\
NAME   STATE  PATH  SEEN  VERSION  MESSAGE
pve-1  alive  self  0.0s  0.1.0
pve-2  down   -     -     -        no answer for 7s: is it powered on?
";
    assert_eq!(agent.run("members").await.out, expected);
    let expected = "\
ID        STATE  USED    NAMES  EXPIRES               ISSUER
abcdef01  open   1 of 3  any    2026-01-02T03:04:05Z  pve-1
";
    assert_eq!(agent.run("invite list").await.out, expected);
    agent.run("create lab").await;
    let expected = "\
Data Center  lab (lab-0000)
Node         pve-1 (pve-1-00), member
Members      1 alive, 1 down
Settings     0 documents, 800.0 kB of 100.0 MB; 350.0 kB of history, digest 01234567, 1 conflict (peerage settings conflicts)
Journal      2.4 MB on disk
Agent        version 0.1.0, up 62m, start 4
Addresses    -
";
    assert_eq!(agent.run("status").await.out, expected);
}

#[tokio::test]
async fn links_are_shown_set_and_given_back_to_the_host() {
    let agent = Agent::start().await;
    let expected = "\
LINK            PRIORITY  NAME  INTERFACE  IN  SOURCE
192.0.2.7:4747  1         -     eth0       1   interfaces

PEER   STATE  LINK            RTT    PATH
pve-2  alive  192.0.2.8:4747  0.2ms  direct
";
    assert_eq!(agent.run("links").await.out, expected);
    let expected = "\
LINK               RANK  USE
10.0.0.8:4747      1     -
192.0.2.8:4747     2     0.2ms
203.0.113.8:31000  3     seen there when it joined
";
    assert_eq!(agent.run("links pve-2").await.out, expected);
    assert_eq!(agent.run("links pve-9").await.exit, Exit::NotFound);

    let said = agent.run("links set 10.0.1.5 [2001:db8::5]:99@2").await;
    assert_eq!(said.exit, Exit::Done);
    assert!(said.err.contains("peerage links auto"), "what is overruled is told: {said:?}");
    let links = agent.run("links --json").await.json();
    let shown: Vec<_> = links["links"].as_array().unwrap().iter().collect();
    assert_eq!(shown[0]["address"], "10.0.1.5");
    assert_eq!(
        (&shown[1]["address"], &shown[1]["priority"]),
        (&json!("[2001:db8::5]:99"), &json!(2))
    );
    assert_eq!(agent.run("links auto --json").await.json()["source"], "interfaces");

    for wrong in ["links set", "links set 10.0.1.5@best", "links pve-2 set 10.0.1.5"] {
        assert_eq!(CommandLine::read(words_of(wrong)).err(), Some(Exit::Usage), "{wrong}");
    }
}

#[tokio::test]
async fn settings_are_set_read_and_taken_away() {
    let agent = Agent::start().await;
    let said = agent.run("settings set storage/nas1 server=10.0.0.5").await;
    assert_eq!(said.exit, Exit::Refused, "a standalone node has no settings");
    assert!(said.err.contains("peerage create NAME"), "{said:?}");
    agent.run("create lab").await;

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
    assert_eq!(full[0]["meta"]["size"]["stamp"], "1.0");

    assert_eq!(agent.run("settings get storage/nas1 color").await.exit, Exit::NotFound);
    assert_eq!(agent.run("settings get storage/nas2").await.exit, Exit::NotFound);
    agent.run("settings unset storage/nas1 tags").await;
    assert_eq!(agent.run("settings get storage/nas1 tags").await.exit, Exit::NotFound);
    assert_eq!(agent.run("settings unset storage/nas1").await.exit, Exit::Done);
    assert_eq!(agent.run("settings get storage/nas1").await.exit, Exit::NotFound);

    let history = agent.run("settings history storage/nas1 --json").await.json();
    let removed: Vec<&Value> = history.as_array().unwrap().iter().map(|e| &e["removed"]).collect();
    assert_eq!(removed, [true, false, false]);
    assert_eq!(agent.run("settings revert storage/nas1 1.0").await.exit, Exit::Done);
    assert_eq!(agent.run("settings get storage/nas1 size").await.out, "8\n");
}

#[tokio::test]
async fn a_wait_that_is_not_reached_ends_with_6_and_names_who_is_missing() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    let said = agent.run("settings set a x=1 --wait all --timeout 50ms").await;
    assert_eq!(said.exit, Exit::NotReached);
    assert!(said.err.contains("not yet on pve-2"), "{said:?}");
    let said = agent.run("settings set a x=2 --wait majority --json").await;
    assert_eq!(said.exit, Exit::NotReached);
    assert_eq!(said.json()["wait"]["missing"], json!(["pve-2"]));
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["code"], "not_reached");
    assert_eq!(agent.run("settings get a x").await.out, "2\n", "it is done here all the same");
}

#[tokio::test]
async fn what_was_exported_can_be_applied_and_writes_only_what_differs() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    agent.run("settings set storage/nas1 server=10.0.0.5 size=8").await;
    agent.run("settings set dns domain=example.org").await;
    let exported = agent.run("settings export").await.out;

    let said = agent.run_with("settings apply -f - --json", &exported, Terminal::default()).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    assert!(said.json().as_array().unwrap().iter().all(|applied| applied["stamp"].is_null()));

    agent.run("settings set storage/nas1 size=9").await;
    agent.run("settings unset dns").await;
    let said = agent.run_with("settings apply -f -", &exported, Terminal::default()).await;
    assert_eq!(said.err, "dns: set domain\nstorage/nas1: set size\n");
    assert_eq!(agent.run("settings export").await.out, exported);

    let said = agent.run_with("settings apply -f -", "{}", Terminal::default()).await;
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.err.contains("settings export"), "{said:?}");
    assert_eq!(agent.run("settings apply -f /no/such/file").await.exit, Exit::Usage);
}

#[tokio::test]
async fn on_a_terminal_joining_shows_what_the_token_says_and_asks() {
    let agent = Agent::start().await;
    let words = format!("join {TOKEN}");
    let said = agent.run_with(&words, "n\n", TERMINAL).await;
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("192.0.2.7:4747") && said.err.contains("Join? [y/N]"), "{said:?}");
    assert_eq!(agent.run("status --json").await.json()["datacenter"], json!(null));

    let said = agent.run_with(&words, "y\n", TERMINAL).await;
    assert_eq!(said.exit, Exit::Done);
    assert!(said.err.contains("pve-1 joined lab by pve-2; it has 2 nodes now"), "{said:?}");
}

#[tokio::test]
async fn a_token_comes_by_argument_by_stdin_and_by_file() {
    let agent = Agent::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    // As a terminal breaks it.
    std::fs::write(&file, format!("{}\n{}\n", &TOKEN[..9], &TOKEN[9..])).unwrap();
    let by_file = format!("join --file {} --name pve-7 --json", file.display());
    let said = agent.run(&by_file).await;
    assert_eq!(said.json()["node"]["name"], "pve-7", "{said:?}");
    let by_stdin = agent.run_with("join -", &format!("{TOKEN}\n"), Terminal::default()).await;
    assert_eq!(by_stdin.exit, Exit::Done, "{by_stdin:?}");
    let nothing = agent.run("join -").await;
    assert_eq!(nothing.exit, Exit::Usage, "{nothing:?}");
    let nobody = agent.run_with("join", &format!("{TOKEN}\n"), Terminal::default()).await;
    assert_eq!(
        nobody.exit,
        Exit::Usage,
        "stdin is read where it is named, or a terminal: {nobody:?}"
    );
    let asked = agent.run_with("join --yes", &format!("{TOKEN}\n"), TERMINAL).await;
    assert_eq!(asked.exit, Exit::Done, "{asked:?}");
    assert!(asked.err.starts_with("Paste the Join Information"), "{asked:?}");
    let revoked = agent.run("join peerage1-other").await;
    assert_eq!(
        (revoked.exit, revoked.err.as_str()),
        (Exit::Refused, "peerage: the token was revoked\n")
    );
}

#[tokio::test]
async fn a_token_without_its_secret_needs_the_password() {
    let agent = Agent::start().await;
    let invited = agent.run("invite --no-secret").await;
    assert_eq!(invited.out, format!("{TOKEN_WITHOUT_SECRET}\n"));
    assert!(invited.err.contains(PASSWORD), "{invited:?}");
    let words = format!("join {TOKEN_WITHOUT_SECRET}");
    for input in [format!("{PASSWORD}\n"), format!("\u{feff}{PASSWORD}\r\n")] {
        let joined = agent.run_with(&words, &input, Terminal::default()).await;
        assert_eq!(joined.exit, Exit::Done, "{input:?}: {joined:?}");
    }
    let without = agent.run(&words).await;
    assert_eq!(without.exit, Exit::Usage);
    assert!(without.err.contains("on a line of stdin"), "{without:?}");
    for both in [
        format!("{TOKEN_WITHOUT_SECRET}\n{PASSWORD}\n"),
        format!("\u{feff}{TOKEN_WITHOUT_SECRET}\r\n\r\n# the password\r\n{PASSWORD}\r\n"),
    ] {
        assert_eq!(agent.run_with("join -", &both, Terminal::default()).await.exit, Exit::Done);
    }
}

#[tokio::test]
async fn nodes_are_renamed_and_removed_and_a_node_leaves() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    assert_eq!(agent.run("rename a/b c").await.exit, Exit::Done);
    assert_eq!(agent.run("rename pve-9 c").await.exit, Exit::NotFound);
    assert!(agent.run("members accept pve-2").await.err.contains("pve-2 is accepted\n"));
    assert!(agent.run("members accept pve-1").await.err.contains("accepted already"));
    assert_eq!(agent.run("members accept pve-9").await.exit, Exit::NotFound);
    let both = words_of("members --watch accept pve-1");
    assert_eq!(CommandLine::read(both).unwrap_err(), Exit::Usage);
    assert!(agent.run("remove pve-2").await.err.contains("pve-2 is removed"));
    assert!(agent.run("leave").await.err.contains("kept in /b"));
    assert_eq!(agent.run("leave").await.exit, Exit::Refused);
    assert!(agent.run("invite revoke abc").await.err.contains("revoked"));
    assert_eq!(agent.run("invite --uses 3 revoke abc").await.exit, Exit::Usage);
}

#[tokio::test]
async fn on_a_terminal_leaving_asks_and_what_would_be_lost_is_asked_for_by_name() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    let no = agent.run_with("leave", "n\n", TERMINAL).await;
    assert_eq!(no.exit, Exit::Refused, "{no:?}");
    assert!(no.err.contains("lab (lab-0000)") && no.err.contains("Leave? [y/N]"), "{no:?}");
    assert_eq!(agent.run_with("leave", "y\n", TERMINAL).await.exit, Exit::Done);

    agent.run("create lab").await;
    agent.fake.make_last();
    let script = agent.run("leave").await;
    assert_eq!(script.exit, Exit::Refused);
    assert_eq!(script.err, "peerage: this node is the last member of lab\n  --force\n");
    let json: Value = serde_json::from_str(&agent.run("leave --json").await.err).unwrap();
    assert_eq!(json["code"], "needs_force");
    for (words, input) in [("leave", "y\ny\n"), ("leave", "y\n"), ("leave --yes", "yes\n")] {
        let said = agent.run_with(words, input, TERMINAL).await;
        assert_eq!(said.exit, Exit::Refused, "{words}: {said:?}");
        assert!(said.err.contains("last member of lab"), "{said:?}");
        assert!(said.err.contains("To go on all the same, type lab: "), "{said:?}");
    }
    let named = agent.run_with("leave --yes", "lab\n", TERMINAL).await;
    assert_eq!(named.exit, Exit::Done, "{named:?}");
    agent.run("create lab").await;
    let forced = agent.run_with("leave --force", "", TERMINAL).await;
    assert!(forced.exit == Exit::Done && !forced.err.contains('?'), "{forced:?}");
}

#[tokio::test]
async fn on_a_terminal_removing_a_member_that_lives_asks_and_elsewhere_it_does_as_told() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    let down = agent.run_with("remove pve-2", "", TERMINAL).await;
    assert!(down.exit == Exit::Done && !down.err.contains('?'), "{down:?}");
    agent.fake.bring_up_pve_2();
    for (words, input, exit) in [
        ("remove pve-2", "n\n", Exit::Refused),
        ("remove pve-2-000", "\n", Exit::Refused),
        // Names and ids are one whatever their case.
        ("remove PVE-2", "n\n", Exit::Refused),
        ("remove PVE-2-000", "n\n", Exit::Refused),
        ("remove pve-2", "y\n", Exit::Done),
        ("remove pve-9", "", Exit::NotFound),
    ] {
        let said = agent.run_with(words, input, TERMINAL).await;
        assert_eq!(said.exit, exit, "{words}: {said:?}");
        let asks = said.err.contains("192.0.2.7:4747") && said.err.contains("for good? [y/N]");
        assert_eq!(asks, exit != Exit::NotFound, "{words}: {said:?}");
    }
    for words in ["remove pve-2 --yes", "remove pve-2 --force"] {
        assert_eq!(agent.run_with(words, "", TERMINAL).await.exit, Exit::Done, "{words}");
    }
    assert_eq!(agent.run("remove pve-2").await.exit, Exit::Done);
}

#[tokio::test]
async fn members_are_met_by_a_token_from_everywhere_that_one_comes_from() {
    let agent = Agent::start().await;
    agent.run("create lab").await;
    let said = agent.run(&format!("meet {TOKEN}")).await;
    let words = "met pve-2 of lab\nnot met: pve-3 at 192.0.2.9:4747: no answer\n";
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, words));
    let by_stdin =
        agent.run_with("meet - --json", &format!("{TOKEN}\n"), Terminal::default()).await;
    assert_eq!(by_stdin.json()["met"][0]["name"], "pve-2", "{by_stdin:?}");
    assert_eq!(agent.run("meet peerage1-other").await.exit, Exit::Refused);
    assert_eq!(agent.run("meet").await.exit, Exit::Usage, "nobody can be asked");
}

#[tokio::test]
async fn conflicts_show_both_edits_and_the_whole_change_that_lost() {
    let agent = Agent::start().await;
    let said = agent.run("settings conflicts").await;
    assert!(said.out.starts_with("storage/nas1 size\n  shows  8  by root on pve-1"), "{said:?}");
    assert!(said.out.contains("lost   9") && said.out.contains("with: set size=9"), "{said:?}");
    let json = agent.run("settings conflicts --json").await.json();
    assert_eq!(json[0]["losers"][0]["value"], 9);
    assert_eq!(json[0]["losers"][0]["change"]["set"], json!({"size": 9}));
}

#[tokio::test]
async fn compacting_tells_what_was_kept_before_and_what_is_now() {
    let agent = Agent::start().await;
    let said = agent.run("settings compact").await;
    let expected = "\
KEPT              BEFORE    AFTER
live              800.0 kB  800.0 kB
history           350.0 kB  0 B
left by removals  1.0 kB    1.0 kB
own records       2.0 kB    2.0 kB
journal           2.4 MB    1.0 MB
";
    assert_eq!((said.exit, said.out.as_str()), (Exit::Done, expected));
    assert!(said.err.contains("17 changes forgotten"), "{said:?}");
    let json = agent.run("settings compact --json").await.json();
    assert_eq!(json["forgotten"], 17);
    assert_eq!(json["before"]["history_bytes"], 350_000);
    assert_eq!(json["after"]["journal_bytes"], 1_000_000);
}

#[tokio::test]
async fn without_an_agent_it_says_which_socket_and_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody.sock");
    let said = run_on(&socket, &["status"], "", Terminal::default()).await;
    assert_eq!(said.exit, Exit::Unreachable);
    for words in [socket.to_str().unwrap(), "systemctl start peerage", "--socket"] {
        assert!(said.err.contains(words), "{said:?}");
    }
    let said = run_on(&socket, &["--json", "status"], "", Terminal::default()).await;
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.out.as_str(), &error["code"]), ("", &json!("unreachable")));
}

#[tokio::test]
async fn a_reader_that_has_read_enough_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let agent = Agent::start().await;
    let err = Page::default();
    let mut console = Console::new(
        false,
        Box::new(Closed),
        Box::new(err.clone()),
        Box::new(std::io::empty()),
        Terminal::default(),
    );
    let command = CommandLine::read(words_of("members")).unwrap().command.unwrap();
    assert_eq!(cli::run(command, &agent.socket, &mut console).await, Exit::Done);
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn events_are_one_line_each() {
    let agent = Agent::start().await;
    let said = agent.run("events").await;
    assert_eq!(said.out.lines().count(), 3);
    assert!(
        said.out.starts_with("2026-01-02T03:04:05Z  member-down  pve-2  event 1\n"),
        "{said:?}"
    );
    let lines = agent.run("events --json").await.out;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["id"], "3");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_the_agent_comes_back() {
    let mut agent = Agent::start().await;
    agent.run("create lab").await;
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
        until("the watch is open", || agent.fake.watchers() == 1).await;
        agent.run("settings set a x=1").await;
        until("the first change is told", || out.text().lines().count() == 1).await;
        // It ended, as it does to a reader that falls behind, and changes come meanwhile.
        agent.fake.end_streams();
        agent.run("settings set a x=2").await;
        until("the second change is told", || out.text().lines().count() == 2).await;
        agent.stop().await;
        agent.serve().await;
        agent.run("settings unset a").await;
        until("the third change is told", || out.text().lines().count() == 3).await;
    };
    let command = CommandLine::read(words_of("settings watch --json")).unwrap().command.unwrap();
    tokio::select! {
        exit = cli::run(command, &socket, &mut console) => panic!("it ended with {exit:?}"),
        () = story => {}
    }
    let items: Vec<Value> =
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&items[0]["id"], &items[1]["id"], &items[2]["id"]], ["1", "2", "3"]);
    assert_eq!(items[1]["fields"], json!({"x": 2}));
    assert_eq!((&items[2]["removed"], &items[2]["fields"]), (&json!(true), &json!(null)));
}

#[tokio::test]
async fn a_watch_of_the_members_tells_changes_only() {
    let agent = Agent::start().await;
    let out = Page::default();
    let mut console = Console::new(
        true,
        Box::new(out.clone()),
        Box::new(Page::default()),
        Box::new(std::io::empty()),
        Terminal::default(),
    );
    let story = async {
        until("the members are told", || out.text().lines().count() == 1).await;
        until("the events are followed", || agent.fake.followers() == 1).await;
        agent.fake.bring_up_pve_2();
        until("the change is told", || out.text().lines().count() == 2).await;
    };
    let command = CommandLine::read(words_of("members --watch")).unwrap().command.unwrap();
    tokio::select! {
        exit = cli::run(command, &agent.socket, &mut console) => panic!("it ended with {exit:?}"),
        () = story => {}
    }
    let lines: Vec<Value> =
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0][1]["state"], &lines[1][1]["state"]), (&json!("down"), &json!("alive")));
}

#[test]
fn wrong_words_end_with_2() {
    for words in [
        "nonsense",
        "create",
        "settings set a",
        "settings set a b",
        "settings set a x=1 --wait some",
        "settings set a x=1 --timeout soon",
        "invite --ttl soon",
        "invite --uses 0",
        "settings get a b --full",
        "join token --file f",
        "agent --join a --join-file b",
    ] {
        assert_eq!(CommandLine::read(words_of(words)).unwrap_err(), Exit::Usage, "{words}");
    }
    assert_eq!(CommandLine::read(words_of("--help")).unwrap_err(), Exit::Done);
    assert!(CommandLine::read(words_of("")).unwrap().command.is_none());
}

#[test]
fn the_command_line_is_sound() {
    <CommandLine as clap::CommandFactory>::command().debug_assert();
}

pub(super) fn words_of(words: &str) -> Vec<std::ffi::OsString> {
    let words = words.split(' ').filter(|word| !word.is_empty());
    std::iter::once("peerage").chain(words).map(Into::into).collect()
}
