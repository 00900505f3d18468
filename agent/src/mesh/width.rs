//! How large a packet may be on the way to an address.
//!
//! The packets that begin a connection are 1,200 bytes of UDP at least, and no router may split
//! them (RFC 9000, section 14). A network that takes less, such as one tunnel inside another, loses
//! each of them, and the host behind it seems silent although ping works. A network card has an
//! MTU, and a router tells the host which packets it takes (RFC 1191, RFC 8201); the kernel keeps
//! both with the route.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use peerage_proto::links::canonical;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

/// The smallest packet that QUIC begins with, as UDP carries it.
const PAYLOAD_BYTES: u32 = 1200;

/// What UDP and IP put before it.
const UDP_BYTES: u32 = 8;
const IPV4_BYTES: u32 = 20;
const IPV6_BYTES: u32 = 40;

/// Why an address may not have answered, if the way there takes only packets that are too small for
/// QUIC; `None` if the kernel knows of no such limit. Sends nothing.
pub fn too_narrow(address: SocketAddr) -> Option<String> {
    narrowness(address).map(|narrow| {
        format!("{narrow}: raise the MTU of the link or tunnel, or take another address")
    })
}

/// Tells in words which packets the way to an address takes, if they are too small for QUIC; `None`
/// if the kernel knows of no such limit. Sends nothing.
pub fn narrowness(address: SocketAddr) -> Option<String> {
    let address = canonical(address);
    let header = if address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    words(width(address).ok()?, PAYLOAD_BYTES + UDP_BYTES + header)
}

fn words(width: u32, needed: u32) -> Option<String> {
    (width < needed)
        .then(|| format!("the way there takes packets of {width} bytes, and QUIC needs {needed}"))
}

/// The largest packet that the kernel knows to pass, with all headers.
fn width(address: SocketAddr) -> io::Result<u32> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(if address.is_ipv4() { ip_mtu(&socket)? } else { ipv6_mtu(&socket)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_too_narrow_below_what_quic_needs() {
        assert_eq!(words(1228, 1228), None);
        assert!(words(1227, 1228).unwrap().contains("1227 bytes, and QUIC needs 1228"));
    }

    #[test]
    fn the_loopback_is_wide_enough_in_either_spelling() {
        for address in ["127.0.0.1:9", "[::ffff:127.0.0.1]:9"] {
            let address = address.parse().unwrap();
            assert!(width(canonical(address)).unwrap() > 1228);
            assert_eq!(too_narrow(address), None);
        }
    }
}
