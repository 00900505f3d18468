//! Worlds of cores: the rules of `peerage-proto` under every trouble that a seed can think of.
//!
//! A [`World`] is a few hosts with disks, clocks and wires in memory. Its seed determines every
//! event: what operators write, which messages are lost, doubled, late or out of order, which hosts
//! are cut off, killed, rolled back or destroyed. The promises of [`promise::Promise`] are checked
//! after each event; when all trouble has ended the members must agree with each other, and with a
//! [`reference`] that knows only what the writers wrote.

pub mod crowd;
pub mod dice;
pub mod disk;
pub mod flaw;
pub mod host;
pub mod ledger;
pub mod log;
pub mod network;
pub mod process;
pub mod promise;
pub mod reference;
pub mod spread;
pub mod world;

pub use flaw::Flaw;
pub use promise::{Broken, Promise};
pub use world::{Outcome, World};
