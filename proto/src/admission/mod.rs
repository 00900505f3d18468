//! How a node is let in: Join Information, the request of a joiner, and the verdict on it.

pub mod exchange;
pub mod refusal;
pub mod verdict;

pub use crate::invitation;
