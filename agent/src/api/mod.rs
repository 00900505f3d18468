//! What the agent does for whoever asks, apart from how they ask.
//!
//! An operation is served where its code is: `impl Serve<RenameMember> for Agent` in `members.rs`. The
//! front ends (the socket today, HTTPS later) walk the table of
//! [`operations!`](peerage_proto::api::operations). The rights are asked for by [`admit`], once,
//! before an operation is served, so that none has to think of them.

mod agent;
mod applying;
mod due;
mod failure;
mod invites;
mod links;
mod members;
mod reach;
mod room;
mod serve;
mod settings;
mod status;
mod streams;

use peerage_proto::access::{self, Caller, Policy};
use peerage_proto::api::{ApiError, ErrorCode, Operation};

pub use agent::Agent;
pub use due::{Due, List};
pub use serve::{Answer, Form, Items, Reply, Serve, Step};

/// Asks whether the caller may use this operation.
///
/// # Errors
/// [`ErrorCode::Forbidden`], with the way to get the right.
pub fn admit<O: Operation>(policy: &Policy, caller: &Caller) -> Result<(), ApiError> {
    access::decide(policy, caller, O::ACTION)
        .map_err(|denied| ApiError::new(ErrorCode::Forbidden, denied.to_string()).hint(denied.hint))
}
