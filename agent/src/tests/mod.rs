//! The command line, its client, HTTP and the socket, end to end over a service in memory.

mod commands;
mod fake;
mod gaps;
mod handed_in;
mod over_http;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage_proto::api::Exit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{self, CommandLine, Console, Terminal};
use crate::http::{self, Socket};
use fake::Fake;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// An agent that is all front end.
struct Agent {
    fake: Arc<Fake>,
    socket: PathBuf,
    /// Whose members may write.
    group: String,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Agent {
    async fn start() -> Self {
        Self::start_for("peerage").await
    }

    /// Starts with another group that may write.
    async fn start_for(group: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another user is to reach the socket.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut agent = Self {
            fake: Arc::default(),
            socket: folder.path().join("peerage.sock"),
            group: group.to_owned(),
            shutdown: CancellationToken::new(),
            serving: None,
            _folder: folder,
        };
        agent.serve().await;
        agent
    }

    /// Serves, again after [`stop`](Self::stop).
    async fn serve(&mut self) {
        self.shutdown = CancellationToken::new();
        let socket = Socket::bind(&self.socket).await.unwrap();
        let router = http::router(self.fake.clone(), self.shutdown.clone());
        let serving = http::serve(socket, router, self.group.clone(), self.shutdown.clone());
        self.serving = Some(tokio::spawn(serving));
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("it is stopped once for each start");
        tokio::time::timeout(DEADLINE, serving).await.expect("it stops in time").unwrap();
    }

    /// Runs a command with nothing on stdin.
    async fn run(&self, words: &str) -> Said {
        self.run_with(words, "", Terminal::default()).await
    }

    /// Runs a command. Words are divided by spaces.
    async fn run_with(&self, words: &str, input: &str, terminal: Terminal) -> Said {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        run_on(&self.socket, &words, input, terminal).await
    }

    /// Sends bytes and reads to the end of the answer.
    async fn send(&self, request: impl Into<Vec<u8>>) -> Reply {
        let (socket, request) = (self.socket.clone(), request.into());
        let exchange = move || exchange(UnixStream::connect(socket).unwrap(), &request);
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    /// Sends a request without a thread of its own, and with it a clock that goes on; the answer's
    /// status.
    async fn ask_here(&self, line_and_body: &str) -> u16 {
        let mut words = line_and_body.splitn(3, ' ');
        let line = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
        let request = request(&line, &[], words.next().unwrap_or_default());
        let mut stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Sends a request with a body that may be empty.
    async fn ask(&self, line: &str, body: &str) -> Reply {
        self.send(request(line, &[], body)).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

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
