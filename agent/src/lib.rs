//! The agent of peerage: the hands to the rules of `peerage_proto`.
//!
//! The same nouns as the rules, as tasks that each own their state: [`replica`], [`liveness`],
//! [`vitals`], [`admission`]. [`mesh`] and [`store`] are the world outside; [`membership`] carries
//! between them while the node belongs to a Data Center; [`node`] takes it in and out; [`api`] is
//! what can be asked of it, [`http`] and [`cli`] how; [`daemon`] puts it all together.

pub mod admission;
pub mod again;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod events;
mod evidence;
pub mod gate;
pub mod happening;
pub mod http;
pub mod joining;
pub mod label;
pub mod links;
pub mod liveness;
pub mod log;
pub mod machine;
pub mod membership;
pub mod mesh;
pub mod node;
pub mod notices;
pub mod past;
pub mod receipts;
pub mod repeats;
pub mod replica;
pub mod resolver;
pub mod seed;
pub mod signals;
pub mod store;
pub mod supervision;
pub mod sync;
pub mod timekeeping;
pub mod twins;
pub mod unattended;
pub mod vitals;

#[cfg(test)]
mod tests;
