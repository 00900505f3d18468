//! The addresses of this host's interfaces, in the order in which other hosts should try them.
//!
//! Addresses of private networks go before global ones: the hosts of a Data Center stand close to
//! each other, and traffic that leaves the site passes firewalls and costs money. Then come
//! addresses behind something: tunnels, shared address space (RFC 6598), and IPv6 addresses that
//! will soon go (RFC 4941). Last are bridges that carry guests of this host alone. Within one rank
//! IPv4 goes first, then the interface that the host has had for longer. A peer that cannot reach
//! the private network loses a fraction of a second at its first dial.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use peerage_proto::isolation::{Card, Network};
use peerage_proto::links::{ADDRESSES_MAX, is_reserved};

use super::guests::guest_bridges;

/// What the names of interfaces begin with that carry guests of this host and no other hosts: many
/// hosts have the same addresses there.
const INNER: [&str; 14] = [
    "docker",
    "virbr",
    "lxcbr",
    "lxdbr",
    "incusbr",
    "podman",
    "cni",
    "nerdctl",
    "kube-",
    "nodelocaldns",
    "flannel",
    "cilium",
    "vxlan.calico",
    "tunl",
];

/// What Docker calls a bridge: this, and so many hexadecimal digits.
const DOCKER_BRIDGE: (&str, usize) = ("br-", 12);

/// The table in which Linux gives the marks of each IPv6 address.
const IPV6_TABLE: &str = "/proc/net/if_inet6";

/// The marks of an IPv6 address in that table (`linux/if_addr.h`).
const TEMPORARY: u8 = 0x01;
const DUPLICATE: u8 = 0x08;
const DEPRECATED: u8 = 0x20;
const TENTATIVE: u8 = 0x40;

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// The name of its interface.
    pub interface: String,
    /// The interface's number: the higher, the later it came.
    index: u32,
    /// Whether it leads to one other host only, as a tunnel does.
    tunnel: bool,
    /// Whether it is a bridge that carries guests of this host and no cable.
    of_guests: bool,
    /// The marks of [`IPV6_TABLE`].
    marks: u8,
    /// Whether the interface is switched on and its cable leads somewhere.
    is_up: bool,
}

/// The addresses of this host that other hosts may reach, the best first, at most
/// [`ADDRESSES_MAX`]. None where the host has only its loopback.
pub fn host_addresses() -> Vec<HostAddress> {
    let marks = marks(&fs::read_to_string(IPV6_TABLE).unwrap_or_default());
    in_order(found(&marks).unwrap_or_default().into_iter())
}

/// The source addresses of this host's default routes, IPv4 first. Empty where the host has no such
/// route. Nothing is sent.
pub fn default_route_addresses() -> Vec<IpAddr> {
    let own = |any: IpAddr, far: SocketAddr| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(far)?;
        Ok(socket.local_addr()?.ip())
    };
    // Addresses for documentation (RFC 5737, RFC 3849), to which no other route leads.
    let v4 = own(Ipv4Addr::UNSPECIFIED.into(), (Ipv4Addr::new(203, 0, 113, 1), 9).into());
    let far = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1);
    let v6 = own(Ipv6Addr::UNSPECIFIED.into(), (far, 9).into());
    [v4, v6].into_iter().flatten().filter(|ip| !ip.is_loopback()).collect()
}

/// The state of this host's cards that have an address at which other hosts may reach it.
pub fn host_network() -> Network {
    // The marks of addresses are left out here: with them, a card without a cable might have no
    // usable address.
    let Ok(found) = found(&BTreeMap::new()) else { return Network::Unknown };
    network(found)
}

fn network(found: Vec<HostAddress>) -> Network {
    let mut cards: Vec<Card> = in_order(found.into_iter())
        .into_iter()
        .map(|address| Card { name: address.interface, is_up: address.is_up })
        .collect();
    cards.sort();
    cards.dedup();
    if cards.is_empty() { Network::Gone } else { Network::Cards(cards) }
}

