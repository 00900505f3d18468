//! What happens on this node, told to its followers: changes of settings and all other events, each
//! once and in one order.

mod happening;
mod ring;

pub use happening::{Happening, reason};
pub use ring::{Feed, Following, Next, NoPlace, Numbered};
