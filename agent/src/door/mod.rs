//! Who gets past this node's door: joiners and members that dial it, and what each side shows the
//! other about who belongs.

pub mod evidence;
pub mod gate;
mod refused;
pub mod seed;
pub mod twins;
pub mod unattended;
