//! This machine: its clock, its identity, its configuration, its log and its network interfaces.

pub mod clock;
pub mod config;
pub mod links;
pub mod log;
pub mod machine;
