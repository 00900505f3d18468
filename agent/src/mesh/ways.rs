//! The ways to a node: its addresses, best first, and the detours through others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_proto::address::{Address, HostName};
use peerage_proto::links::canonical;
use peerage_proto::roster::ADDRESSES_MAX;

use super::detour::Detour;
use super::path::Path;

/// How many addresses of a node are tried: those of the roster, and some that only its last hello
/// named.
pub(super) const ADDRESSES_TRIED_MAX: usize = 2 * ADDRESSES_MAX;

/// A way on which a node can be dialled.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// At this address, with the name that led to it if there is one.
    Direct(SocketAddr, Option<HostName>),
    /// At the addresses to which this name leads, which are not known yet.
    Named(HostName, u16),
    /// Through another member.
    Detour(Arc<Detour>),
}

impl Way {
    /// The ways to these addresses, in their order.
    pub(super) fn to_each(addresses: &[Address]) -> Vec<Self> {
        addresses.iter().cloned().map(Self::from).collect()
    }

    /// The path of a connection that is made on this way; `None` for a name, since it is not known
    /// yet where it leads.
    pub(super) fn path(&self) -> Option<Path> {
        match self {
            Self::Direct(address, _) => Some(Path::Direct(canonical(*address))),
            Self::Named(..) => None,
            Self::Detour(detour) => Some(Path::Through(detour.through)),
        }
    }

    /// The way as it is shown to an operator; `None` for a detour, whose address is made up and
    /// tells an operator nothing.
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Self::Direct(address, None) => Some(canonical(*address).to_string()),
            Self::Direct(address, Some(name)) => Some(format!("{} of {name}", canonical(*address))),
            Self::Named(host, port) => Some(format!("{host}:{port}")),
            Self::Detour(_) => None,
        }
    }
}

impl From<Address> for Way {
    fn from(address: Address) -> Self {
        match address {
            Address::Ip(address) => Self::Direct(address, None),
            Address::Name { host, port } => Self::Named(host, port),
        }
    }
}

/// The addresses of a node as the roster has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The addresses that the node told, the best first; none for a node that is not known.
    pub told: Vec<Address>,
    /// Other addresses at which the node was seen, to be tried last.
    pub seen: Vec<SocketAddr>,
}

impl Places {
    /// Whether the node is known at all.
    pub fn is_known(&self) -> bool {
        !self.told.is_empty()
    }
}

impl From<Vec<Address>> for Places {
    fn from(told: Vec<Address>) -> Self {
        Self { told, seen: Vec::new() }
    }
}

/// Where a node is, by all that this node has heard of it.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// The addresses in its last hello; at most [`ADDRESSES_MAX`].
    told: Vec<Address>,
    /// The addresses that the roster had as told by the node when that hello came.
    roster_then: Vec<Address>,
    /// Where its last direct connection came from.
    seen: Option<SocketAddr>,
    /// The present addresses of the node at which it was reached since this agent started.
    proven: BTreeSet<SocketAddr>,
}

impl Whereabouts {
    /// Notes the hello of a node and the path of the connection; `dialled` says whether this node
    /// dialled. `known` turns addresses into the IP addresses at which the node may be reached now.
    pub(super) fn hear(
        &mut self,
        told: &[Address],
        roster: Places,
        path: Path,
        dialled: bool,
        known: impl Fn(&[Address]) -> Vec<SocketAddr>,
    ) {
        self.told = told.to_vec();
        self.roster_then.clone_from(&roster.told);
        let addresses = known(&self.addresses(roster));
        self.proven.retain(|proven| addresses.contains(proven));
        if let Path::Direct(address) = path {
            self.proven.insert(address);
            if !dialled {
                self.seen = Some(address);
            }
        }
    }

