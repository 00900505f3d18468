//! The agent of peerage: the hands to the rules of `peerage_proto`.
//!
//! The same nouns as the rules, as rooms whose tasks each own their state. [`store`], [`mesh`],
//! [`host`] and [`resolver`] are the world outside; [`replica`], [`feed`], [`admission`] and
//! [`notices`] stand on them; [`membership`] carries between them while the node belongs to a Data
//! Center; [`node`] takes it in and out, and [`door`] says who gets past it; [`api`] is what can be
//! asked of the node, [`http`] and [`cli`] how; [`daemon`] puts it all together, and [`demo`] shows it.

pub mod admission;
pub mod api;
pub mod cli;
pub mod daemon;
pub mod demo;
pub mod door;
pub mod feed;
pub mod host;
pub mod http;
pub mod membership;
pub mod mesh;
pub mod node;
pub mod notices;
pub mod repeats;
pub mod replica;
pub mod resolver;
pub mod store;

#[cfg(test)]
mod tests;
