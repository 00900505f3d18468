//! The path that a connection is on: straight to an address of the peer, or through a member that
//! passes its packets on.

use std::fmt;
use std::net::SocketAddr;

use peerage_proto::id::NodeId;

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// At this address.
    Direct(SocketAddr),
    /// Through another member, which reads nothing of what it carries.
    Through(NodeId),
}

impl Path {
    /// The address, where it is a direct path.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(address) => Some(*address),
            Self::Through(_) => None,
        }
    }

    /// The member in between, where there is one.
    pub fn between(&self) -> Option<NodeId> {
        match self {
            Self::Direct(_) => None,
            Self::Through(node) => Some(*node),
        }
    }

    /// Whether nobody else is on the path.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// Shows the path by itself; the alternate form shows it as part of a sentence.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) if f.alternate() => write!(f, "at {address}"),
            Self::Direct(address) => write!(f, "{address}"),
            Self::Through(node) => write!(f, "through {}", node.short()),
        }
    }
}
