//! The names among this node's own addresses.

use std::collections::BTreeSet;

use peerage_proto::address::Address;
use tokio::sync::watch;
use tracing::warn;

use crate::resolver::Resolver;

/// Warns of each name among this node's own addresses that does not resolve on this host, at the
/// start and whenever the addresses change. The name may resolve on other hosts, so it is told to
/// them all the same.
pub async fn warn_of_names(names: Resolver, mut addresses: watch::Receiver<Vec<Address>>) {
    let mut known = BTreeSet::new();
    loop {
        let told: BTreeSet<_> =
            addresses.borrow_and_update().iter().filter_map(|at| at.name().cloned()).collect();
        for name in told.difference(&known) {
            if let Err(unresolved) = names.resolve(name).await {
                warn!(
                    "other nodes are told to find this one at {name}, and here {unresolved}; where \
                     it does not resolve for them either, they cannot find this node by it"
                );
            }
        }
        known = told;
        if addresses.changed().await.is_err() {
            return;
        }
    }
}
