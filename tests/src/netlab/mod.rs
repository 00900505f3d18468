//! Hosts on networks that can be cut: each host a network namespace, each network a bridge.
//!
//! A [`Lab`] holds as many hosts as its [`Layout`] says, each with a port on every network. The
//! bridges stand in a namespace of their own, so that what goes wrong on the way ([`Trouble`])
//! shows to the hosts as it does in life: by silence. Agents start in a host by [`Lab::agent`], and
//! are talked with from outside, since a unix socket belongs to the file system.
//!
//! Namespaces have no names, only handles that this process holds: labs never meet, and the kernel
//! takes them down with the process, however it ends.

mod layout;
mod namespace;
mod trouble;

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

pub use layout::{Families, Layout};
pub use namespace::{LabError, Namespace};
pub use trouble::Trouble;

use crate::agent::Agent;
use crate::patience::{POLL, SOON};
use crate::skip::skipped;

/// Hosts and networks. All goes with the value, but for agents that still run in it.
#[derive(Debug)]
pub struct Lab {
    layout: Layout,
    /// Where the bridges stand.
    switch: Arc<Namespace>,
    hosts: Vec<Arc<Namespace>>,
    /// What the hosts' addresses end with, by host.
    numbers: Vec<u16>,
    troubles: Vec<Trouble>,
}

impl Lab {
    /// A lab; where this machine cannot have one the test is said to be skipped.
    ///
    /// # Panics
    /// When a lab could be begun here and then not be built.
    pub fn built(layout: Layout) -> Option<Self> {
        match Self::build(layout) {
            Ok(lab) => Some(lab),
            Err(error @ LabError::Unavailable(_)) => {
                skipped(&error.to_string());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A lab whose hosts reach each other.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where this machine cannot have one.
    pub fn build(layout: Layout) -> Result<Self, LabError> {
        namespace::find_tool("ip", "iproute2")?;
        namespace::find_tool("nft", "nftables")?;
        let switch = Namespace::new()?;
        let hosts = (0..layout.hosts).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>()?;
        switch.ip(&layout.switch_commands(&hosts))?;
        let numbers = (0..layout.hosts).map(layout::first_number).collect();
        let lab = Self { layout, switch, hosts, numbers, troubles: Vec::new() };
        for (host, namespace) in lab.hosts.iter().enumerate() {
            namespace.ip("link set lo up\n")?;
            namespace.ip(&lab.layout.host_commands(lab.numbers[host]))?;
        }
        for host in 0..layout.hosts {
            lab.introduce(host)?;
        }
        lab.wait_for_cables()?;
        Ok(lab)
    }

    /// Tells a host where the others are, where it does not find them itself.
    fn introduce(&self, host: usize) -> Result<(), LabError> {
        let others = self.numbers.iter().enumerate().filter(|(other, _)| *other != host);
        let commands = others.map(|(other, number)| self.layout.neighbour_commands(other, *number));
        self.hosts[host].ip(&commands.collect::<String>())
    }

    /// Waits until the kernel has seen every cable plugged in: what is sent before is lost.
    fn wait_for_cables(&self) -> Result<(), LabError> {
        let deadline = Instant::now() + SOON;
        while self.switch.cards_up()? < self.layout.hosts * self.layout.networks {
            if Instant::now() > deadline {
                return Err(LabError::Failed(format!("cables were not up within {SOON:?}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The network namespace of a host.
    pub fn host(&self, host: usize) -> &Arc<Namespace> {
        &self.hosts[host]
    }

    /// The addresses of a host, network by network, IPv4 first.
    pub fn addresses(&self, host: usize) -> Vec<IpAddr> {
        self.layout.addresses(self.numbers[host])
    }

    /// An agent on a host, which does not run yet: `pve-1` on the first one. It listens at the
    /// default address.
    pub fn agent(&self, host: usize) -> Agent {
        Agent::named(&format!("pve-{}", host + 1)).in_network(&self.hosts[host])
    }

    /// Lets something go wrong, beside what goes wrong already.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
        self.apply();
    }

    /// Splits the hosts: those of one side reach each other and nobody else. A host that is in no
    /// side reaches all.
    pub fn partition(&mut self, sides: &[&[usize]]) {
        self.trouble(Trouble::Split(sides.iter().map(|side| side.to_vec()).collect()));
    }

    /// Ends all that [`Lab::trouble`] and [`Lab::partition`] began. Ports that were taken down stay
    /// down.
    pub fn heal(&mut self) {
        self.troubles.clear();
        self.apply();
    }

    /// Pulls the cable of a host out of a network.
    pub fn cut_link(&self, host: usize, network: usize) {
        self.set_port(host, network, "down");
    }

    /// Puts the cable back in.
    pub fn restore_link(&self, host: usize, network: usize) {
        self.set_port(host, network, "up");
    }

    /// Makes a network lose all packets from and to a host that are larger than this, in bytes of
    /// IP. They are lost without a word, as on a tunnel whose router tells nobody. The host itself
    /// does not learn of it.
    pub fn narrow(&self, host: usize, network: usize, bytes: u32) {
        // A batch of packets that a host hands over at once would pass as one packet, however
        // large.
        for namespace in &self.hosts {
            let done = namespace.ip(&layout::unbatched_commands(network));
            done.expect("a card sends packet by packet");
        }
        let port = layout::port(network, host);
        let done = self.switch.ip(&format!("link set {port} mtu {bytes}\n"));
        done.expect("a port takes an MTU");
    }

    /// Tells the host itself of the limit of [`Lab::narrow`], or that it is gone: the host's card
    /// takes no larger packets, and says so to the program that sends one.
    pub fn narrow_card(&self, host: usize, network: usize, bytes: u32) {
        let done = self.hosts[host].ip(&layout::card_mtu_commands(network, bytes));
        done.expect("a card takes an MTU");
    }

    /// Gives a host other addresses, which end with `number` in place of the one it had.
    ///
    /// # Panics
    /// When another host has that number.
    pub fn renumber(&mut self, host: usize, number: u16) {
        assert!(!self.numbers.contains(&number), "{number} is another host's");
        self.numbers[host] = number;
        let done = self.hosts[host].ip(&self.layout.renumber_commands(number));
        done.expect("a host takes other addresses");
        let done = (0..self.hosts.len()).try_for_each(|host| self.introduce(host));
        done.expect("hosts are told of a neighbour");
    }

    fn set_port(&self, host: usize, network: usize, state: &str) {
        let port = layout::port(network, host);
        let done = self.switch.ip(&format!("link set {port} {state}\n"));
        done.expect("a port goes up and down");
    }

    fn apply(&self) {
        let rules = trouble::rules(&self.troubles, self.layout.networks);
        self.switch.nft(&rules).expect("the bridges take rules");
    }
}
