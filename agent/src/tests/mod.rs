//! The command line, its client, HTTP and the socket, end to end over real agents, whose disks are
//! memory and whose network is loopback.

mod agent;
mod commands;
mod contract;
mod example;
mod following;
mod handed_in;
mod joining;
mod membership;
mod over_http;
mod rights;
mod settings;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage_proto::api::Exit;

use crate::cli::{self, CommandLine, Console, Terminal};

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn run_on(socket: &Path, words: &[&str], input: &str, terminal: Terminal) -> Said {
    let line = std::iter::once("peerage").chain(words.iter().copied()).map(Into::into);
    let line = CommandLine::read(line).unwrap_or_else(|exit| panic!("{words:?}: {exit:?}"));
    let (out, err) = (Page::default(), Page::default());
    let input = Box::new(io::Cursor::new(input.to_owned()));
    let mut console =
        Console::new(line.json, Box::new(out.clone()), Box::new(err.clone()), input, terminal);
    let running = cli::run(line.command.expect("a command"), socket, &mut console);
    let exit = tokio::time::timeout(DEADLINE, running).await.expect("it ends in time");
    Said { exit, out: out.text(), err: err.text() }
}

/// Something to write on, and to read what was written while it is being written.
#[derive(Debug, Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An HTTP answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn request(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn exchange(mut stream: UnixStream, request: &[u8]) -> Reply {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let head = head.to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { joined(body) } else { body.into() };
    Reply { status: status.unwrap_or_else(|| panic!("no status in {answer:?}")), head, body }
}

/// The chunks of a body in one (RFC 9112, section 7.1).
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
        body.push_str(&rest[..size]);
        chunks = &rest[size + 2..];
    }
    body
}

/// Polls until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}
