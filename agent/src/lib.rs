//! The agent of peerage: the hands to the rules of `peerage_proto`.

pub mod clock;
pub mod liveness;
pub mod replica;
pub mod vitals;
