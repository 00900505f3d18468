//! The agent of peerage: the hands to the rules of `peerage_proto`.

pub mod clock;
pub mod replica;
//! The agent of peerage.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod http;
pub mod log;

#[cfg(test)]
mod tests;
