//! What happens on this node, for those who follow it: changes of settings and all other events, each
//! told once and in one order.

mod happening;
mod ring;

pub use happening::{Happening, reason};
pub use ring::{Feed, Following, Next, NoPlace, Numbered};