fn found(marks: &BTreeMap<IpAddr, u8>) -> io::Result<Vec<HostAddress>> {
    let bridges = guest_bridges().unwrap_or_default();
    let address = |interface: if_addrs::Interface| HostAddress {
        ip: interface.ip().to_canonical(),
        of_guests: interface.index.is_some_and(|index| bridges.contains(&index)),
        index: interface.index.unwrap_or(u32::MAX),
        tunnel: interface.is_p2p(),
        marks: marks.get(&interface.ip()).copied().unwrap_or(0),
        is_up: interface.is_oper_up(),
        interface: interface.name,
    };
    Ok(if_addrs::get_if_addrs()?.into_iter().map(address).collect())
}

fn in_order(found: impl Iterator<Item = HostAddress>) -> Vec<HostAddress> {
    let mut reachable: Vec<_> = found.filter(is_reachable).collect();
    // A host whose only addresses are on such interfaces may be a guest itself, so it keeps them.
    if reachable.iter().any(|address| !is_inner(&address.interface)) {
        reachable.retain(|address| !is_inner(&address.interface));
    }
    reachable
        .sort_by_key(|address| (rank(address), address.ip.is_ipv6(), address.index, address.ip));
    let mut seen = BTreeSet::new();
    reachable.retain(|address| seen.insert(address.ip));
    reachable.truncate(ADDRESSES_MAX);
    reachable
}

fn is_reachable(address: &HostAddress) -> bool {
    let v4 = |ip: Ipv4Addr| {
        !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified() && !is_reserved(ip.into())
    };
    let v6 =
        |ip: Ipv6Addr| !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified();
    let usable = address.marks & (DUPLICATE | TENTATIVE) == 0;
    match address.ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip) && usable,
    }
}

fn is_inner(interface: &str) -> bool {
    let (start, digits) = DOCKER_BRIDGE;
    let hex = |rest: &str| rest.len() == digits && rest.chars().all(|c| c.is_ascii_hexdigit());
    INNER.iter().any(|start| interface.starts_with(start))
        || interface.strip_prefix(start).is_some_and(hex)
}

/// 0 is the best.
fn rank(address: &HostAddress) -> u8 {
    let shared = |ip: Ipv4Addr| ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    match address.ip {
        _ if address.of_guests => 4,
        IpAddr::V6(_) if address.marks & (TEMPORARY | DEPRECATED) != 0 => 3,
        _ if address.tunnel => 2,
        IpAddr::V4(ip) if shared(ip) => 2,
        IpAddr::V4(ip) if ip.is_private() => 0,
        IpAddr::V6(ip) if ip.is_unique_local() => 0,
        _ => 1,
    }
}

