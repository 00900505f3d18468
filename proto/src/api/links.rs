//! Links: the addresses at which this node is reached, and those at which it reaches the others.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::members::MemberState;
use super::{Method, Operation, Whole};
use crate::access::{Area, Resource, Verb};

/// Asks for this node's links, and for the link in use with each member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetLinks {}

impl Operation for GetLinks {
    type Answer = Whole<Links>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "links";
    const VERB: Verb = Verb::audit(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// This node's links, and the link in use with each member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Where this node's links come from: `set` (`peerage links set`), `config`, `interfaces`,
    /// `listen` (the one address that it listens on), or a word of a newer version.
    pub source: String,
    /// With `config`: the file, variable or flag that they come from.
    pub layer: Option<String>,
    /// With `set`: the file, variable or flag that gives other links, which are not used.
    pub overruled: Option<String>,
    /// This node's links, the best first.
    pub links: Vec<OwnLink>,
    /// The other nodes that belong to the Data Center, by name; empty while this node is
    /// standalone.
    pub peers: Vec<PeerLinks>,
}

/// An address at which this node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLink {
    /// `ADDRESS:PORT` or `NAME:PORT`.
    pub address: String,
    /// The position at which other nodes try it; 1 is the first.
    pub rank: u32,
    /// How much it is preferred; 1 is the best.
    pub priority: u64,
    /// The operator's name for the link.
    pub name: Option<String>,
    /// The interface that has the address; `None` behind NAT, and for a name.
    pub interface: Option<String>,
    /// How many of the connected members dialled this address.
    pub peers_in: u32,
}

/// Where a member is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerLinks {
    /// Its name.
    pub name: String,
    /// Its id, in full.
    pub id: String,
    /// What this node knows of the member.
    pub state: MemberState,
    /// The address in use; `None` where there is no connection.
    pub address: Option<String>,
    /// Whether this node dialled the member at this address; `false` where the member dialled from
    /// there.
    pub dialled: Option<bool>,
    /// `direct`, the member that the path goes through, or `-`.
    pub path: String,
    /// The round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// All the addresses and names that it tells, the best first.
    pub addresses: Vec<String>,
    /// Other addresses at which the member was seen when it was admitted. They are tried after
    /// `addresses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen_at: Vec<String>,
}

/// Asks where one member is reached. This node may be asked about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetNodeLinks {
    /// Its name, its id, or the beginning of its id.
    pub node: String,
}

impl Operation for GetNodeLinks {
    type Answer = Whole<PeerLinks>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "links/{node}";
    const VERB: Verb = Verb::audit(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::Node(&self.node)
    }
}

/// Replaces all links of this node by these. They stay over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLinks {
    /// At least one link, at most 16. Links with the same priority are tried in this order.
    pub links: Vec<LinkWish>,
}

impl Operation for SetLinks {
    type Answer = Whole<Links>;
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "links";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// A link as a request gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkWish {
    /// An IP address or a DNS name, with `:PORT` or without. The default port is the one that the
    /// agent listens on.
    pub address: String,
    /// From 1, the best and the default, to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u64>,
    /// The operator's name for the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Reads `ADDRESS[:PORT][@PRIORITY]`. The agent checks whether the address is valid.
impl FromStr for LinkWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((address, priority)) = text.rsplit_once('@') else {
            return Ok(Self { address: text.to_owned(), ..Self::default() });
        };
        let number = priority.parse();
        let number = number.map_err(|_| {
            format!("ADDRESS[:PORT][@PRIORITY] such as 10.0.1.5@2 was expected, not {text:?}")
        })?;
        Ok(Self { address: address.to_owned(), priority: Some(number), name: None })
    }
}

/// Takes back what [`SetLinks`] set: the links are those of the configuration again, or else the
/// host's interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetLinks {}

impl Operation for ResetLinks {
    type Answer = Whole<Links>;
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "links";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_an_address_and_after_an_at_its_priority() {
        let read = |text: &str| text.parse::<LinkWish>().map(|wish| (wish.address, wish.priority));
        assert_eq!(read("10.0.1.5"), Ok(("10.0.1.5".into(), None)));
        assert_eq!(read("10.0.1.5:99@2"), Ok(("10.0.1.5:99".into(), Some(2))));
        assert_eq!(read("[2001:db8::5]:99@255"), Ok(("[2001:db8::5]:99".into(), Some(255))));
        for wrong in ["10.0.1.5@", "10.0.1.5@best", "10.0.1.5@-1"] {
            assert!(read(wrong).unwrap_err().contains("@PRIORITY"), "{wrong}");
        }
    }
}
