//! Where this node is reached, as far as it can tell by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peerage_proto::roster::ADDRESSES_MAX;

/// The addresses to tell the others: those that the configuration names, or that the socket is
/// bound to; for a socket bound to all, those of the interfaces that are up.
pub fn advertised(configured: &[(IpAddr, Option<u16>)], bound: SocketAddr) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = if !configured.is_empty() {
        let full = |(ip, port): &(IpAddr, Option<u16>)| (*ip, port.unwrap_or(bound.port())).into();
        configured.iter().map(full).collect()
    } else if bound.ip().is_unspecified() {
        let ips = interface_addresses().into_iter();
        let ips = ips.filter(|ip| bound.is_ipv6() || ip.is_ipv4());
        ips.map(|ip| (ip, bound.port()).into()).collect()
    } else {
        vec![bound]
    };
    addresses.into_iter().take(ADDRESSES_MAX).collect()
}

/// The addresses of this host that other hosts may reach, IPv4 first. Where there is none but the
/// loopback's, that one.
fn interface_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<IpAddr> = interfaces.iter().map(|interface| interface.ip()).collect();
    ips.retain(is_reachable);
    ips.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    ips.dedup();
    if ips.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { ips }
}

fn is_reachable(ip: &IpAddr) -> bool {
    let v4 = |ip: &Ipv4Addr| !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified();
    let v6 =
        |ip: &Ipv6Addr| !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified();
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_first_then_what_is_bound() {
        let bound: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        assert_eq!(advertised(&[], bound), [bound]);
        let configured = [("192.0.2.1".parse().unwrap(), None), ("::1".parse().unwrap(), Some(7))];
        let expected = ["192.0.2.1:5000".parse().unwrap(), "[::1]:7".parse().unwrap()];
        assert_eq!(advertised(&configured, bound), expected);
    }

    #[test]
    fn a_socket_bound_to_all_is_reached_at_some_address() {
        let addresses = advertised(&[], "0.0.0.0:5000".parse().unwrap());
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|a| a.is_ipv4() && a.port() == 5000));
    }
}
