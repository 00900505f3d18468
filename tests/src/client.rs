//! A blocking HTTP/1.1 client on a unix socket: small enough to read, strict enough to test with.
//!
//! It is written apart from the agent's own client on purpose, so that both cannot share a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What all paths of the api begin with.
const ROOT: &str = "/api/v1/";

/// How long an answer may take. Joining waits for seeds that do not answer, so it is long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest answer: more is a fault of the agent.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why an operation was not done.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Nothing answers on the socket, or it broke off.
    Unreachable(String),
    /// The agent said no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The kind of failure.
        code: String,
        /// What happened, and the hint behind it.
        message: String,
    },
}

impl Failure {
    /// The code of a refusal; empty where the agent was not reached.
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable(_) => "",
            Self::Refused { code, .. } => code,
        }
    }

    /// Checks that the words tell the cause: each of `words` is in them, whatever its case.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        let text = self.to_string().to_lowercase();
        for word in words {
            assert!(text.contains(&word.to_lowercase()), "{word:?} is not in {text:?}");
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no answer: {why}"),
            Self::Refused { status, code, message } => write!(f, "{status} {code}: {message}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// What an agent answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body: JSON, or `null` where it is none.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    pub fn success(self) -> Result<Value, Failure> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text = |field: &str| self.body[field].as_str().unwrap_or_default().to_owned();
        let message = format!("{} {}", text("message"), text("hint"));
        Err(Failure::Refused { status: self.status, code: text("code"), message })
    }
}

/// Asks an agent, with a connection for each question.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent behind this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Asks with GET, which only looks.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask("GET", path, None)?.success()
    }

    /// Asks with POST, which does something.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask("POST", path, Some(body))?.success()
    }

    /// Asks with PATCH, which changes what is there.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask("PATCH", path, Some(body))?.success()
    }

    /// Asks with DELETE, which takes something away.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask("DELETE", path, None)?.success()
    }

    /// Asks, and hands out the whole answer, whatever it is.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        Connection::open(&self.socket)?.ask(method, path, body, &[])
    }

    /// As [`Client::ask`], with more headers.
    pub fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        Connection::open(&self.socket)?.ask(method, path, body, headers)
    }

    /// Opens a stream of events, after the event of this id if one is given.
    pub fn events(&self, path: &str, after: Option<&str>) -> Result<Events, Failure> {
        let mut connection = Connection::open(&self.socket)?;
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(after.map(|id| ("Last-Event-ID", id)));
        connection.send("GET", path, None, &headers)?;
        let (status, headers) = connection.head()?;
        if status != 200 {
            let body = connection.body(&headers)?;
            return Err(Answer { status, headers, body }.success().expect_err("it is not 200"));
        }
        let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        Ok(Events { connection, chunked, pending: Vec::new() })
    }
}

/// A connection that stays open for many questions, one after the other.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects with the agent behind this socket.
    pub fn open(socket: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket)?)
    }

    /// Speaks over a connection that is open already.
    ///
    /// # Errors
    /// The connection takes no timeout.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        self.send(method, path, body, headers)?;
        self.answer()
    }

    /// Reads the answer to what was sent.
    ///
    /// # Errors
    /// The answer broke off, or is not HTTP.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let (status, headers) = self.head()?;
        let body = self.body(&headers)?;
        Ok(Answer { status, headers, body })
    }

    fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        let mut request = format!("{method} {ROOT}{path} HTTP/1.1\r\nHost: peerage\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        self.stream.get_mut().write_all(request.as_bytes())
    }

    fn head(&mut self) -> io::Result<(u16, BTreeMap<String, String>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| malformed(&first))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }

    fn body(&mut self, headers: &BTreeMap<String, String>) -> io::Result<Value> {
        let mut bytes = Vec::new();
        if let Some(length) = headers.get("content-length") {
            let length = length.parse().map_err(|_| malformed(length))?;
            self.append(length, &mut bytes)?;
        } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = self.chunk()? {
                bytes.extend(chunk);
            }
        }
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// The next chunk; `None` at the end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| malformed(&size))?;
        let mut bytes = Vec::new();
        self.append(size, &mut bytes)?;
        self.line()?;
        Ok(if size == 0 { None } else { Some(bytes) })
    }

    fn append(&mut self, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        if length > ANSWER_BYTES_MAX {
            return Err(malformed("an answer without a bound"));
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        self.stream.read_exact(&mut bytes[start..])
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what:?}"))
}

/// One server-sent event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id, which resumes the stream behind it.
    pub id: String,
    /// Its data, as JSON.
    pub data: Value,
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
    chunked: bool,
    pending: Vec<u8>,
}

impl Events {
    /// The next event; `None` when none came within `bound`, or the stream has ended.
    ///
    /// Once it returned `None` the stream may have been left in the middle of an event, so it is
    /// not to be read again.
    pub fn next(&mut self, bound: Duration) -> Option<Event> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(event) = self.parsed() {
                return Some(event);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let timeout = Some(left.max(Duration::from_millis(1)));
            self.connection.stream.get_ref().set_read_timeout(timeout).ok()?;
            if self.chunked {
                let chunk = self.connection.chunk().ok()??;
                self.pending.extend(chunk);
            } else {
                self.pending.extend(self.connection.line().ok()?.bytes());
                self.pending.push(b'\n');
            }
        }
    }

    /// Takes the first whole event with data off what has been read.
    fn parsed(&mut self) -> Option<Event> {
        loop {
            let end = self.pending.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            let field = |name: &str| {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(|rest| rest.strip_prefix(' ').unwrap_or(rest)).collect::<Vec<_>>()
            };
            let data = field("data:").join("\n");
            // Comments keep a quiet stream alive and say nothing.
            if let Ok(data) = serde_json::from_str(&data) {
                return Some(Event { id: field("id:").concat(), data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_read_with_its_words() {
        let text = r#"{"code":"refused","message":"it is used up","hint":"ask for another"}"#;
        let head = format!("HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\n\r\n", text.len());
        let failure = answered(&format!("{head}{text}"), |client| client.get("members"));
        let failure = failure.unwrap_err();
        assert_eq!(failure.code(), "refused");
        failure.says(&["used up", "ANOTHER"]);
    }

    #[test]
    fn an_answer_in_chunks_is_put_together() {
        let text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n";
        let answer = answered(text, |client| client.get("members"));
        assert_eq!(answer.unwrap(), json!([1, 2]));
    }

    #[test]
    fn events_are_told_apart_wherever_chunks_end() {
        let parts = [": hello\n\nid: 7\nda", "ta: {\"x\":1}\n\nid: 8\ndata: 2\n", "\n"];
        let chunks = parts.map(|part| format!("{:x}\r\n{part}\r\n", part.len())).concat();
        let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let mut events = answered(&text, |client| client.events("events", None)).unwrap();
        let bound = Duration::from_secs(5);
        let told = [events.next(bound).unwrap(), events.next(bound).unwrap()];
        assert_eq!(
            told.map(|event| (event.id, event.data)),
            [("7".to_owned(), json!({"x": 1})), ("8".to_owned(), json!(2)),]
        );
        assert!(events.next(bound).is_none(), "the stream has ended");
    }

    /// Asks something of a socket that answers with `text`.
    fn answered<T>(text: &str, ask: impl FnOnce(Client) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1000];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(text.as_bytes()).unwrap();
            });
            ask(Client::new(socket))
        })
    }
}
