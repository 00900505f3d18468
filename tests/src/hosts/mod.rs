//! Real hosts: systemd as process 1 with its journal, each in a container of its own, on a network
//! of [`netlab`](crate::netlab). They install the package as an administrator would.
//!
//! A host boots in about a second, and can be rebooted, frozen, and lose its power. All hosts stand
//! on one shared image, which none of them changes. Everything is named by the process that made
//! it, and is taken away when it is dropped: mounts, control groups, processes.

mod cgroup;
mod disk;
mod host;
mod kit;
mod site;

pub use cgroup::Groups;
pub use disk::{Disk, Volume};
pub use host::Host;
pub use kit::Kit;
pub use site::Site;
