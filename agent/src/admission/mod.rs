//! How a host becomes a member: the member that is asked lets it in ([`admit`]), and the host that
//! asks takes the Data Center over ([`join`]). [`past`] keeps how an earlier membership ended.

pub mod admit;
mod dialling_back;
pub mod join;
pub mod past;

pub use admit::{
    AdmissionError, Admitter, Pending, Presence, Refusals, Surroundings, answer, answer_uses,
    binding, refuse_as_standalone,
};
pub use dialling_back::DIAL_BACK_TIMEOUT;
