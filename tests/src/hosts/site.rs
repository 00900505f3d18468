//! Several hosts on one network, with the package installed on each.

use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::host::Host;
use super::kit::Kit;
use crate::fleet::DATA_CENTER;
use crate::netlab::{Lab, Layout};
use crate::patience::{LATER, eventually};

/// Hosts `pve-1` to `pve-N`. It reads as a slice of them.
#[derive(Debug)]
pub struct Site {
    hosts: Vec<Host>,
    // The last field, so that the network outlives the hosts that are on it.
    network: Lab,
}

impl Site {
    /// Hosts that are off, with nothing installed.
    pub fn built(kit: &Kit, hosts: usize) -> Self {
        let network = Lab::build(Layout::of(hosts)).expect("who can boot hosts can connect them");
        let host =
            |host: usize| Host::new(kit, &format!("pve-{}", host + 1), network.host(host).clone());
        Self { hosts: (0..hosts).map(host).collect(), network }
    }

    /// Hosts that run, with nothing installed.
    pub fn booted(kit: &Kit, hosts: usize) -> Self {
        let mut site = Self::built(kit, hosts);
        site.power_on();
        site
    }

    /// Hosts that run the agent in one Data Center, founded by the first.
    pub fn founded(kit: &Kit, hosts: usize) -> Self {
        let mut site = Self::built(kit, hosts);
        site.power_on();
        site.found();
        site
    }

    /// Switches all on, and waits until they are up.
    pub fn power_on(&mut self) {
        self.hosts.iter_mut().for_each(Host::power_on);
        self.hosts.iter_mut().for_each(Host::up);
    }

    /// Installs the package on all, founds with the first, and lets the others join.
    pub fn found(&self) {
        self.at_once(Host::install);
        self[0].cli(&["create", DATA_CENTER]).exits(0);
        let token = self[0].cli(&["invite", "--uses", "any"]).exits(0).stdout;
        thread::scope(|scope| {
            for host in &self.hosts[1..] {
                scope.spawn(|| host.cli(&["join", token.trim(), "--yes"]).exits(0));
            }
        });
        self.all_see_all();
    }

    /// Does the same on all hosts at the same time.
    pub fn at_once(&self, act: impl Fn(&Host) + Sync) {
        thread::scope(|scope| {
            for host in &self.hosts {
                scope.spawn(|| act(host));
            }
        });
    }

    /// The network that they share.
    pub fn network(&mut self) -> &mut Lab {
        &mut self.network
    }

    /// Waits until every host sees every other one, and no more, alive.
    #[track_caller]
    pub fn all_see_all(&self) {
        eventually("all see all alive", LATER, || {
            self.each(|host| {
                let status = host.client().get("status").unwrap_or_default();
                let members = &status["members"];
                let all = members["alive"] == self.len();
                let done = all && members["suspect"] == 0 && members["down"] == 0;
                if done { Ok(()) } else { Err(members.clone()) }
            })
        });
    }

    /// Waits until all others see a member in one of these states.
    #[track_caller]
    pub fn all_see(&self, name: &str, states: &[&str], bound: Duration) {
        eventually(&format!("all see {name} {}", states.join(" or ")), bound, || {
            self.each(|host| {
                // The host that is looked at may not be able to answer.
                if host.name() == name {
                    return Ok(());
                }
                let state = host.state_of(name);
                if states.contains(&state.as_str()) { Ok(()) } else { Err(json!(state)) }
            })
        });
    }

    /// Waits until every host shows this document with these fields.
    #[track_caller]
    pub fn all_read(&self, path: &str, fields: &Value) {
        eventually(&format!("all read {path}"), LATER, || {
            self.each(|host| {
                let found = host.fields(path);
                if found == *fields { Ok(()) } else { Err(found) }
            })
        });
    }

    /// Looks at each host, and returns the names of those that are not as expected, with what was
    /// seen.
    fn each(&self, look: impl Fn(&Host) -> Result<(), Value>) -> Result<(), Vec<Value>> {
        let named = |host: &Host| look(host).err().map(|seen| json!([host.name(), seen]));
        let wrong: Vec<_> = self.hosts.iter().filter_map(named).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Deref for Site {
    type Target = [Host];

    fn deref(&self) -> &[Host] {
        &self.hosts
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut [Host] {
        &mut self.hosts
    }
}
