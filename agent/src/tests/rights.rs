//! Who may do what: every operation of the table, asked for by every kind of caller.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use peerage_proto::access::{
    Asker, Caller, Forwarded, Grant, Host, Policy, Process, Proof, Resource, Role, Subject, User,
    decide,
};
use peerage_proto::api::settings::SetFields;
use peerage_proto::api::{Kind, Operation, Shape, operations};
use peerage_proto::id::{NodeId, UserId};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::json;

use super::agent::Agent;
use super::example::{Examples, example};
use super::{DEADLINE, Reply, exchange, request};

/// Nobody's user and group on Linux.
const NOBODY: u32 = 65_534;

/// Whether an operation only reads, by the contract; every other operation changes something.
fn only_looks(method: &str, path: &str) -> bool {
    method == "GET" || (method, path) == ("POST", "inspect")
}

#[test]
fn each_operation_is_allowed_to_those_to_whom_the_contract_allows_it() {
    let policy = policy();
    let mut asked = 0;
    for (caller, looks, changes) in callers() {
        macro_rules! each {
            ($($operation:ty),*) => { $(
                let operation = example::<$operation>(&Examples::default());
                let (method, path) = (<$operation>::METHOD.name(), <$operation>::PATH);
                let allowed = if only_looks(method, path) { looks } else { changes };
                let decision = decide(&policy, &caller, operation.right());
                assert_eq!(decision.allows(), allowed, "{caller:?} {method} {path}: {decision}");
                assert!(decision.to_string().len() > 10, "{decision}");
                // The check before the body is read must not refuse a caller whom the full check
                // allows.
                let before = decide(&policy, &caller, <$operation>::VERB.on(Resource::Anywhere));
                assert!(before.allows() || !allowed, "{caller:?} {method} {path}: {before}");
                asked += 1;
            )* };
        }
        operations!(each);
    }
    assert!(asked > 200, "{asked}");
}

/// `Resource::Anywhere` holds wherever the caller has the verb, so only an operation whose items or
/// parts are checked one by one may ask for it.
#[test]
fn only_what_is_shown_item_by_item_is_asked_for_anywhere() {
    macro_rules! each {
        ($($operation:ty),*) => { $(
            let operation = example::<$operation>(&Examples::default());
            let anywhere = operation.resource() == Resource::Anywhere;
            let in_items = [Kind::Listed, Kind::Streamed].contains(&kind::<$operation>());
            let in_parts = !operation.parts().is_empty();
            assert!(in_items || in_parts || !anywhere, "{}", <$operation>::PATH);
        )* };
    }
    operations!(each);
}

fn kind<O: Operation>() -> Kind {
    <O::Answer as Shape>::KIND
}

#[tokio::test]
async fn the_socket_refuses_what_the_contract_refuses_and_reads_no_body_of_it() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become someone else.
    }
    let agent = Agent::start().await;
    macro_rules! each {
        ($($operation:ty),*) => { $(
            let method = <$operation>::METHOD.name();
            let path = <$operation>::PATH;
            let line = format!("{method} /api/v1/{}", filled(path));
            // A stream is asked for in a way that is refused after the rights are.
            let line = match kind::<$operation>() {
                Kind::Streamed => format!("{line}?nonsense=1"),
                _ => line,
            };
            // The agent refuses before it reads the body: this one would be malformed.
            let reply = as_nobody(&agent.socket, &line, "{").await;
            assert_eq!(reply.status == 403, !only_looks(method, path), "{line}: {reply:?}");
            if reply.status == 403 {
                let error = reply.json();
                assert_eq!(error["code"], "forbidden", "{line}");
                assert!(error["message"].as_str().unwrap().contains(".modify on "), "{error}");
                assert!(error["hint"].as_str().unwrap().contains("sudo"), "{error}");
            }
        )* };
    }
    operations!(each);
    assert_eq!(agent.ask("GET /api/v1/status", "").await.json()["datacenter"], json!(null));
}

#[tokio::test]
async fn a_member_of_the_group_writes_and_is_told_as_the_one_who_did() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become someone else.
    }
    let (_folder, groups) = groups_file(&format!("peerage:x:{NOBODY}:\n"));
    let agent = Agent::start_for(groups, Grant::defaults()).await;
    let created = as_nobody(&agent.socket, "POST /api/v1/create", r#"{"name": "lab"}"#).await;
    assert_eq!(created.status, 200, "{created:?}");
    as_nobody(&agent.socket, "PATCH /api/v1/settings/a", r#"{"set": {"x": 1}}"#).await;
    let history = agent.ask("GET /api/v1/history/a", "").await.json();
    let actor = history[0]["actor"].as_str().unwrap();
    assert!(actor == "nobody" || actor == "uid 65534", "{history}");
}

/// A connection once kept the policy of the time at which it was made, for as long as it was open.
#[tokio::test]
async fn who_is_taken_out_of_the_group_may_do_no_more_from_the_next_call_on() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become someone else.
    }
    let (_folder, groups) = groups_file("peerage:x:64999:\n");
    let agent = Agent::start_for(groups.clone(), Grant::defaults()).await;
    agent.do_it("create lab").await;
    let mut open = connection_of_nobody(&agent.socket).await;
    for (id, status) in [(64_999, 403), (NOBODY, 200), (64_998, 403)] {
        std::fs::write(&groups, format!("peerage:x:{id}:\n")).unwrap();
        let line = "PATCH /api/v1/settings/a";
        let (told, back) = tokio::task::spawn_blocking(move || {
            let told = on_open(&mut open, line, r#"{"set": {"x": 1}}"#);
            (told, open)
        })
        .await
        .unwrap();
        open = back;
        assert_eq!(told, status, "group {id}");
    }
}

