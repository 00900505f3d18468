//! How a host becomes a member. The member that is asked lets the host in (`admit`), and the host
//! takes over the data of the Data Center ([`join`]). [`past`] keeps how an earlier membership
//! ended.

mod admit;
mod dialling_back;
mod exchange;
pub mod join;
mod judging;
pub mod past;
mod pending;
mod replacing;
mod standalone;
mod surroundings;
mod uses;

pub use admit::{Admitter, Refusals};
pub use exchange::{AdmissionError, binding};
pub use pending::Pending;
pub use standalone::refuse_as_standalone;
pub use surroundings::{Presence, Surroundings};
pub use uses::answer;
