//! What the commands promise to people and to scripts.

use peerage_proto::api::Exit;
use serde_json::{Value, json};

use super::agent::{Agent, LAYER};
use super::{Page, run_on, until};
use crate::cli::{self, CommandLine, Console, Terminal};

/// A terminal at which a person sits.
pub(super) const TERMINAL: Terminal = Terminal { out: true, err: true, input: true };

#[tokio::test]
async fn data_goes_to_stdout_and_words_to_stderr() {
    let agent = Agent::start().await;
    let said = agent.run("create lab").await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Done, ""));
    assert!(said.err.contains("founded lab"), "{said:?}");

    let said = agent.run("invite").await;
    let token = said.out.trim_end();
    assert_eq!(said.out, format!("{token}\n"), "the token stands alone");
    assert!(token.starts_with("peerage1-") && !token.contains(char::is_whitespace), "{said:?}");
    assert!(said.err.contains(&format!("peerage join {token}")), "{said:?}");

    let said = agent.run("status --json").await;
    assert_eq!(said.err, "");
    assert_eq!(said.json()["datacenter"]["name"], "lab");
    assert_eq!(said.json()["members"]["alive"], 1);
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
async fn what_the_agent_tells_is_shown_in_tables() {
    let (agent, other) = Agent::pair().await;
    other.stop().await;
    agent.sees(1, "down").await;
    let members = agent.run("members").await.out;
    let rows: Vec<Vec<&str>> = members.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATE", "PATH", "SEEN", "VERSION", "MESSAGE"]);
    assert_eq!(rows[1][..3], ["pve-1", "alive", "self"], "{members}");
    assert_eq!(rows[2][..3], ["pve-2", "down", "-"], "{members}");
    assert!(members.contains("its agent was stopped"), "{members}");

    let invites = agent.run("invite list").await.out;
    let rows: Vec<Vec<&str>> = invites.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "STATE", "USED", "NAMES", "EXPIRES", "ISSUER"]);
    assert_eq!(rows[1][1..7], ["used", "up", "1", "of", "1", "any"], "{invites}");

    let status = agent.run("status").await.out;
    assert!(status.starts_with("Data Center  lab ("), "{status}");
    assert!(status.contains("\nMembers      1 alive, 1 down\n"), "{status}");
    let alone = Agent::start().await.run("status").await;
    assert!(alone.out.starts_with("Data Center  none\n"), "{alone:?}");
    assert!(alone.err.contains("peerage create NAME"), "{alone:?}");
}

#[tokio::test]
async fn links_are_shown_set_and_given_back_to_the_host() {
    let (agent, _other) = Agent::pair().await;
    let shown = agent.run("links").await.out;
    let at = agent.node.addresses()[0].clone();
    let row = |text: &str| -> Vec<String> {
        let line = shown.lines().find(|line| line.starts_with(text)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("127.0.0.1")[..2], [at.to_string(), "1".into()], "{shown}");
    assert_eq!(row("127.0.0.1").last().map(String::as_str), Some(LAYER), "{shown}");
    assert_eq!(row("pve-2")[..2], ["pve-2", "alive"], "{shown}");
    let of_node = agent.run("links pve-2").await.out;
    assert!(of_node.starts_with("LINK "), "{of_node}");
    assert_eq!(agent.run("links pve-9").await.exit, Exit::NotFound);

    let said = agent.run("links set 10.0.1.5 [2001:db8::5]:99@2").await;
    assert_eq!(said.exit, Exit::Done);
    assert!(said.err.contains("peerage links auto"), "what is overruled is told: {said:?}");
    let links = agent.run("links --json").await.json();
    assert_eq!(links["links"][0]["address"], format!("10.0.1.5:{}", at.port()));
    let second = &links["links"][1];
    assert_eq!((&second["address"], &second["priority"]), (&json!("[2001:db8::5]:99"), &json!(2)));
    assert_eq!(agent.run("links auto --json").await.json()["source"], "config");

    for wrong in ["links set", "links set 10.0.1.5@best", "links pve-2 set 10.0.1.5"] {
        assert_eq!(CommandLine::read(words_of(wrong)).err(), Some(Exit::Usage), "{wrong}");
    }
}

#[tokio::test]
async fn compacting_tells_what_was_kept_before_and_what_is_now() {
    let agent = Agent::founder().await;
    for value in 1..=5 {
        agent.do_it(&format!("settings set a x={value}")).await;
    }
    let said = agent.do_it("settings compact").await;
    assert!(said.out.starts_with("KEPT "), "{said:?}");
    assert!(said.err.contains("4 changes forgotten"), "{said:?}");
    agent.do_it("settings set a x=6").await;
    let json = agent.run("settings compact --json").await.json();
    assert_eq!((&json["forgotten"], &json["after"]["history_bytes"]), (&json!(1), &json!(0)));
    assert!(json["before"]["history_bytes"].as_u64() > Some(0), "{json}");
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
    let agent = Agent::founder().await;
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
    let agent = Agent::founder().await;
    let said = agent.run("events").await;
    let lines: Vec<&str> = said.out.lines().collect();
    let created = lines.iter().find(|line| line.contains("  created  ")).expect("its event");
    assert!(created.ends_with("founded lab on pve-1"), "{said:?}");
    let shown = agent.run("events --json").await.out;
    let items: Vec<Value> = shown.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(items.len(), lines.len());
    assert!(lines[0].starts_with(items[0]["at"].as_str().unwrap()), "{said:?}");
}

#[tokio::test]
async fn a_watch_of_the_members_tells_changes_only() {
    let (agent, other) = Agent::pair().await;
    let out = Page::default();
    let mut console = Console::new(
        true,
        Box::new(out.clone()),
        Box::new(Page::default()),
        Box::new(std::io::empty()),
        Terminal::default(),
    );
    let lists = || -> Vec<Value> {
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let state = |list: &Value| list[1]["state"].as_str().map(str::to_owned);
    let story = async {
        until("the members are told", || !lists().is_empty()).await;
        until("the events are followed", || agent.node.happenings().followers() == 1).await;
        other.stop().await;
        let is_down = || lists().last().and_then(state).as_deref() == Some("down");
        until("the change is told", is_down).await;
    };
    let command = CommandLine::read(words_of("members --watch")).unwrap().command.unwrap();
    tokio::select! {
        exit = cli::run(command, &agent.socket, &mut console) => panic!("it ended with {exit:?}"),
        () = story => {}
    }
    let lists = lists();
    assert_eq!(state(&lists[0]).as_deref(), Some("alive"));
    let told = ["id", "name", "state", "path", "link", "version", "message"];
    let shown = |list: &Value| told.map(|key| [list[0][key].clone(), list[1][key].clone()]);
    assert!(lists.windows(2).all(|two| shown(&two[0]) != shown(&two[1])), "{lists:#?}");
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
