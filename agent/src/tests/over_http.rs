//! What HTTP promises to programs that speak it themselves.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::agent::Agent;
use super::request;

#[tokio::test]
async fn every_path_of_the_contract_answers() {
    let (agent, other) = Agent::pair().await;
    let token = other.do_it("invite --uses any").await.out;
    let token = format!(r#"{{"token": "{}"}}"#, token.trim());
    other.stop().await;
    agent.sees(1, "down").await;
    agent.do_it("settings set storage/nas1 size=0").await;
    let stamp = agent.run("settings history storage/nas1 --json").await.json();
    let stamp = format!(r#"{{"stamp": {}}}"#, stamp[0]["stamp"]);
    let invite = agent.run("invite --json").await.json();
    let revoke = format!("DELETE /api/v1/invites/{}", &invite["id"].as_str().unwrap()[..6]);
    for (line, body, status) in [
        ("POST /api/v1/create", r#"{"name": "other"}"#, 409),
        ("GET /api/v1/status", "", 200),
        ("GET /api/v1/members", "", 200),
        ("PATCH /api/v1/settings/storage/nas1", r#"{"set": {"size": 1}, "unset": []}"#, 200),
        ("PATCH /api/v1/settings/storage/nas1?wait=all&timeout=1s", r#"{"set": {"size": 2}}"#, 202),
        ("GET /api/v1/settings?prefix=storage/", "", 200),
        ("GET /api/v1/settings/storage/nas1", "", 200),
        ("GET /api/v1/history/storage/nas1", "", 200),
        ("POST /api/v1/revert/storage/nas1", &stamp, 200),
        ("DELETE /api/v1/settings/storage/nas1", "", 200),
        ("GET /api/v1/settings/storage/nas1", "", 404),
        ("GET /api/v1/conflicts", "", 200),
        ("GET /api/v1/lag", "", 200),
        ("POST /api/v1/invites", r#"{"ttl": "1h", "uses": 2, "node_name": "pve-*"}"#, 200),
        ("POST /api/v1/invites", "", 200),
        ("GET /api/v1/invites", "", 200),
        (&revoke, "", 200),
        ("DELETE /api/v1/invites/fff", "", 404),
        ("POST /api/v1/inspect", &token, 200),
        ("PATCH /api/v1/members/pve-1", r#"{"name": "pve-9"}"#, 200),
        ("POST /api/v1/meet", &token, 502),
        ("DELETE /api/v1/members/pve-3", "", 404),
        ("DELETE /api/v1/members/pve-2?force=true", "", 200),
        ("GET /api/v1/events?follow=false", "", 200),
        ("POST /api/v1/leave?force=maybe", "", 400),
        ("POST /api/v1/leave", "", 409),
        ("POST /api/v1/leave?force=true", "", 200),
        ("POST /api/v1/join", &token, 409),
        ("POST /api/v1/create", r#"{"name": "lab"}"#, 200),
    ] {
        let reply = agent.ask(line, body).await;
        assert_eq!(reply.status, status, "{line}: {reply:?}");
        assert!(reply.head.contains("content-type: "), "{line}: {reply:?}");
    }
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_what_would() {
    let agent = Agent::start().await;
    for (line, body, status, words) in [
        ("POST /api/v1/create", "{", 400, "not JSON"),
        ("POST /api/v1/create", "[]", 400, "not a JSON object"),
        ("POST /api/v1/create", "", 400, "missing field `name`"),
        ("POST /api/v1/create", r#"{"name": 1}"#, 400, "expected a string"),
        ("POST /api/v1/create", r#"{"name": "x", "nam": 1}"#, 400, "unknown field `nam`"),
        ("PATCH /api/v1/settings/a", r#"{"path": "b"}"#, 400, "in the URL and again"),
        ("PATCH /api/v1/settings/a?wait=some", "{}", 400, "local, majority, all"),
        ("GET /api/v1/settings?prefx=a", "", 400, "unknown field `prefx`"),
        ("GET /api/v1/settings?prefix=%zz", "", 400, "percent-encoded"),
        ("GET /api/v1/settings?prefix=a&prefix=b", "", 400, "twice"),
        ("GET /api/v1/settings/%ff", "", 400, "UTF-8"),
        ("GET /api/v1/nothing", "", 404, "nothing at /api/v1/nothing"),
        ("PUT /api/v1/status", "", 405, "PUT cannot be used"),
    ] {
        let reply = agent.ask(line, body).await;
        let error = reply.json();
        assert_eq!(reply.status, status, "{line} {body}: {reply:?}");
        assert!(error["message"].as_str().unwrap().contains(words), "{line} {body}: {error}");
        assert_eq!(error.as_object().unwrap().len(), 3, "{error}");
        let told_what_to_do = error["hint"].is_string();
        assert!(told_what_to_do || words == "twice" || words == "UTF-8", "{line}: {error}");
    }
}

#[tokio::test]
async fn a_number_whose_value_would_be_altered_is_refused_by_name() {
    let agent = Agent::founder().await;
    let line = "PATCH /api/v1/settings/a";
    for (body, words) in [
        (
            r#"{"set": {"size": 123456789012345678901234567890}}"#,
            "123456789012345678901234567890 at set.size would become 1.2345678901234568e+29",
        ),
        (r#"{"set": {"limits": [1, {"x": 1e400}]}}"#, "1e400 at set.limits[1].x is larger"),
        (r#"{"set": {"x": 1e-400}}"#, "1e-400 at set.x would become 0.0"),
    ] {
        let reply = agent.ask(line, body).await;
        let error = reply.json();
        assert_eq!((reply.status, &error["code"]), (400, &json!("bad_request")), "{body}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
        assert!(error["hint"].as_str().unwrap().contains("in quotes"), "{body}: {error}");
    }
    assert_eq!(agent.ask("GET /api/v1/settings/a", "").await.status, 404, "nothing was written");

    let body = "\u{feff}{\"set\": {\"a\": 7e10, \"b\": 1.10, \"c\": \"1.10\"}}\r\n";
    assert_eq!(agent.ask(line, body).await.status, 200);
    let fields = &agent.ask("GET /api/v1/settings/a", "").await.json()["fields"];
    assert_eq!(*fields, json!({"a": 7e10, "b": 1.1, "c": "1.10"}));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_its_sender_gets_to_read_why() {
    let agent = Agent::start().await;
    let body = format!(r#"{{"name": "{}"}}"#, "x".repeat(3 * 1024 * 1024));
    let reply = agent.ask("POST /api/v1/create", &body).await;
    assert_eq!((reply.status, &reply.json()["code"]), (413, &json!("too_large")));
    assert_eq!(agent.ask("GET /api/v1/status", "").await.json()["datacenter"], json!(null));
}

/// The agent once waited for such a body without end, and its connection held a place that nobody
/// else could use.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_waited_for_half_a_minute() {
    let agent = Agent::start().await;
    let began = tokio::time::Instant::now();
    let head = "POST /api/v1/create HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{\"name\"";
    let mut stream = tokio::net::UnixStream::connect(&agent.socket).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("within 30 s"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(agent.ask_here("GET /api/v1/status").await, 200);
}

/// A size that a document may have, and that a socket does not buffer.
const LARGE: usize = 1_000_000;

/// An answer that was not read once held its connection for as long as the reader liked.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_an_answer_is_cut_off_after_half_a_minute() {
    let agent = Agent::start().await;
    agent.ask_here(r#"POST /api/v1/create {"name":"lab"}"#).await;
    let large = format!(r#"PATCH /api/v1/settings/a {{"set":{{"x":"{}"}}}}"#, "x".repeat(LARGE));
    assert_eq!(agent.ask_here(&large).await, 200);
    let mut stream = tokio::net::UnixStream::connect(&agent.socket).await.unwrap();
    stream.write_all(b"GET /api/v1/settings HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(31)).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() < LARGE, "{}", answer.len());
}

#[tokio::test]
async fn a_path_is_decoded_once() {
    let agent = Agent::founder().await;
    let line = "PATCH /api/v1/settings/a%40b/%C3%A9/c%2Fd";
    let reply = agent.ask(line, r#"{"set": {"x": 1}}"#).await;
    assert_eq!(reply.json()["path"], "a@b/é/c/d", "{reply:?}");
    let twice = agent.ask("PATCH /api/v1/settings/a%252Fb", r#"{"set": {"x": 1}}"#).await;
    let message = twice.json()["message"].as_str().unwrap().to_owned();
    assert!(twice.status == 400 && message.contains("\"a%2Fb\""), "{twice:?}");
    let renamed = agent.ask("PATCH /api/v1/members/a%2Fb", r#"{"name": "c"}"#).await;
    let message = renamed.json()["message"].as_str().unwrap().to_owned();
    assert!(renamed.status == 404 && message.contains("\"a/b\""), "{renamed:?}");
}

#[tokio::test]
async fn a_write_can_be_bound_to_what_its_writer_saw() {
    let agent = Agent::founder().await;
    let set = |value: u32| format!(r#"{{"set": {{"size": {value}}}}}"#);
    agent.ask("PATCH /api/v1/settings/a", &set(1)).await;
    let seen = agent.ask("GET /api/v1/settings/a", "").await;
    let tag = seen.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("its tag");
    assert_eq!(tag, seen.json()["etag"].to_string(), "{seen:?}");

    let seen = format!("if-match: {tag}");
    let bound = |value| request("PATCH /api/v1/settings/a", &[&seen], &set(value));
    assert_eq!(agent.send(bound(2)).await.status, 200);
    let late = agent.send(bound(3)).await;
    assert_eq!((late.status, &late.json()["code"]), (412, &json!("changed")));
    let now = agent.ask("GET /api/v1/settings/a", "").await.json();
    assert_eq!(now["fields"], json!({"size": 2}));
}

#[tokio::test]
async fn a_stream_resumes_behind_the_last_id() {
    let (agent, _other) = Agent::pair().await;
    let all = agent.ask("GET /api/v1/events?follow=false", "").await;
    assert!(all.head.contains("content-type: text/event-stream"), "{all:?}");
    // The place where it begins is told first, without data.
    let told = |text: &str| -> Vec<(String, bool)> {
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("id: "));
        let parts = events.map(|event| event.split_once('\n').unwrap_or((event, "")));
        parts.map(|(id, rest)| (id.to_owned(), rest.contains("data: "))).collect()
    };
    let events = told(&all.body);
    let with_data: Vec<_> = events.iter().filter(|(_, data)| *data).map(|(id, _)| id).collect();
    assert!(with_data.len() >= 2, "{all:?}");
    let (last, before) = (with_data[with_data.len() - 1], with_data[with_data.len() - 2]);
    let line = "GET /api/v1/events?follow=false";
    let rest = agent.send(request(line, &[&format!("last-event-id: {before}")], "")).await;
    let rest: Vec<_> = told(&rest.body).into_iter().filter(|(_, data)| *data).collect();
    assert_eq!(rest, [(last.clone(), true)]);
}

#[tokio::test]
async fn a_stream_ends_when_its_reader_hangs_up_and_when_the_agent_stops() {
    let mut agent = Agent::founder().await;
    let reader = agent.open_stream("GET /api/v1/watch").await;
    agent.is_watched_by(1).await;
    drop(reader);
    agent.is_watched_by(0).await;

    let _second = agent.open_stream("GET /api/v1/watch").await;
    agent.is_watched_by(1).await;
    agent.hang_up().await;
    agent.is_watched_by(0).await;
    assert!(!agent.socket.exists());
}
