//! How a node is let in by Join Information ([`crate::invitation`]): the frames of a join
//! ([`exchange`]), the member's verdict on a request ([`verdict`]), and why it says no ([`refusal`]).
//! A verdict is a function of the request and of what the member knows; it changes nothing.

pub mod exchange;
pub mod refusal;
pub mod verdict;
