//! The addresses of the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The UDP port of the mesh.
const PORT: u16 = 4747;

/// Where the agent listens for other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// On all addresses: by one socket for IPv6 and IPv4, or for IPv4 alone where the host has no
    /// IPv6.
    Default,
    /// On this address and no other.
    At(SocketAddr),
}

impl Listen {
    /// How the default is written.
    pub const DEFAULT: &str = "[::]:4747";

    /// What to try to bind, in this order. `[::]` is meant for IPv4 too.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Default => vec![
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            ],
            Self::At(address) => vec![address],
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().map_err(|_| {
            format!("ADDRESS:PORT such as 0.0.0.0:{PORT} or [::]:{PORT} was expected, not {text:?}")
        })?;
        Ok(Self::At(address))
    }
}

/// An address that other nodes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub ip: IpAddr,
    /// The port; `None` is the one that the agent listens on.
    pub port: Option<u16>,
}

impl FromStr for Advertised {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = |reason: &str| {
            format!(
                "ADDRESS or ADDRESS:PORT such as 192.0.2.7 or [2001:db8::7]:{PORT} was expected, not {text:?}{reason}"
            )
        };
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let (ip, port) = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(address)) => (address.ip(), Some(address.port())),
            _ => return Err(expected("")),
        };
        if ip.is_unspecified() || ip.is_multicast() || port == Some(0) {
            return Err(expected(": nobody can be found there"));
        }
        Ok(Self { ip, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_may_leave_the_port_out() {
        let read = |text: &str| text.parse::<Advertised>().map(|a| (a.ip.to_string(), a.port));
        assert_eq!(read("192.0.2.7").unwrap(), ("192.0.2.7".into(), None));
        assert_eq!(read("192.0.2.7:99").unwrap(), ("192.0.2.7".into(), Some(99)));
        assert_eq!(read("2001:db8::7").unwrap(), ("2001:db8::7".into(), None));
        assert_eq!(read("[2001:db8::7]").unwrap(), ("2001:db8::7".into(), None));
        assert_eq!(read("[2001:db8::7]:99").unwrap(), ("2001:db8::7".into(), Some(99)));
        for wrong in ["", "host", "0.0.0.0", "[::]:1", "192.0.2.7:0", "224.0.0.1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_falls_back_to_ipv4() {
        assert_eq!(Listen::Default.candidates()[0].to_string(), Listen::DEFAULT);
        assert_eq!(Listen::Default.candidates()[1].to_string(), "0.0.0.0:4747");
        assert!("4747".parse::<Listen>().is_err());
    }
}
