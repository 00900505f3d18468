//! Where the configuration lets the agent listen.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use peerage_proto::links::{LinkError, is_reserved};

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
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("ADDRESS:PORT such as 0.0.0.0:{PORT} or [::]:{PORT} was expected, not {text:?}")
        })?;
        if is_reserved(address.ip()) {
            return Err(LinkError::Reserved(text.to_owned()).to_string());
        }
        Ok(Self::At(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_falls_back_to_ipv4() {
        assert_eq!(Listen::Default.candidates()[0].to_string(), Listen::DEFAULT);
        assert_eq!(Listen::Default.candidates()[1].to_string(), "0.0.0.0:4747");
        assert!("4747".parse::<Listen>().is_err());
        assert!("240.0.0.1:4747".parse::<Listen>().unwrap_err().contains("240.0.0.0/4"));
    }
}
