//! The rules of peerage: what a Data Center is, who belongs to it, what was decided in it.
//!
//! This crate decides and never acts. It has no sockets, files, threads, clocks or randomness of
//! its own (`clippy.toml` bans them): time comes in as [`time::Now`], random numbers as arguments,
//! and what is to be stored or sent goes out as values. So the same rules run in the agent and,
//! thousands of times a minute, in a simulation that replays from a seed.
//!
//! Which module uses which is written in the test `directions` of the workspace, which holds it so.

pub mod access;
pub mod address;
pub mod admission;
pub mod allowance;
pub mod api;
pub mod backoff;
pub mod bulk;
pub mod codec;
pub mod departure;
pub mod door;
pub mod id;
pub mod identity;
pub mod invitation;
pub mod isolation;
pub mod links;
pub mod liveness;
pub mod notice;
pub mod repeats;
pub mod replica;
pub mod roster;
pub mod skew;
pub mod text;
pub mod time;
pub mod values;
pub mod vitals;
pub mod wire;
