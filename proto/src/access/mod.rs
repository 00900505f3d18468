//! Who may do what on this agent.
//!
//! An operation says which [`Right`] it needs: a verb on a resource, such as `settings.modify` on
//! `/settings/storage/nas1`. A [`Policy`] grants roles, which are sets of verbs, on paths. [`decide`]
//! is the one door: it is asked once for each call, and for each item of a list or a stream, and gives
//! its reason in words.
//!
//! For now a policy grants to users of the host alone. Root and the agent's own user may do all; what
//! one group and everyone else may is granted like anything else. The caller is what the kernel says
//! of the other end of the socket, so there is no password to check and nothing to guess.

mod caller;
mod decision;
mod policy;
mod right;

#[cfg(test)]
mod tests;

pub use caller::{Asker, Caller, Forwarded, Process, Proof, User};
pub use decision::{Decision, Ground, Refusal, decide};
pub use policy::{Grant, Host, Policy, Role, Subject};
pub use right::{Area, Deed, Resource, Right, Verb};
