//! The words and codes in which callers hear of failures of the agent's parts.

use std::sync::Arc;

use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::invitation::TokenError;
use peerage_proto::replica::{Full, NameError, WriteError};
use peerage_proto::roster::ResolveError;

use crate::admission::join::JoinError;
use crate::feed::NoPlace;
use crate::membership::Membership;
use crate::membership::timekeeping::CLOCK_HINT;
use crate::node::{MeetError, NAMELESS_HINT, Node, NodeError, TWIN_HINT};
use crate::replica::{Untransacted, WriteFailure};

/// The membership, for operations that need a Data Center.
///
/// # Errors
/// The answer of a node that is in no Data Center.
pub(super) fn member(node: &Node) -> Result<Arc<Membership>, ApiError> {
    node.membership().ok_or_else(|| match node.notice().filter(|_| node.has_twin()) {
        Some(notice) => ApiError::new(ErrorCode::Refused, notice.message).hint(notice.hint),
        None => standalone(),
    })
}

/// The answer of a node that is in no Data Center.
pub(super) fn standalone() -> ApiError {
    ApiError::new(ErrorCode::Refused, "this node is in no Data Center")
        .hint("found one (`peerage create NAME`) or join one (`peerage join`) first")
}

/// The answer to a name, path or field that does not fit.
pub(super) fn bad_name(error: &NameError) -> ApiError {
    let code = match error {
        NameError::TooLong { .. } => ErrorCode::TooLarge,
        NameError::Reserved => ErrorCode::Refused,
        _ => ErrorCode::BadRequest,
    };
    ApiError::new(code, error.to_string())
}

pub(super) fn unresolved(error: &ResolveError) -> ApiError {
    let code = match error {
        ResolveError::Nobody(_) => ErrorCode::NotFound,
        ResolveError::Ambiguous { .. } => ErrorCode::BadRequest,
    };
    ApiError::new(code, error.to_string()).hint("`peerage members` lists names and ids")
}

pub(super) fn no_place(error: &NoPlace) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.to_string())
        .hint("read the state anew, then follow without an id")
}

pub(super) fn not_transacted(why: Untransacted<ApiError>) -> ApiError {
    match why {
        Untransacted::Decided(error) => error,
        Untransacted::Failed(failure) => not_written(failure),
    }
}

pub(super) fn not_written(failure: WriteFailure) -> ApiError {
    let message = failure.to_string();
    match failure {
        WriteFailure::Rule(rule) => {
            let (code, hint) = match rule {
                WriteError::NoDocument(_) | WriteError::NoField { .. } => {
                    (ErrorCode::NotFound, "`peerage settings list` shows what there is")
                }
                WriteError::Changed { .. } => {
                    (ErrorCode::Changed, "read it again, and write with the ETag that it has now")
                }
                WriteError::Twice(_) => {
                    (ErrorCode::BadRequest, "put all fields of a document together")
                }
                WriteError::Bound { .. } => {
                    (ErrorCode::TooLarge, "write less, or part it into several documents")
                }
                WriteError::Full(full) => {
                    return ApiError::new(ErrorCode::Full, message).hint(way_out(&full));
                }
            };
            ApiError::new(code, message).hint(hint)
        }
        WriteFailure::Clock(_) => ApiError::new(ErrorCode::Refused, message).hint(CLOCK_HINT),
        WriteFailure::Disk(_) => ApiError::new(ErrorCode::Failed, message)
            .hint("look at the disk of the agent's data folder, and at its journal"),
        WriteFailure::Stopping => ApiError::new(ErrorCode::Busy, message),
    }
}

/// What the operator can do so that there is room again.
fn way_out(full: &Full) -> String {
    if full.path.is_reserved() {
        return "members can be removed, and whatever is there can be changed; nothing can be \
                added"
            .to_owned();
    }
    let largest = full.largest.first().map(|holder| holder.largest.to_string());
    format!(
        "take away what is not needed: `peerage settings unset {}`, or fields of it; that is \
         always possible, as is what makes a document smaller. `peerage status` shows what lives, \
         and `peerage settings compact` gives the disk's room back",
        largest.as_deref().unwrap_or("PATH")
    )
}

pub(super) fn not_turned(error: NodeError) -> ApiError {
    let message = error.to_string();
    match error {
        NodeError::AlreadyMember { .. } => ApiError::new(ErrorCode::Refused, message)
            .hint("`peerage leave` first, if it is to belong to another"),
        NodeError::Twin(_) => ApiError::new(ErrorCode::Refused, message).hint(TWIN_HINT),
        NodeError::StillMember { .. } => ApiError::new(ErrorCode::Refused, message)
            .hint("`peerage leave` first; then reset its identity, if that is still wanted"),
        NodeError::Loss(loss) => ApiError::new(ErrorCode::NeedsForce, message).hint(loss.hint()),
        NodeError::NoKeyPlace => ApiError::new(ErrorCode::Refused, message),
        NodeError::Standalone => standalone(),
        NodeError::Nameless(_) => ApiError::new(ErrorCode::Refused, message).hint(NAMELESS_HINT),
        NodeError::Name(_) => ApiError::new(ErrorCode::BadRequest, message),
        NodeError::Token(TokenError::Password) => ApiError::new(ErrorCode::Refused, message)
            .hint("`peerage invite --no-secret` printed it beside the string"),
        NodeError::Token(_) => ApiError::new(ErrorCode::BadRequest, message)
            .hint("`peerage invite` on any member prints a string to paste"),
        NodeError::PasswordNeeded => ApiError::new(ErrorCode::Refused, message)
            .hint("give the password that `peerage invite --no-secret` printed"),
        NodeError::Join(JoinError::Refused { refusal, .. }) => {
            ApiError::new(ErrorCode::Refused, message).hint(refusal.hint())
        }
        NodeError::Join(JoinError::Unreachable { .. }) => ApiError::new(ErrorCode::Failed, message)
            .hint(
                "check that one of these hosts is up and lets UDP in at that port, or make new \
                 Join Information on a member that is; then paste it here",
            ),
        NodeError::Join(JoinError::Disk { error, .. }) => {
            ApiError::new(ErrorCode::Failed, message).hint(error.remedy())
        }
        NodeError::Join(JoinError::BrokeOff(_)) => {
            ApiError::new(ErrorCode::Failed, message).hint("paste the same string again")
        }
        NodeError::Meet(MeetError::Refused { .. }) => ApiError::new(ErrorCode::Refused, message)
            .hint("its `peerage status`, and this node's, tell more"),
        NodeError::Meet(MeetError::OnlyItself) => ApiError::new(ErrorCode::Refused, message)
            .hint("`peerage invite` on one of the others prints what to paste here"),
        NodeError::Meet(MeetError::Unreachable(_)) => ApiError::new(ErrorCode::Failed, message)
            .hint(
                "check that one of these hosts is up and lets UDP in at that port, or make new \
                 Join Information on a member that is (`peerage invite`)",
            ),
        NodeError::Write(failure) => not_written(failure),
        NodeError::Rule(rule) => not_written(rule.into()),
        NodeError::PutAside(_) => ApiError::new(ErrorCode::Failed, message)
            .hint("it is tried again before this node founds or joins, and when the agent starts"),
        NodeError::Store(_) => ApiError::new(ErrorCode::Failed, message),
    }
}
