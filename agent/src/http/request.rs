//! An HTTP request read as an operation, by the rule of [`peerage_proto::api`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use http_body_util::BodyExt;
use peerage_proto::access::{Caller, Resource};
use peerage_proto::api::values::SentError;
use peerage_proto::api::{
    ApiError, BODY_BYTES_MAX, ErrorCode, IF_MATCH, LAST_EVENT_ID, Method, Operation, ROOT, text,
    values,
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::peer::Peer;
use super::places::Place;
use super::room::Room;
use crate::api::{self, Rights, Sight};

/// How much of a longer body is read and thrown away, so that its sender gets to read the refusal.
pub(super) const REFUSED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;

/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(30);

/// A request that was read and may be served.
pub(super) struct Received<O> {
    pub(super) by: By,
    pub(super) operation: O,
    /// The room that the request's body takes.
    pub(super) body: Option<Place>,
}

/// The caller, and the rights by which its request is judged.
#[derive(Debug, Clone)]
pub(super) struct By {
    /// The user of the host from whose share of all bounds the request takes.
    pub(super) uid: u32,
    pub(super) caller: Arc<Caller>,
    pub(super) rights: Rights,
}

impl By {
    /// What the caller gets to see, as the rights stand now.
    pub(super) fn sight(&self) -> Sight {
        Sight::new(self.rights.policy(), self.caller.clone())
    }
}

/// Reads an operation that the caller may ask for. If the caller has this right nowhere, the body
/// is not read.
pub(super) async fn receive<O: Operation>(
    request: Request,
    room: &Room,
    rights: &Rights,
) -> Result<Received<O>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.remove::<Peer>().ok_or_else(|| {
        ApiError::new(ErrorCode::Internal, "a connection came without its caller")
    })?;
    let policy = rights.policy();
    if O::METHOD.has_body() {
        api::admit(&policy, &peer.caller, O::VERB.on(Resource::Anywhere))?;
    }
    let from_url = url_fields(&mut parts).await?;
    let (mut fields, mut place) = (Map::new(), None);
    if O::METHOD.has_body() {
        let (bytes, taken) = arrived(body, O::BODY_BYTES_MAX, room, peer.uid).await?;
        (fields, place) = (object::<O>(&bytes)?, taken);
    }
    for (name, value) in from_url {
        if fields.insert(name.clone(), Value::String(value)).is_some() {
            let message = format!("{name:?} is given in the URL and again in the body");
            return Err(ApiError::new(ErrorCode::BadRequest, message).hint(usage::<O>()));
        }
    }
    let operation: O = serde_json::from_value(Value::Object(fields)).map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("the request is not right: {error}"))
            .hint(usage::<O>())
    })?;
    api::admit(&policy, &peer.caller, operation.right())?;
    for part in operation.parts() {
        api::admit(&policy, &peer.caller, O::VERB.on(part))?;
    }
    let by = By { uid: peer.uid, caller: peer.caller, rights: rights.clone() };
    Ok(Received { by, operation, body: place })
}

