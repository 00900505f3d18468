//! The commands that lead into a Data Center and bring its members together.

use peerage_proto::api::Exit;
use serde_json::json;

use super::agent::Agent;
use super::commands::TERMINAL;
use crate::cli::Terminal;

#[tokio::test]
async fn on_a_terminal_joining_shows_what_the_token_says_and_asks() {
    let (seed, agent) = (Agent::founder().await, Agent::start().await);
    agent.do_it("status").await;
    let words = format!("join {} --name pve-2", token_of(&seed, "invite").await);
    let said = agent.run_with(&words, "n\n", TERMINAL).await;
    assert_eq!(said.exit, Exit::Refused);
    let at = seed.node.addresses()[0].to_string();
    assert!(said.err.contains(&at) && said.err.contains("Join? [y/N]"), "{said:?}");
    assert_eq!(agent.run("status --json").await.json()["datacenter"], json!(null));

    let said = agent.run_with(&words, "y\n", TERMINAL).await;
    assert_eq!(said.exit, Exit::Done);
    assert!(said.err.contains("pve-2 joined lab by pve-1; it has 2 nodes now"), "{said:?}");
}

#[tokio::test]
async fn a_token_comes_by_argument_by_stdin_and_by_file() {
    let (seed, agent) = (Agent::founder().await, Agent::start().await);
    let token = token_of(&seed, "invite --uses any").await;
    let file = agent.folder().join("token");
    // A terminal breaks a long token like this.
    std::fs::write(&file, format!("{}\n{}\n", &token[..9], &token[9..])).unwrap();
    let by_file = format!("join --file {} --name pve-7 --json", file.display());
    let said = agent.run(&by_file).await;
    assert_eq!(said.json()["node"]["name"], "pve-7", "{said:?}");
    // The agent is a member now, so the same token makes it meet the seed.
    let by_stdin = agent.run_with("join -", &format!("{token}\n"), Terminal::default()).await;
    assert_eq!(by_stdin.exit, Exit::Done, "{by_stdin:?}");
    let nothing = agent.run("join -").await;
    assert_eq!(nothing.exit, Exit::Usage, "{nothing:?}");
    let nobody = agent.run_with("join", &format!("{token}\n"), Terminal::default()).await;
    assert_eq!(
        nobody.exit,
        Exit::Usage,
        "stdin is read where it is named, or a terminal: {nobody:?}"
    );
    let asked = agent.run_with("join --yes", &format!("{token}\n"), TERMINAL).await;
    assert_eq!(asked.exit, Exit::Done, "{asked:?}");
    assert!(asked.err.starts_with("Paste the Join Information"), "{asked:?}");
}

#[tokio::test]
async fn a_token_that_was_revoked_is_refused_in_the_seeds_words() {
    let (seed, agent) = (Agent::founder().await, Agent::start().await);
    let made = seed.run("invite --json").await.json();
    seed.do_it(&format!("invite revoke {}", made["id"].as_str().unwrap())).await;
    let words = format!("join {} --name pve-2", made["token"].as_str().unwrap());
    let revoked = agent.run(&words).await;
    assert_eq!(revoked.exit, Exit::Refused, "{revoked:?}");
    assert!(revoked.err.contains("revoked"), "{revoked:?}");
    let broken = agent.run("join peerage1-other").await;
    assert_eq!(broken.exit, Exit::Usage, "{broken:?}");
}

#[tokio::test]
async fn a_token_without_its_secret_needs_the_password() {
    let seed = Agent::founder().await;
    let invited = seed.run("invite --no-secret --uses any").await;
    let token = invited.out.trim();
    let (_, password) = invited.err.split_once("it will ask for this password: ").expect("it");
    let password = password.lines().next().unwrap();
    assert!(!token.contains(password), "{invited:?}");
    let words = format!("join {token} --name pve-2");
    let without = Agent::start().await.run(&words).await;
    assert_eq!(without.exit, Exit::Usage);
    assert!(without.err.contains("on a line of stdin"), "{without:?}");

    for (number, input) in [
        format!("{password}\n"),
        format!("\u{feff}{password}\r\n"),
        format!("{token}\n{password}\n"),
        format!("\u{feff}{token}\r\n\r\n# the password\r\n{password}\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let given = if input.contains(token) { "-" } else { token };
        let words = format!("join {given} --name pve-1{number}");
        let joined = Agent::start().await.run_with(&words, &input, Terminal::default()).await;
        assert_eq!(joined.exit, Exit::Done, "{input:?}: {joined:?}");
    }
}

#[tokio::test]
async fn a_token_that_a_terminal_has_wrapped_is_read_until_it_is_whole() {
    let seed = Agent::founder().await;
    let token = token_of(&seed, "invite --uses any").await;
    let wrapped = |end: &str| -> String {
        let lines = token.as_bytes().chunks(80).map(|line| String::from_utf8_lossy(line) + end);
        lines.collect()
    };
    for (number, input) in [
        wrapped("\n"),
        wrapped("\r\n"),
        format!("\u{feff}# from pve-2\r\n\r\n{}", wrapped("\r\n\r\n# and\r\n")),
        token.clone(),
    ]
    .into_iter()
    .enumerate()
    {
        let agent = Agent::start().await;
        let words = format!("join - --name pve-1{number}");
        let said = agent.run_with(&words, &input, Terminal::default()).await;
        assert_eq!(said.exit, Exit::Done, "{input:?}: {said:?}");
        let file = agent.folder().join("token");
        std::fs::write(&file, &input).unwrap();
        let said = agent.run(&format!("join --file {}", file.display())).await;
        assert_eq!(said.exit, Exit::Done, "{input:?}: {said:?}");
    }

    // On a terminal the answer to the question follows the token. A person who pasted only a part
    // of the token is not kept waiting.
    let agent = Agent::start().await;
    let words = "join - --name pve-2";
    let said = agent.run_with(words, &format!("{}y\n", wrapped("\n")), TERMINAL).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let agent = Agent::start().await;
    let said = agent.run_with(words, &format!("{}\n\ny\n", &token[..99]), TERMINAL).await;
    assert_ne!(said.exit, Exit::Done, "{said:?}");
    assert!(said.err.contains("paste the rest"), "{said:?}");
}

#[tokio::test]
async fn members_are_met_by_a_token_from_everywhere_that_one_comes_from() {
    let (agent, second) = Agent::pair().await;
    let third = agent.with_member("pve-3").await;
    second.sees(3, "alive").await;
    // The seeds of the token are the member that made it, and the others that are alive.
    let token = token_of(&second, "invite").await;
    third.stop().await;
    let said = agent.run(&format!("meet {token}")).await;
    assert_eq!(said.exit, Exit::Done, "{said:?}");
    let (met, missed) = said.err.split_once('\n').unwrap();
    assert_eq!(met, "met pve-2 of lab");
    assert!(missed.starts_with("not met: pve-3"), "{said:?}");
    let by_stdin =
        agent.run_with("meet - --json", &format!("{token}\n"), Terminal::default()).await;
    assert_eq!(by_stdin.json()["met"][0]["name"], "pve-2", "{by_stdin:?}");

    let stranger = Agent::founder().await;
    let other = token_of(&stranger, "invite").await;
    assert_eq!(agent.run(&format!("meet {other}")).await.exit, Exit::Refused);
    assert_eq!(agent.run("meet").await.exit, Exit::Usage, "nobody can be asked");
}

async fn token_of(agent: &Agent, words: &str) -> String {
    agent.do_it(words).await.out.trim().to_owned()
}