    /// The addresses of the node, best first. Those of its last hello come before those of the
    /// roster, until the roster says something new. The addresses at which the node was seen come
    /// last, since a NAT may have made them: first the one that this node saw, then those that the
    /// admitting member saw. Empty if the roster has no address, since then the node is no member.
    pub(super) fn addresses(&self, roster: Places) -> Vec<Address> {
        let Places { told: roster, seen } = roster;
        if roster.is_empty() {
            return roster;
        }
        let (first, second) =
            if roster == self.roster_then { (&self.told, &roster) } else { (&roster, &self.told) };
        let mut addresses = Vec::with_capacity(first.len() + 1);
        let seen = self.seen.iter().chain(&seen).copied().map(Address::Ip);
        for address in first.iter().chain(second).cloned().chain(seen) {
            if addresses.len() < ADDRESSES_TRIED_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Whether it was reached at one of these addresses since this agent started.
    pub(super) fn is_proven(&self, addresses: &[SocketAddr]) -> bool {
        addresses.iter().any(|address| self.proven.contains(address))
    }
}

/// The addresses that are better than the path in use, best first. Empty if the path is as good as
/// any.
///
/// Only the node that dialled knows which address it reached, so only that node looks for a better
/// one. Otherwise the two nodes could move the connection back and forth between the addresses that
/// each of them prefers. Both nodes know that a detour is worse than any address.
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
    use peerage_proto::id::NodeId;

    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn on(port: u16) -> Address {
        Address::Ip(at(port))
    }

    fn named() -> Address {
        "pve-1.lan:4747".parse().unwrap()
    }

    fn places(told: &[Address]) -> Places {
        told.to_vec().into()
    }

    /// The name leads to one of the addresses.
    fn known(addresses: &[Address]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.ip().unwrap_or(at(7))).collect()
    }

    #[test]
    fn what_a_node_says_counts_until_the_roster_says_something_new() {
        let mut whereabouts = Whereabouts::default();
        assert_eq!(whereabouts.addresses(places(&[on(1)])), [on(1)]);
        let roster = || places(&[on(1), on(3)]);
        whereabouts.hear(&[named(), on(1)], roster(), Path::Direct(at(9)), false, known);
        assert_eq!(whereabouts.addresses(roster()), [named(), on(1), on(3), on(9)]);
        // The roster was corrected since, so its addresses come first, and those of the hello stay
        // behind them.
        assert_eq!(whereabouts.addresses(places(&[on(4)])), [on(4), named(), on(1), on(9)]);
        // The node is no member any more.
        assert!(whereabouts.addresses(Places::default()).is_empty());
    }

    #[test]
    fn where_a_node_was_seen_is_tried_after_all_that_it_said() {
        let roster = || Places { told: vec![on(1)], seen: vec![at(8)] };
        let mut whereabouts = Whereabouts::default();
        assert_eq!(whereabouts.addresses(roster()), [on(1), on(8)]);
        whereabouts.hear(&[on(2)], roster(), Path::Direct(at(9)), false, known);
        assert_eq!(whereabouts.addresses(roster()), [on(2), on(1), on(9), on(8)]);
    }

    #[test]
    fn an_address_is_proven_while_it_is_one_of_the_nodes() {
        let mut whereabouts = Whereabouts::default();
        let roster = || places(&[on(1), on(2)]);
        whereabouts.hear(&[], roster(), Path::Direct(at(2)), true, known);
        assert!(whereabouts.is_proven(&[at(1), at(2)]) && !whereabouts.is_proven(&[at(1)]));
        whereabouts.hear(&[], roster(), Path::Through(NodeId([1; 32])), true, known);
        assert!(whereabouts.is_proven(&[at(2)]));
        whereabouts.hear(&[], places(&[on(1)]), Path::Direct(at(1)), true, known);
        assert!(!whereabouts.is_proven(&[at(2)]) && whereabouts.is_proven(&[at(1)]));
        whereabouts.hear(&[named()], places(&[on(1)]), Path::Direct(at(7)), true, known);
        whereabouts.hear(&[named()], places(&[on(1)]), Path::Direct(at(1)), true, known);
        assert!(whereabouts.is_proven(&[at(7)]), "its name leads there");
    }

    #[test]
    fn better_is_what_stands_before_the_path_in_use() {
        let all = || vec![at(1), at(2), at(3)];
        let direct = |port| Path::Direct(at(port));
        assert_eq!(better_than(direct(3), true, all()), [at(1), at(2)]);
        assert!(better_than(direct(1), true, all()).is_empty());
        // An address that the node no longer has.
        assert_eq!(better_than(direct(7), true, all()), all());
        // The node that did not dial looks for nothing better.
        assert!(better_than(direct(3), false, all()).is_empty());
        for dialled in [true, false] {
            assert_eq!(better_than(Path::Through(NodeId([1; 32])), dialled, all()), all());
        }
    }
}
