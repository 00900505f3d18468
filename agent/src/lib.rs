//! The agent of peerage: the hands to the rules of `peerage_proto`.

pub mod clock;
pub mod mesh;
pub mod replica;
