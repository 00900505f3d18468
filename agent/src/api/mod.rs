//! What the agent does for its callers, apart from the way by which they ask.
//!
//! An operation is served where its code is: `impl Serve<RenameMember> for Agent` in `roster.rs`.
//! The front ends (the socket today, HTTPS later) walk the table of
//! [`operations!`](peerage_proto::api::operations). [`admit`] checks the rights before an operation
//! is served, and [`Sight`] checks them for each item of its answer, so that no operation has to
//! think of them.

mod agent;
mod applying;
mod due;
mod failure;
mod invites;
mod links;
mod members;
mod reach;
mod rights;
mod room;
mod roster;
mod serve;
mod settings;
mod status;
mod streams;

pub use agent::Agent;
pub use due::{Due, List};
pub use rights::{Rights, Sight, admit};
pub use serve::{Answer, Form, Items, Reply, Serve, Step};
