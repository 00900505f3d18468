//! HTTP in front of an [`Agent`](crate::api::Agent).
//!
//! One router serves every listener. Today there is one, a unix socket whose callers the kernel
//! names. It promises: a request is bounded before it is read; the rights are checked before the
//! agent is asked; every failure, also that there is no place, is `{"code","message","hint"}`; and
//! no user of the host can keep the others out. The memory for bodies and answers is bounded, and a
//! caller that does not send or does not read is not waited for without end.

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
