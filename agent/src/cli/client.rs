//! HTTP to the agent's socket: an operation in, its answer out.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peerage_proto::api::{
    ApiError, Ends, ErrorCode, IF_MATCH, Item, LAST_EVENT_ID, LOOKING_MAX, Operation, Output, ROOT,
    Streamed,
};
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::answerer::{Answerer, HANGING_HINT, not_understood};
use super::reaching::unreachable;
use super::sse::Subscription;

/// The longest answer: far above all settings of a Data Center, and a bound all the same.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// How long the agent may take to accept a connection, and how often the client tries.
const CONNECTING_MAX: Duration = LOOKING_MAX;
const CONNECT_EVERY: Duration = Duration::from_millis(50);

/// How long an answer may pause after it has begun.
const PAUSE_MAX: Duration = LOOKING_MAX;

/// Asks the agent on one socket, by a new connection for each operation.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent on this socket. It does not connect yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks, and waits for the answer as long as the operation may take.
    ///
    /// # Errors
    /// The agent's refusal; [`ErrorCode::Unreachable`] where no agent answers, or the agent hangs.
    pub async fn call<O: Operation<Answer: Ends>>(
        &self,
        operation: &O,
    ) -> Result<Output<O>, ApiError> {
        let (answer, agent) = self.answer(operation).await?;
        let body = whole(answer.into_body(), &agent).await?;
        serde_json::from_slice(&body).map_err(|error| not_understood(&error))
    }

    /// Opens a stream of items.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn follow<T: Item>(
        &self,
        operation: &impl Operation<Answer = Streamed<T>>,
    ) -> Result<Subscription<T>, ApiError> {
        let (answer, agent) = self.answer(operation).await?;
        Ok(Subscription::new(answer.into_body(), agent))
    }

    /// The agent's answer, if it is not a refusal, and the agent that gave it.
    async fn answer<O: Operation>(
        &self,
        operation: &O,
    ) -> Result<(Response<Incoming>, Answerer), ApiError> {
        let request = request(operation)?;
        let patience = operation.patience();
        let stream = self.connect().await?;
        let agent = Answerer::of(&stream, patience > LOOKING_MAX);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // This task drives the connection until the answer has been read, and ends with it.
        tokio::spawn(connection);
        let response = timeout(patience, sender.send_request(request)).await;
        let response = response.map_err(|_| agent.hangs(patience))?.map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            return Ok((response, agent));
        }
        let status = response.status();
        let body = whole(response.into_body(), &agent).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            ApiError::new(ErrorCode::Failed, format!("the agent answered {status}"))
        }))
    }

    /// Connects. An agent that accepts nobody, so that its queue is full, is taken to hang.
    async fn connect(&self) -> Result<UnixStream, ApiError> {
        let deadline = Instant::now() + CONNECTING_MAX;
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        let socket = self.socket.display();
                        let message = format!(
                            "the agent does not answer: so many wait on the socket {socket} that \
                             no more are taken in"
                        );
                        return Err(
                            ApiError::new(ErrorCode::Unreachable, message).hint(HANGING_HINT)
                        );
                    }
                    sleep(CONNECT_EVERY).await;
                }
                connected => return connected.map_err(|error| unreachable(&self.socket, &error)),
            }
        }
    }

    fn broken(&self, error: &hyper::Error) -> ApiError {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("the agent hung up before it answered ({error}{cause})");
        ApiError::new(ErrorCode::Unreachable, message)
            .hint("it may be stopping, or have as many connections as it takes: try again")
    }
}

/// The whole body of an answer.
async fn whole(body: Incoming, agent: &Answerer) -> Result<Bytes, ApiError> {
    let broke_off = |error: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::Unreachable, format!("the agent's answer broke off: {error}"))
    };
    let mut body = Limited::new(body, ANSWER_BYTES_MAX);
    let mut bytes = BytesMut::new();
    loop {
        let frame = timeout(PAUSE_MAX, body.frame()).await.map_err(|_| agent.hangs(PAUSE_MAX))?;
        match frame {
            None => return Ok(bytes.freeze()),
            Some(Err(error)) => return Err(broke_off(&error)),
            Some(Ok(frame)) => bytes.extend(frame.into_data().ok()),
        }
    }
}

/// The HTTP request for an operation, by the rule of [`peerage_proto::api`].
fn request<O: Operation>(operation: &O) -> Result<Request<Full<Bytes>>, ApiError> {
    let unfit = |error: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::BadRequest, format!("this cannot be asked: {error}"))
    };
    let mut fields = match serde_json::to_value(operation).map_err(|e| unfit(&e))? {
        Value::Object(fields) => fields,
        other => return Err(unfit(&format_args!("{other} is not a map"))),
    };
    fields.retain(|_, value| !value.is_null());

    let mut uri = path::<O>(&mut fields)?;
    let mut request = Request::builder().method(O::METHOD.name()).header("host", "localhost");
    for (field, header, quote) in
        [(IF_MATCH, "if-match", "\""), (LAST_EVENT_ID, "last-event-id", "")]
    {
        if let Some(value) = fields.remove(field) {
            request = request.header(header, format!("{quote}{}{quote}", word(&value)));
        }
    }
    let mut separator = '?';
    fields.retain(|name, value| {
        let in_query = !O::METHOD.has_body() || O::QUERY.contains(&name.as_str());
        if in_query {
            uri.push(separator);
            separator = '&';
            encode(name, false, &mut uri);
            uri.push('=');
            encode(&word(value), false, &mut uri);
        }
        !in_query
    });
    let body = if O::METHOD.has_body() {
        request = request.header("content-type", "application/json");
        Bytes::from(Value::Object(fields).to_string())
    } else {
        Bytes::new()
    };
    request.uri(uri).body(Full::new(body)).map_err(|e| unfit(&e))
}

