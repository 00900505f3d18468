//! Who gets past this node's door: joiners and members that dial it, and what each side shows the
//! other about who belongs. What this room promises: nothing is believed of a caller that it cannot
//! prove. [`unattended`] is the other direction: a host that was set up to join goes to a door itself.

mod evidence;
pub mod gate;
mod refused;
pub mod seed;
mod twins;
pub mod unattended;
