//! The ways to a node: its addresses, best first, and the detours through others.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;
use peerage_proto::roster::ADDRESSES_MAX;

use super::detour::Detour;

/// How many addresses of a node are tried: those of the roster, and some that only its last hello
/// named.
pub(super) const ADDRESSES_TRIED_MAX: usize = 2 * ADDRESSES_MAX;

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

/// As it stands alone; in its alternate form, as it stands in a sentence.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) if f.alternate() => write!(f, "at {address}"),
            Self::Direct(address) => write!(f, "{address}"),
            Self::Through(node) => write!(f, "through {}", node.short()),
        }
    }
}

/// A way on which a node can be dialled.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Direct(SocketAddr),
    Detour(Arc<Detour>),
}

impl Way {
    /// The way as it is told.
    pub(super) fn path(&self) -> Path {
        match self {
            Self::Direct(address) => Path::Direct(canonical(*address)),
            Self::Detour(detour) => Path::Through(detour.through),
        }
    }
}

/// Where a node is, by all that this node has heard of it.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// What it said in its last hello; at most [`ADDRESSES_MAX`].
    told: Vec<SocketAddr>,
    /// What the roster said at that time.
    roster_then: Vec<SocketAddr>,
    /// Where its last direct connection came from.
    seen: Option<SocketAddr>,
    /// Those of its present addresses at which it was reached since this agent started.
    proven: BTreeSet<SocketAddr>,
}

impl Whereabouts {
    /// The node said hello, over a path that it began or that this node dialled.
    pub(super) fn hear(
        &mut self,
        told: &[SocketAddr],
        roster: Vec<SocketAddr>,
        path: Path,
        dialled: bool,
    ) {
        self.told = told.to_vec();
        self.roster_then = roster;
        let addresses = self.addresses(self.roster_then.clone());
        self.proven.retain(|proven| addresses.contains(proven));
        if let Path::Direct(address) = path {
            self.proven.insert(address);
            if !dialled {
                self.seen = Some(address);
            }
        }
    }

    /// Its addresses, best first. What it said itself goes before what the roster says, until the
    /// roster says something new; where it was last seen is tried last, as that may have been
    /// somebody's translation of its address. None where the roster knows none: then it is no
    /// member.
    pub(super) fn addresses(&self, roster: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if roster.is_empty() {
            return roster;
        }
        let (first, second) =
            if roster == self.roster_then { (&self.told, &roster) } else { (&roster, &self.told) };
        let mut addresses = Vec::with_capacity(first.len() + 1);
        for address in first.iter().chain(second).chain(&self.seen) {
            if addresses.len() < ADDRESSES_TRIED_MAX && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }

    /// Whether it was reached at one of these addresses since this agent started.
    pub(super) fn is_proven(&self, addresses: &[SocketAddr]) -> bool {
        addresses.iter().any(|address| self.proven.contains(address))
    }
}

/// Which addresses are better than the path in use; best first. None where it is as good as any.
///
/// Only the one who dialled knows which address it reached, so it alone looks for a better one:
/// the two never move the connection to and fro between what each of them likes best. A detour
/// both know to be worse than anything.
pub(super) fn better_than(
    path: Path,
    dialled: bool,
    mut addresses: Vec<SocketAddr>,
) -> Vec<SocketAddr> {
    match path {
        Path::Through(_) => addresses,
        Path::Direct(_) if !dialled => Vec::new(),
        Path::Direct(address) => {
            if let Some(rank) = addresses.iter().position(|other| *other == address) {
                addresses.truncate(rank);
            }
            addresses
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn what_a_node_says_counts_until_the_roster_says_something_new() {
        let mut whereabouts = Whereabouts::default();
        assert_eq!(whereabouts.addresses(vec![at(1)]), [at(1)]);
        whereabouts.hear(&[at(2), at(1)], vec![at(1), at(3)], Path::Direct(at(9)), false);
        assert_eq!(whereabouts.addresses(vec![at(1), at(3)]), [at(2), at(1), at(3), at(9)]);
        // The roster was corrected since: it goes first, and what was said is kept behind it.
        assert_eq!(whereabouts.addresses(vec![at(4)]), [at(4), at(2), at(1), at(9)]);
        // It belongs no more.
        assert!(whereabouts.addresses(Vec::new()).is_empty());
    }

    #[test]
    fn an_address_is_proven_while_it_is_one_of_the_nodes() {
        let mut whereabouts = Whereabouts::default();
        let roster = || vec![at(1), at(2)];
        whereabouts.hear(&[], roster(), Path::Direct(at(2)), true);
        assert!(whereabouts.is_proven(&[at(1), at(2)]) && !whereabouts.is_proven(&[at(1)]));
        whereabouts.hear(&[], roster(), Path::Through(NodeId([1; 32])), true);
        assert!(whereabouts.is_proven(&[at(2)]));
        whereabouts.hear(&[], vec![at(1)], Path::Direct(at(1)), true);
        assert!(!whereabouts.is_proven(&[at(2)]) && whereabouts.is_proven(&[at(1)]));
    }

    #[test]
    fn better_is_what_stands_before_the_path_in_use() {
        let all = || vec![at(1), at(2), at(3)];
        let direct = |port| Path::Direct(at(port));
        assert_eq!(better_than(direct(3), true, all()), [at(1), at(2)]);
        assert!(better_than(direct(1), true, all()).is_empty());
        // An address that the node no longer has.
        assert_eq!(better_than(direct(7), true, all()), all());
        // Whoever dialled sees to it.
        assert!(better_than(direct(3), false, all()).is_empty());
        for dialled in [true, false] {
            assert_eq!(better_than(Path::Through(NodeId([1; 32])), dialled, all()), all());
        }
    }
}
