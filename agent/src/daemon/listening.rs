//! The socket of the mesh: where the agent listens, and why it cannot.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use peerage_proto::links::canonical;

use crate::host::config::Listen;
use crate::mesh::Underlay;
use crate::node::META_PORT;
use crate::store::Image;

/// Binds the mesh's socket. An agent that may take any port takes its former one again after a
/// restart, since the others look for it there.
pub(super) fn bind(listen: Listen, image: &Image) -> anyhow::Result<Underlay> {
    let port = image.meta.get(META_PORT).and_then(|port| port.as_slice().try_into().ok());
    let mut candidates = listen.candidates();
    if let (Some(port), Listen::At(address)) = (port.map(u16::from_be_bytes), listen)
        && address.port() == 0
    {
        candidates.insert(0, (address.ip(), port).into());
    }
    let mut failure = None;
    for address in candidates {
        match Underlay::bind(address) {
            Ok(underlay) => return Ok(underlay),
            Err(error) => {
                let words = cannot_listen(canonical(address), &error);
                let error = anyhow::Error::new(error).context(words);
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("there is no address to listen on")))
}

/// Why the mesh's socket cannot be bound, and what to do.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "is another agent running? (--listen ADDR:PORT takes another)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable if !address.ip().is_unspecified() => {
            let (ip, all) =
                (address.ip(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())));
            format!(
                "this host has no address {ip} (yet); `ip addr` shows what it has, and --listen \
                 {all} takes all addresses, also those that come later"
            )
        }
        _ => "--listen ADDR:PORT takes another place".to_owned(),
    };
    format!("cannot listen on UDP {address}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_and_an_address_that_is_not_there_are_told_apart() {
        let told = |address: &str, kind: io::ErrorKind| {
            cannot_listen(canonical(address.parse().unwrap()), &kind.into())
        };
        let taken = told("[::]:4747", io::ErrorKind::AddrInUse);
        assert!(taken.contains("another agent") && taken.contains("[::]:4747"), "{taken}");
        let missing = told("[::ffff:10.0.0.9]:4747", io::ErrorKind::AddrNotAvailable);
        assert!(missing.contains("UDP 10.0.0.9:4747"), "{missing}");
        assert!(missing.contains("no address 10.0.0.9 (yet)"), "{missing}");
        let forbidden = told("0.0.0.0:47", io::ErrorKind::PermissionDenied);
        assert!(forbidden.contains("--listen") && !forbidden.contains("another agent"));
    }
}
