//! HTTP to the agent's socket: an operation in, its answer out.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peerage_proto::api::{
    ApiError, ErrorCode, IF_MATCH, LAST_EVENT_ID, Operation, ROOT, StreamOperation,
};
use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::sse::Subscription;

/// The longest answer: far above all settings of a Data Center, and a bound all the same.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Asks the agent on one socket, by a new connection for each operation.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent on this socket. It is not tried yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks, and waits for the answer as long as it takes.
    ///
    /// # Errors
    /// What the agent refused it with; [`ErrorCode::Unreachable`] where no agent answers.
    pub async fn call<O: Operation>(&self, operation: &O) -> Result<O::Output, ApiError> {
        let body = self.answer(operation).await?.into_body();
        serde_json::from_slice(&self.whole(body).await?).map_err(|error| not_understood(&error))
    }

    /// Opens a stream of items.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn follow<O: StreamOperation>(
        &self,
        operation: &O,
    ) -> Result<Subscription<O::Output>, ApiError> {
        Ok(Subscription::new(self.answer(operation).await?.into_body()))
    }

    /// The agent's answer, if it is not a refusal.
    async fn answer<O: Operation>(&self, operation: &O) -> Result<Response<Incoming>, ApiError> {
        let request = request(operation)?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // It drives the connection until the answer has been read, and ends with it.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.whole(response.into_body()).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            ApiError::new(ErrorCode::Failed, format!("the agent answered {status}"))
        }))
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ApiError> {
        let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            ApiError::new(ErrorCode::Unreachable, format!("the agent's answer broke off: {error}"))
        })?;
        Ok(collected.to_bytes())
    }

    fn unreachable(&self, error: &io::Error) -> ApiError {
        let socket = self.socket.display();
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!("no agent runs here: there is no socket {socket}"),
            io::ErrorKind::ConnectionRefused => {
                format!("no agent runs here: nobody answers on the socket {socket}")
            }
            _ => format!("the agent cannot be reached on the socket {socket}: {error}"),
        };
        ApiError::new(ErrorCode::Unreachable, message).hint(
            "start it with `systemctl start peerage` or `peerage agent`; \
             if it uses another socket, name it with --socket or PEERAGE_SOCKET",
        )
    }

    fn broken(&self, error: &hyper::Error) -> ApiError {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("the agent hung up before it answered ({error}{cause})");
        ApiError::new(ErrorCode::Unreachable, message)
            .hint("it may be stopping, or have as many connections as it takes: try again")
    }
}

pub(super) fn not_understood(error: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorCode::Failed, format!("the agent's answer is not understood: {error}"))
        .hint("is it of another version? `peerage status` and `peerage --version` tell")
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

/// Fills the fields that the path names into it, and takes them out of `fields`.
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

    use peerage_proto::api::Wait;
    use peerage_proto::api::events::FollowEvents;
    use peerage_proto::api::members::RenameMember;
    use peerage_proto::api::settings::SetFields;
    use serde_json::json;

    use super::*;

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
