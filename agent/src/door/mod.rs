//! Who gets past this node's door: joiners and members that dial it, and what each side shows the
//! other about who belongs.

mod evidence;
pub mod gate;
mod refused;
pub mod seed;
mod twins;
pub mod unattended;
