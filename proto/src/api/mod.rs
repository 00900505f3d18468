//! What can be asked of an agent: one type per operation, shared by the server and its clients.
//!
//! An operation is a struct whose fields are all that it takes. Where each field travels follows
//! from the operation's own words, so a client and a server cannot disagree about it:
//!
//! - a field named in [`Operation::PATH`] is part of the URL, percent-encoded;
//! - `if_match` and `last_event_id` are the HTTP headers of those names;
//! - with GET and DELETE, and where [`Operation::QUERY`] names it, a field is part of the query;
//! - every other field is a member of the JSON object in the body.
//!
//! Outputs are plain: ids, stamps and times are strings, what is unknown is `null`. Clients take
//! outputs with fields that they do not know, so that an older CLI can talk to a newer agent; the
//! server refuses requests with fields that it does not know, so that a misspelt one is noticed.

pub mod apply;
pub mod error;
pub mod events;
pub mod invites;
pub mod links;
pub mod members;
pub mod node;
pub mod settings;
pub mod span;
pub mod wait;

use std::time::Duration;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::access::Action;

pub use crate::replica::composed;
pub use crate::time::HowLong;
pub use crate::{text, values};
pub use error::{ApiError, ErrorCode, Exit};
pub use span::Span;
pub use wait::{Wait, WaitOutcome};

/// What all paths of this version begin with.
pub const ROOT: &str = "/api/v1/";

/// The field, and HTTP header `If-Match`, that makes a write conditional.
pub const IF_MATCH: &str = "if_match";

/// The field, and HTTP header `Last-Event-ID`, from which a stream resumes.
pub const LAST_EVENT_ID: &str = "last_event_id";

/// How long it may take to look: the agent answers from its memory.
pub const LOOKING_MAX: Duration = Duration::from_secs(10);

/// How long it may take to write: a disk that has a fault answers after its own timeout of half a
/// minute.
pub const WRITING_MAX: Duration = Duration::from_secs(60);

/// How long a write waits for the others where its request does not say.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// How large the body of a request may be, in bytes: twice the largest document.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How long the path of a socket may be, in bytes: Linux keeps 108, the last for a zero (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The HTTP method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks.
    Get,
    /// Does.
    Post,
    /// Changes what is there.
    Patch,
    /// Takes away.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether requests carry a JSON object in their body.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Patch)
    }
}

/// One thing that can be asked of an agent.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {
    /// What it answers; for a [`StreamOperation`], one item.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// Its method.
    const METHOD: Method;
    /// Its path below [`ROOT`]. `{field}` stands for one segment, `{*field}` for all that follow.
    const PATH: &'static str;
    /// What the caller must be allowed to do.
    const ACTION: Action;
    /// The fields that travel in the query although there is a body.
    const QUERY: &'static [&'static str] = &[];
    /// How large the body may be, in bytes.
    const BODY_BYTES_MAX: usize = BODY_BYTES_MAX;

    /// How long an answer may take to begin. A client that has waited so long takes the agent for
    /// one that hangs.
    fn patience(&self) -> Duration {
        match Self::ACTION {
            Action::Read => LOOKING_MAX,
            Action::Write => WRITING_MAX,
        }
    }

    /// The HTTP status of this answer.
    fn status(_output: &Self::Output) -> u16 {
        200
    }

    /// The stamp by which a later write can say what it has seen (HTTP header `ETag`).
    fn stamp(_output: &Self::Output) -> Option<&str> {
        None
    }
}

/// An operation that answers with server-sent events, one after the other, without an end of its
/// own unless its fields ask for one. Each tells [`Told`](events::Told), with the place that a client
/// gives back as `Last-Event-ID` to go on behind it.
pub trait StreamOperation: Operation {}

/// Reads a flag, which is a JSON boolean in a body and a word in a query.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Flag;
    impl Visitor<'_> for Flag {
        type Value = bool;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: de::Error>(self, flag: bool) -> Result<bool, E> {
            Ok(flag)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            match text {
                // `?full` alone is a flag that is set.
                "true" | "1" | "" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_any(Flag)
}

/// A name and the id behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// For people; it can change.
    pub name: String,
    /// In full; it never changes.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::settings::{ListDocuments, SetFields};

    #[test]
    fn a_flag_is_read_from_a_body_and_from_a_query() {
        for (value, expected) in [(json!(true), true), (json!(""), true), (json!("0"), false)] {
            let read: ListDocuments = serde_json::from_value(json!({"full": value})).unwrap();
            assert_eq!(read.full, expected);
        }
        assert!(serde_json::from_value::<ListDocuments>(json!({"full": "maybe"})).is_err());
    }

    #[test]
    fn a_field_that_no_operation_has_is_named() {
        let request = json!({"path": "a", "sett": {}});
        let error = serde_json::from_value::<SetFields>(request).unwrap_err().to_string();
        assert!(error.contains("`sett`") && error.contains("`set`"), "{error}");
    }
}
