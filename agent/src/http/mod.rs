//! HTTP in front of an [`Agent`](crate::api::Agent).
//!
//! One router serves every listener. Today there is one, a unix socket whose callers the kernel
//! names; what it promises: a request is bounded before it is read, the rights are asked before the
//! agent is, every failure is `{"code","message","hint"}`, also that there is no place, and no user
//! of the host can keep the others out. What is in memory of bodies and answers is bounded, and nobody
//! who does not send or does not read is waited for without end.

mod connections;
mod patient;
mod peer;
mod places;
mod request;
mod room;
mod router;
mod socket;
mod stream;
mod tell;

pub use connections::serve;
pub use router::router;
pub use socket::{BindError, Socket};
