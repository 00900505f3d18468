//! The one form of every failure that a client sees, with its HTTP status and its exit code.

use serde::{Deserialize, Serialize};

/// Why something was not done: what happened, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind of failure, for programs.
    pub code: ErrorCode,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}

impl ApiError {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kinds of failure. A client takes one that it does not know as [`ErrorCode::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood; nothing was tried.
    BadRequest,
    /// The caller does not have the right.
    Forbidden,
    /// What the request names does not exist.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// A rule forbids it: a name is taken, an invitation has expired, the node is standalone.
    Refused,
    /// A rule forbids it unless the caller insists (`force`). The message says what would be lost.
    NeedsForce,
    /// The document changed since the caller looked (`If-Match`).
    Changed,
    /// The request is larger than a bound allows.
    TooLarge,
    /// There is no room left for what is to be written; the message says what takes the room.
    Full,
    /// It was tried and did not work, for a reason outside this agent.
    Failed,
    /// The agent is at its limit, or is stopping. The same request may succeed later.
    Busy,
    /// A fault of this agent.
    Internal,
    /// Told by a client, never by an agent: the agent cannot be reached.
    Unreachable,
    /// Told by a client, never by an agent: the write is done on this node, but has not reached the
    /// other nodes in time.
    NotReached,
    /// A kind that only a newer version knows.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Refused | Self::NeedsForce => 409,
            Self::Changed => 412,
            Self::TooLarge => 413,
            Self::Full => 507,
            Self::Failed => 502,
            Self::Busy => 503,
            Self::Internal | Self::Unreachable | Self::NotReached | Self::Unknown => 500,
        }
    }

    /// How a command ends with this failure.
    pub const fn exit(self) -> Exit {
        match self {
            Self::BadRequest | Self::MethodNotAllowed => Exit::Usage,
            Self::NotFound => Exit::NotFound,
            Self::Forbidden
            | Self::Refused
            | Self::NeedsForce
            | Self::Changed
            | Self::TooLarge
            | Self::Full => Exit::Refused,
            Self::Unreachable => Exit::Unreachable,
            Self::NotReached => Exit::NotReached,
            Self::Failed | Self::Busy | Self::Internal | Self::Unknown => Exit::Failed,
        }
    }
}

/// How a command ends. Scripts rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command did what it was asked.
    Done = 0,
    /// The command was tried and failed.
    Failed = 1,
    /// The command line or the request makes no sense.
    Usage = 2,
    /// There is no such document, field, node or invitation.
    NotFound = 3,
    /// The caller lacks the right, or a rule forbids it.
    Refused = 4,
    /// No agent answers on the socket.
    Unreachable = 5,
    /// The write is done on this node, but has not reached the nodes that `--wait` asked for in
    /// time.
    NotReached = 6,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_has_three_members_always() {
        let error = ApiError::new(ErrorCode::NotFound, "there is no node \"x\"");
        let text = serde_json::to_value(&error).unwrap();
        assert_eq!(
            text,
            json!({"code": "not_found", "message": "there is no node \"x\"", "hint": null})
        );
    }

    #[test]
    fn what_gives_way_to_force_is_told_apart_and_ends_as_any_refusal() {
        let code = serde_json::to_value(ErrorCode::NeedsForce).unwrap();
        assert_eq!(code, json!("needs_force"));
        let ends = (ErrorCode::NeedsForce.exit(), ErrorCode::NeedsForce.http_status());
        assert_eq!(ends, (Exit::Refused, 409));
    }

    #[test]
    fn a_code_of_a_newer_version_is_a_failure() {
        let text = json!({"code": "quota", "message": "full", "hint": "wait", "more": 1});
        let error: ApiError = serde_json::from_value(text).unwrap();
        assert_eq!(error.code, ErrorCode::Unknown);
        assert_eq!(error.code.exit(), Exit::Failed);
    }
}
