//! What can be asked of an agent: one type per operation, shared by the server and its clients.
//!
//! An operation is a struct whose fields are all that it takes. The constants of the operation say
//! where each field travels, so a client and a server cannot disagree about it:
//!
//! - a field named in [`Operation::PATH`] is part of the URL, percent-encoded;
//! - `if_match` and `last_event_id` are the HTTP headers of those names;
//! - with GET and DELETE, and where [`Operation::QUERY`] names it, a field is part of the query;
//! - every other field is a member of the JSON object in the body.
//!
//! Outputs are plain: ids, stamps and times are strings, and an unknown value is `null`. Clients
//! accept outputs with fields that they do not know, so that an older CLI can talk to a newer
//! agent. The server refuses requests with fields that it does not know, so that a misspelt field
//! is noticed.

pub mod apply;
pub mod error;
pub mod events;
pub mod invites;
pub mod links;
pub mod members;
pub mod node;
mod operation;
pub mod settings;
pub mod span;
mod table;
pub mod wait;

use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

pub use crate::operations;
pub use crate::replica::composed;
pub use crate::time::HowLong;
pub use crate::{text, values};
pub use error::{ApiError, ErrorCode, Exit};
pub use operation::{
    Ends, Item, Kind, Large, Listed, Method, Operation, Output, Part, Shape, Streamed, Whole,
};
pub use span::Span;
pub use wait::{Wait, WaitOutcome};

/// The beginning of all paths of this version.
pub const ROOT: &str = "/api/v1/";

/// The field, and HTTP header `If-Match`, that makes a write conditional.
pub const IF_MATCH: &str = "if_match";

/// The field, and HTTP header `Last-Event-ID`, from which a stream resumes.
pub const LAST_EVENT_ID: &str = "last_event_id";

/// How long an operation that only looks may take: the agent answers it from memory.
pub const LOOKING_MAX: Duration = Duration::from_secs(10);

/// How long an operation that writes may take: a faulty disk answers only after its own timeout of
/// half a minute.
pub const WRITING_MAX: Duration = Duration::from_secs(60);

/// How long a write waits for other nodes if its request gives no timeout.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// How large the body of a request may be, in bytes: twice the largest document.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How long the path of a socket may be, in bytes: Linux keeps 108, the last for a zero (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

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
    /// The name, for people; it can change.
    pub name: String,
    /// The id, in full; it never changes.
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
