//! The agent of peerage: the hands to the rules of `peerage_proto`.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod http;
pub mod log;
pub mod replica;

#[cfg(test)]
mod tests;