/// What the path, the query and the headers say, percent-decoded.
async fn url_fields(parts: &mut Parts) -> Result<Vec<(String, String)>, ApiError> {
    let mut fields = Vec::new();
    if let Ok(path) = RawPathParams::from_request_parts(parts, &()).await {
        fields.extend(path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    } else {
        return Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8 once decoded"));
    }
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = (query_text(name)?, query_text(value)?);
        if fields.iter().any(|(name, _)| *name == field.0) {
            let message = format!("{:?} is given twice in the URL", field.0);
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        fields.push(field);
    }
    for (header, field) in [("if-match", IF_MATCH), ("last-event-id", LAST_EVENT_ID)] {
        if let Some(value) = parts.headers.get(header) {
            let text = value.to_str().map_err(|_| {
                ApiError::new(ErrorCode::BadRequest, format!("the header {header} is not ASCII"))
            })?;
            // A tag is quoted, and may be marked as weak by a proxy on the way.
            let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
            fields.push((field.to_owned(), text.to_owned()));
        }
    }
    Ok(fields)
}

/// Decodes `%41` and `+` in a query.
fn query_text(text: &str) -> Result<String, ApiError> {
    let malformed = || {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("{text:?} in the query is not percent-encoded"),
        )
        .hint("write a percent sign as %25, and other bytes as UTF-8")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next(), rest.next()];
                let [Some(high), Some(low)] = digits.map(|d| (d? as char).to_digit(16)) else {
                    return Err(malformed());
                };
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// The whole body, if it is not too long and there in time, with the room that it takes.
async fn arrived(
    body: Body,
    most: usize,
    room: &Room,
    uid: u32,
) -> Result<(Vec<u8>, Option<Place>), ApiError> {
    timeout(BODY_MAX, read(body, most, room, uid)).await.unwrap_or_else(|_| {
        let seconds = BODY_MAX.as_secs();
        let message = format!("the body did not arrive within {seconds} s");
        let hint = "send as many bytes as Content-Length says, or the last chunk";
        Err(ApiError::new(ErrorCode::BadRequest, message).hint(hint))
    })
}

async fn read(
    mut body: Body,
    most: usize,
    room: &Room,
    uid: u32,
) -> Result<(Vec<u8>, Option<Place>), ApiError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    // If there is no room for a body, the rest of it is thrown away, so that its sender gets to
    // read why.
    let mut place: Option<Place> = None;
    let mut refused = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > most || refused.is_some() {
            (bytes, place) = (Vec::new(), None);
        } else if let Err(error) = grow(&mut place, room, uid, data.len()) {
            refused = Some(error);
        } else {
            bytes.extend_from_slice(&data);
        }
        if length > most + REFUSED_BYTES_MAX {
            break;
        }
    }
    if length > most {
        let message = format!("the body has more than the {most} bytes that are allowed");
        return Err(ApiError::new(ErrorCode::TooLarge, message).hint("send it in smaller parts"));
    }
    match refused {
        Some(error) => Err(error),
        None => Ok((bytes, place)),
    }
}

fn grow(place: &mut Option<Place>, room: &Room, uid: u32, more: usize) -> Result<(), ApiError> {
    match place {
        Some(place) => room.grow(place, more),
        None => room.take(uid, more).map(|taken| *place = Some(taken)),
    }
}

/// The members of the body's JSON object; none where the body is empty. A body with values that
/// reading would alter is refused.
fn object<O: Operation>(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let wrong = |message: String| ApiError::new(ErrorCode::BadRequest, message).hint(usage::<O>());
    let text = std::str::from_utf8(body)
        .map_err(|error| wrong(format!("the body is not JSON: it is not UTF-8: {error}")))?;
    let text = text::without_mark(text);
    if text.is_empty() {
        return Ok(Map::new());
    }
    match values::sent(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("the body is not a JSON object".to_owned())),
        Err(SentError::Malformed(error)) => Err(wrong(format!("the body is not JSON: {error}"))),
        Err(twice @ SentError::Twice(_)) => Err(wrong(twice.to_string())),
        Err(SentError::Altered(altered)) => {
            let hint = altered.hint();
            Err(ApiError::new(ErrorCode::BadRequest, altered.to_string()).hint(hint))
        }
    }
}

fn usage<O: Operation>() -> String {
    let what = match O::METHOD {
        Method::Post | Method::Patch => "takes one JSON object in its body",
        Method::Get | Method::Delete => "takes all it needs from the URL",
    };
    format!("{} {ROOT}{} {what}", O::METHOD.name(), O::PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once() {
        assert_eq!(query_text("a%2Fb+c%2520").unwrap(), "a/b c%20");
        assert_eq!(query_text("%C3%A9").unwrap(), "é");
        for broken in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(query_text(broken).unwrap_err().code, ErrorCode::BadRequest, "{broken}");
        }
    }
}