#[tokio::test]
async fn a_list_and_a_stream_show_what_their_reader_may_see() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become someone else.
    }
    let part = Grant {
        subject: Subject::LocalOthers,
        role: Role::Auditor,
        path: "/settings/storage".into(),
        propagate: true,
    };
    let agent = Agent::start_for("/no/such/file".into(), vec![part]).await;
    agent.do_it("create lab").await;
    let from = agent.node.changes().latest();
    for path in ["dns", "storage/nas1", "storage/nas2", "zone"] {
        let set = [("x".to_owned(), json!(1))].into();
        agent.ask_inside(SetFields { path: path.into(), set, ..SetFields::default() }).await;
    }
    let paths = |reply: &Reply| -> Vec<String> {
        let list = reply.json().as_array().unwrap().clone();
        list.iter().map(|document| document["path"].as_str().unwrap().to_owned()).collect()
    };
    let all = agent.ask("GET /api/v1/settings", "").await;
    assert_eq!(paths(&all), ["dns", "storage/nas1", "storage/nas2", "zone"]);
    let seen = as_nobody(&agent.socket, "GET /api/v1/settings", "").await;
    assert_eq!(paths(&seen), ["storage/nas1", "storage/nas2"]);
    for (line, status) in [
        ("GET /api/v1/settings/storage/nas1", 200),
        ("GET /api/v1/settings/dns", 403),
        ("GET /api/v1/status", 403),
        ("PATCH /api/v1/settings/storage/nas1", 403),
    ] {
        let reply = as_nobody(&agent.socket, line, "").await;
        assert_eq!(reply.status, status, "{line}: {reply:?}");
    }
    let members = as_nobody(&agent.socket, "GET /api/v1/members", "").await;
    assert_eq!(members.body, "[]\n", "an auditor of other paths sees no member");

    let mut stream = connection_of_nobody(&agent.socket).await;
    let watch = request("GET /api/v1/watch", &[&format!("last-event-id: {from}")], "");
    let told = tokio::task::spawn_blocking(move || {
        stream.write_all(&watch).unwrap();
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while !text.contains("storage/nas2") {
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        text
    })
    .await
    .unwrap();
    assert!(told.contains("storage/nas1") && !told.contains("dns"), "{told}");
    // The reader's place also moves past the events that the reader is not shown.
    assert!(told.matches("\nid: ").count() > told.matches("\ndata: ").count(), "{told}");
}

/// Every kind of caller, with whether it may look and whether it may change something.
fn callers() -> Vec<(Caller, bool, bool)> {
    let host = policy().host;
    let listed = host.members[0].clone();
    let id = host.group_id.unwrap();
    let process = |uid, gid, groups: &[u32], user: Option<&str>| Process {
        uid,
        gid,
        user: user.map(str::to_owned),
        groups: groups.to_vec(),
    };
    let user = |by| User { id: UserId([7; 16]), name: "root".into(), by };
    let forwarded = |asker| Caller::Forwarded(Forwarded { by: NodeId([1; 32]), asker });
    vec![
        (Caller::Process(process(0, 0, &[], Some("root"))), true, true),
        (Caller::Process(process(host.agent_uid, 1, &[], None)), true, true),
        (Caller::Process(process(1000, id, &[], Some("alice"))), true, true),
        (Caller::Process(process(1000, 1000, &[1, id], Some("alice"))), true, true),
        (Caller::Process(process(1000, 1000, &[], Some(&listed))), true, true),
        (Caller::Process(process(1000, 0, &[0], Some("alice"))), true, false),
        (Caller::Process(process(NOBODY, NOBODY, &[], None)), true, false),
        (Caller::User(user(Proof::Session)), false, false),
        (Caller::User(user(Proof::Token("t1".into()))), false, false),
        (Caller::User(user(Proof::Code)), false, false),
        (forwarded(Asker::User(user(Proof::Session))), false, false),
        (forwarded(Asker::Process(process(0, 0, &[], Some("root")))), false, false),
    ]
}

fn policy() -> Policy {
    let host = Host {
        agent_uid: 991,
        group: "peerage".into(),
        group_id: Some(990),
        members: vec!["bob".into()],
    };
    Policy { host, grants: Grant::defaults() }
}

fn groups_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("group");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// A path with a word in place of each field.
fn filled(path: &str) -> String {
    let words: Vec<&str> =
        path.split('/').map(|word| if word.starts_with('{') { "x" } else { word }).collect();
    words.join("/")
}

/// Sends a request as a user without rights on this host.
async fn as_nobody(socket: &Path, line: &str, body: &str) -> Reply {
    let (stream, request) = (connection_of_nobody(socket).await, request(line, &[], body));
    tokio::task::spawn_blocking(move || exchange(stream, &request)).await.unwrap()
}

/// A connection that a user without rights on this host has made.
async fn connection_of_nobody(socket: &Path) -> UnixStream {
    let socket = socket.to_owned();
    let connect = move || {
        // A thread of its own, since only the thread that connects becomes someone else.
        let thread = std::thread::spawn(move || {
            let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            UnixStream::connect(socket).unwrap()
        });
        thread.join().unwrap()
    };
    let stream = tokio::task::spawn_blocking(connect).await.unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends a request on a connection that stays open; the answer's status.
fn on_open(stream: &mut UnixStream, line: &str, body: &str) -> u16 {
    let length = body.len();
    let text = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    let (mut answer, mut byte) = (String::new(), [0]);
    while !answer.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0].into());
    }
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("its length").parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
}