/// Reads the table: address, interface, prefix, scope, marks, name, all but the last in
/// hexadecimal. A line that does not read is left out.
fn marks(table: &str) -> BTreeMap<IpAddr, u8> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip = u128::from_str_radix(words.next()?, 16).ok()?;
        let marks = u8::from_str_radix(words.nth(3)?, 16).ok()?;
        Some((IpAddr::from(Ipv6Addr::from_bits(ip)), marks))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, interface: &str, index: u32) -> HostAddress {
        let ip = ip.parse().unwrap();
        let interface = interface.into();
        let (tunnel, of_guests, marks) = (false, false, 0);
        HostAddress { ip, interface, index, tunnel, of_guests, marks, is_up: true }
    }

    fn ordered(found: Vec<HostAddress>) -> Vec<String> {
        in_order(found.into_iter()).iter().map(|address| address.ip.to_string()).collect()
    }

    #[test]
    fn private_addresses_go_before_global_ones_and_tunnels_last() {
        let tunnel = HostAddress { tunnel: true, ..address("10.99.0.1", "wg0", 5) };
        let found = vec![
            tunnel,
            address("100.64.0.9", "cg0", 6),
            address("2001:db8::7", "eth0", 2),
            address("192.0.2.7", "eth0", 2),
            address("fd00::7", "eth1", 3),
            address("10.0.1.7", "eth2", 4),
            address("192.168.1.7", "eth1", 3),
        ];
        let expected = [
            "192.168.1.7",
            "10.0.1.7",
            "fd00::7",
            "192.0.2.7",
            "2001:db8::7",
            "10.99.0.1",
            "100.64.0.9",
        ];
        let mut turned = found.clone();
        turned.reverse();
        assert_eq!(ordered(found), expected);
        assert_eq!(ordered(turned), expected, "whatever order the kernel tells them in");
    }

    #[test]
    fn what_other_hosts_cannot_dial_is_left_out() {
        let tentative = HostAddress { marks: TENTATIVE, ..address("fd00::8", "eth0", 2) };
        let found = vec![
            address("127.0.0.1", "lo", 1),
            address("::1", "lo", 1),
            address("169.254.7.7", "eth0", 2),
            address("fe80::7", "eth0", 2),
            tentative,
            address("172.17.0.1", "docker0", 3),
            address("172.18.0.1", "br-0123456789ab", 4),
            address("192.168.122.1", "virbr0", 5),
            address("10.0.0.7", "br-lan", 6),
            address("10.0.0.8", "vmbr0", 7),
        ];
        assert_eq!(ordered(found), ["10.0.0.7", "10.0.0.8"]);
    }

    /// A host once told the others only the addresses of its twenty bridges: the address of the
    /// network came last and was cut off.
    #[test]
    fn bridges_of_guests_stand_last_by_their_kind_whatever_they_are_called() {
        let bridge = |n: u32| HostAddress {
            of_guests: true,
            ..address(&format!("10.10.{n}.1"), &format!("lan{n}"), n)
        };
        let found = (1..=20).map(bridge).chain([address("192.0.2.9", "eth9", 42)]).collect();
        let kept = ordered(found);
        assert_eq!((kept.len(), kept[0].as_str()), (ADDRESSES_MAX, "192.0.2.9"));
        assert_eq!(kept[1], "10.10.1.1");
    }

    #[test]
    fn a_host_that_has_only_a_guests_network_is_found_there() {
        let found = vec![address("127.0.0.1", "lo", 1), address("172.17.0.2", "docker0", 3)];
        assert_eq!(ordered(found), ["172.17.0.2"]);
    }

    #[test]
    fn ipv6_addresses_that_are_soon_to_go_stand_last() {
        let table = "\
fd0000000000000000000000000000aa 02 40 00 01 eth0
fd000000000000000000000000000001 02 40 00 80 eth0
fd0000000000000000000000000000bb 02 40 00 20 eth0
nonsense
";
        let marks = marks(table);
        let found = ["fd00::aa", "fd00::bb", "fd00::1", "2001:db8::7"].map(|ip| {
            let found = address(ip, "eth0", 2);
            HostAddress { marks: marks.get(&found.ip).copied().unwrap_or(0), ..found }
        });
        assert_eq!(ordered(found.into()), ["fd00::1", "2001:db8::7", "fd00::aa", "fd00::bb"]);
    }

    #[test]
    fn no_more_than_a_record_holds_and_the_best_of_them() {
        let many = (1..=40).map(|n| address(&format!("192.0.2.{n}"), "eth0", 2));
        let found = many.chain([address("10.0.0.1", "eth1", 3)]).collect();
        let kept = ordered(found);
        assert_eq!((kept.len(), kept[0].as_str()), (ADDRESSES_MAX, "10.0.0.1"));
    }

    #[test]
    fn a_network_is_its_cards_with_addresses_and_none_is_a_network_that_is_gone() {
        let pulled = HostAddress { is_up: false, ..address("10.0.0.7", "eth0", 2) };
        let both = HostAddress { is_up: false, ..address("fd00::7", "eth0", 2) };
        let found = vec![pulled, both, address("10.0.1.7", "eth1", 3)];
        let card = |name: &str, is_up| Card { name: name.into(), is_up };
        let cards = vec![card("eth0", false), card("eth1", true)];
        assert_eq!(network(found), Network::Cards(cards));
        let alone = vec![address("127.0.0.1", "lo", 1), address("fe80::7", "eth0", 2)];
        assert_eq!(network(alone), Network::Gone);
    }

    #[test]
    fn this_host_can_be_read() {
        let found = host_addresses();
        assert!(found.iter().all(|address| is_reachable(address) && !address.interface.is_empty()));
    }
}
