//! This machine: its clock, its identity, its configuration, its log and its network interfaces. What
//! this room promises: the rest of the agent gets each of these from here, so that a test can hand in
//! another.

pub mod clock;
pub mod config;
pub mod links;
pub mod log;
pub mod machine;