/// Writes the fields that the path names into the path, and takes them out of `fields`.
fn path<O: Operation>(fields: &mut Map<String, Value>) -> Result<String, ApiError> {
    let mut path = ROOT.trim_end_matches('/').to_owned();
    for segment in O::PATH.split('/') {
        path.push('/');
        let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
            path.push_str(segment);
            continue;
        };
        let rest = name.strip_prefix('*');
        let name = rest.unwrap_or(name);
        let value = fields.remove(name).map(|value| word(&value)).unwrap_or_default();
        if value.is_empty() {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("the {name} is empty")));
        }
        encode(&value, rest.is_some(), &mut path);
    }
    Ok(path)
}

/// A field as one word: a string as it is, anything else as its JSON.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986, and `/` where it divides.
fn encode(text: &str, slashes_divide: bool, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(byte as char);
            }
            b'/' if slashes_divide => into.push('/'),
            _ => into.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peerage_proto::api::events::FollowEvents;
    use peerage_proto::api::members::RenameMember;
    use peerage_proto::api::node::GetStatus;
    use peerage_proto::api::settings::SetFields;
    use peerage_proto::api::{Exit, Span, Wait};
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_takes_in_and_says_nothing_is_told_by_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _silent = tokio::net::UnixListener::bind(&socket).unwrap();
        let (client, began) = (Client::new(&socket), Instant::now());
        let error = client.call(&GetStatus {}).await.unwrap_err();
        assert_eq!((error.code, error.code.exit()), (ErrorCode::Unreachable, Exit::Unreachable));
        let process = format!("the agent (pid {}) does not answer", std::process::id());
        assert!(error.message.contains(&process), "{error}");
        assert!(error.hint.unwrap().contains("systemctl restart peerage"));
        assert_eq!(began.elapsed().as_secs(), 10);

        let began = Instant::now();
        let wait = SetFields {
            path: "a".into(),
            wait: Wait::All,
            timeout: Some(Span::seconds(7200)),
            ..SetFields::default()
        };
        let error = client.call(&wait).await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), 7260, "a wait is waited for");
        assert!(error.hint.unwrap().contains("look before you ask again"));

        let error = client.follow(&FollowEvents::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_whose_queue_is_full_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&socket).await {
            waiting.push(stream);
        }
        let began = Instant::now();
        let error = Client::new(&socket).call(&GetStatus {}).await.unwrap_err();
        assert_eq!(error.code.exit(), Exit::Unreachable);
        assert!(error.message.contains("the agent does not answer"), "{error}");
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn an_answer_or_a_stream_that_stops_in_its_middle_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nid: 7-1\n\n\r\n";
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
                open.push(stream);
            }
        });
        let client = Client::new(&socket);
        let (answer, agent) = client.answer(&GetStatus {}).await.unwrap();
        let mut stream = client.follow(&FollowEvents::default()).await.unwrap();
        while stream.place().is_none() {
            let _ = timeout(Duration::from_millis(5), stream.next()).await;
        }
        assert_eq!(stream.place(), Some("7-1"));

        // From here on nothing comes, and time passes by itself.
        tokio::time::pause();
        let began = Instant::now();
        let broken = stream.next().await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), 15);
        for error in [broken, whole(answer.into_body(), &agent).await.unwrap_err()] {
            assert_eq!(error.code, ErrorCode::Unreachable);
            assert!(error.message.contains("does not answer"), "{error}");
        }
    }

    #[tokio::test]
    async fn each_field_travels_where_it_belongs() {
        let operation = SetFields {
            path: "storage/a b/é%2F".into(),
            set: BTreeMap::from([("x".to_owned(), json!(1))]),
            if_match: Some("7.1".into()),
            wait: Wait::Majority,
            ..SetFields::default()
        };
        let request = request(&operation).unwrap();
        assert_eq!(request.method(), "PATCH");
        let uri = "/api/v1/settings/storage/a%20b/%C3%A9%252F?wait=majority";
        assert_eq!(request.uri(), uri);
        assert_eq!(request.headers()["if-match"], "\"7.1\"");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"set": {"x": 1}, "unset": []})
        );
    }

    #[test]
    fn a_slash_in_a_name_does_not_divide_the_path() {
        let operation = RenameMember { node: "a/b".into(), name: "c".into() };
        assert_eq!(request(&operation).unwrap().uri(), "/api/v1/members/a%2Fb");
    }

    #[test]
    fn an_empty_path_is_not_sent() {
        let error = request(&SetFields::default()).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::BadRequest, "the path is empty")
        );
    }

    #[test]
    fn a_stream_resumes_by_header() {
        let operation = FollowEvents { follow: false, last_event_id: Some("41".into()) };
        let request = request(&operation).unwrap();
        assert_eq!(request.uri(), "/api/v1/events?follow=false");
        assert_eq!(request.headers()["last-event-id"], "41");
    }
}
