//! The harness of peerage's tests: real agents as processes, seen from outside.
//!
//! A test starts agents ([`Agent`], [`Fleet`]), talks with them over their sockets ([`Client`]) or
//! by the command line ([`Ran`]), and waits for states with a bound ([`eventually`]). Every agent
//! has a temporary folder and a port of its own, dies with the test that started it, and shows the
//! end of its log when that test fails. None of this knows the agent's code: only its contract.
//!
//! [`netlab`] gives agents hosts of their own, on networks that can be cut.
//! [`hosts`] does the same with whole hosts under systemd, on which the package is installed.
//!
//! Beside it stands [`sim`], which runs the rules alone, without agents, through thousands of
//! worlds that go wrong.

pub mod agent;
pub mod arguments;
pub mod binary;
pub mod client;
pub mod command;
pub mod faketime;
pub mod figures;
pub mod fleet;
pub mod hosts;
pub mod netlab;
pub mod patience;
pub mod process;
pub mod sim;
pub mod skip;
pub mod soak;
pub mod strangers;
pub mod table;
pub mod users;
pub mod verdicts;

pub use agent::Agent;
pub use client::{Client, Failure};
pub use command::Ran;
pub use fleet::Fleet;
pub use netlab::{Lab, Layout};
pub use patience::eventually;
pub use skip::skipped;
pub use verdicts::Verdicts;
