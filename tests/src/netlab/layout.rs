//! What a lab consists of, and the commands that build it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::namespace::Namespace;

/// The most hosts of a lab: their numbers are the last two bytes of their addresses.
const HOSTS_MAX: usize = 1_000;

/// Up to so many hosts find each other as real hosts do. The kernel keeps 1,024 neighbours in all
/// its namespaces together, so that in a larger lab hosts are told where their neighbours are.
const NEIGHBOURS_FOUND_MAX: usize = 16;

/// The families of addresses that hosts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

/// How many hosts there are, on how many networks, with which addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How many hosts.
    pub hosts: usize,
    /// How many networks; each host has a port on every one.
    pub networks: usize,
    /// Which addresses.
    pub families: Families,
}

impl Layout {
    /// Hosts on one network, with IPv4 and IPv6.
    ///
    /// # Panics
    /// Beyond 1,000 hosts.
    pub fn of(hosts: usize) -> Self {
        assert!(hosts <= HOSTS_MAX, "a lab holds {HOSTS_MAX} hosts");
        Self { hosts, networks: 1, families: Families::Both }
    }

    /// With as many networks.
    #[must_use]
    pub fn networks(self, networks: usize) -> Self {
        Self { networks, ..self }
    }

    /// With these addresses.
    #[must_use]
    pub fn families(self, families: Families) -> Self {
        Self { families, ..self }
    }

    /// The addresses of the host with this number, network by network.
    pub(super) fn addresses(&self, number: u16) -> Vec<IpAddr> {
        (0..self.networks).flat_map(|network| self.on(network, number)).collect()
    }

    fn on(&self, network: usize, number: u16) -> Vec<IpAddr> {
        let network = u8::try_from(network).expect("a lab has few networks");
        let [high, low] = number.to_be_bytes();
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 77 + network, high, low));
        let v6 = Ipv6Addr::new(0xfd77, u16::from(network), 0, 0, 0, 0, 0, number);
        match self.families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6.into()],
            Families::Both => vec![v4, v6.into()],
        }
    }

    /// The commands that build the bridges and the cables to the hosts.
    pub(super) fn switch_commands(&self, hosts: &[Arc<Namespace>]) -> String {
        let mut commands = String::from("link set lo up\n");
        for network in 0..self.networks {
            // Without the tree protocol a port forwards at once; without snooping IPv6 finds its
            // neighbours by multicast as on a plain switch.
            line(
                &mut commands,
                format_args!(
                    "link add br{network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                ),
            );
            line(&mut commands, format_args!("link set br{network} up"));
            for (host, namespace) in hosts.iter().enumerate() {
                let (port, path) = (port(network, host), namespace.path());
                let (card, mac) = (card(network), mac(network, host));
                line(
                    &mut commands,
                    format_args!(
                        "link add {port} type veth peer name {card} address {mac} netns {path}"
                    ),
                );
                line(&mut commands, format_args!("link set {port} master br{network} up"));
            }
        }
        commands
    }

    /// The commands that bring a host's cards up, with their addresses.
    pub(super) fn host_commands(&self, number: u16) -> String {
        let mut commands = String::new();
        for network in 0..self.networks {
            line(&mut commands, format_args!("link set {} up", card(network)));
            self.address_commands(network, number, &mut commands);
        }
        commands
    }

    /// The commands that give a host other addresses.
    pub(super) fn renumber_commands(&self, number: u16) -> String {
        let mut commands = String::new();
        for network in 0..self.networks {
            line(&mut commands, format_args!("addr flush dev {} scope global", card(network)));
            self.address_commands(network, number, &mut commands);
        }
        commands
    }

    /// The commands that tell another host where this one is, which has this number; empty where
    /// hosts find each other.
    pub(super) fn neighbour_commands(&self, host: usize, number: u16) -> String {
        let mut commands = String::new();
        if self.hosts > NEIGHBOURS_FOUND_MAX {
            for network in 0..self.networks {
                let (card, mac) = (card(network), mac(network, host));
                for address in self.on(network, number) {
                    line(
                        &mut commands,
                        format_args!(
                            "neigh replace {address} lladdr {mac} dev {card} nud permanent"
                        ),
                    );
                }
            }
        }
        commands
    }

    fn address_commands(&self, network: usize, number: u16, commands: &mut String) {
        for address in self.on(network, number) {
            // An address is used at once: nobody else has it, so nobody needs to be asked.
            let (bits, at_once) = if address.is_ipv6() { (64, " nodad") } else { (16, "") };
            let card = card(network);
            line(commands, format_args!("addr add {address}/{bits} dev {card}{at_once}"));
        }
    }
}

/// The number with which the addresses of a host end at first.
pub(super) fn first_number(host: usize) -> u16 {
    u16::try_from(host + 1).expect("hosts are bounded")
}

/// A host's port on a network's bridge.
pub(super) fn port(network: usize, host: usize) -> String {
    format!("n{network}h{host}")
}

/// The commands that make a host's card send each packet by itself.
pub(super) fn unbatched_commands(network: usize) -> String {
    format!("link set {} gso_max_segs 1\n", card(network))
}

/// The commands that make a host's card take no larger packets than these.
pub(super) fn card_mtu_commands(network: usize, bytes: u32) -> String {
    format!("link set {} mtu {bytes}\n", card(network))
}

/// A host's own end of the cable into a network.
fn card(network: usize) -> String {
    format!("eth{network}")
}

/// The hardware address of that end.
fn mac(network: usize, host: usize) -> String {
    let [high, low] = first_number(host).to_be_bytes();
    format!("02:77:00:{network:02x}:{high:02x}:{low:02x}")
}

fn line(commands: &mut String, command: std::fmt::Arguments<'_>) {
    writeln!(commands, "{command}").expect("text can be appended to");
}
