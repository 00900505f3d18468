//! The agent of peerage: the hands to the rules of `peerage_proto`.
//! The agent of peerage.

pub mod clock;
pub mod replica;
pub mod store;
