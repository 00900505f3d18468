//! Keeps a label beside the journal that tells whose folder it is: the node's name and its Data
//! Center, as they change.

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::id::DataCenterId;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::node::Node;
use crate::store::{Label, Store, StoreError};

/// How long the number of a new start waits to be written: the disk serves the start itself first.
const SETTLED: Duration = Duration::from_secs(2);

/// Writes what the node is called and where it belongs, now and whenever it changes.
///
/// `kept` is the label that the folder has already. If only the number of this start differs, the
/// label is written later: even without it no number of a start is taken twice, since the clock
/// gives the least number.
pub(super) async fn keep(node: Arc<Node>, store: Store, mut kept: Option<Label>) {
    let mut memberships = node.memberships();
    let settled = sleep(SETTLED);
    tokio::pin!(settled);
    loop {
        let membership = memberships.borrow_and_update().clone();
        let roster = membership.as_ref().map(|membership| {
            let mut views = membership.replica.views();
            // The roster as it is now is read below.
            views.mark_unchanged();
            views
        });
        let datacenter = membership
            .as_ref()
            .map(|membership| (membership.datacenter, membership.roster().datacenter_name.clone()));
        let mut in_no_hurry = false;
        // A node that keeps apart has no membership, but is still who it was: its label stays.
        if membership.is_some() || !node.has_twin() {
            let label = label(&node, datacenter);
            in_no_hurry =
                !settled.is_elapsed() && kept.as_ref().is_some_and(|kept| kept.names_as(&label));
            if !in_no_hurry && kept.as_ref() != Some(&label) {
                match store.label(label.clone()).await {
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        warn!(%error, "whose folder this is could not be written beside it")
                    }
                    Ok(()) => kept = Some(label),
                }
            }
        }
        drop(membership);
        tokio::select! {
            changed = memberships.changed() => if changed.is_err() { return },
            () = changed(roster) => {}
            () = &mut settled, if in_no_hurry => {}
        }
    }
}

fn label(node: &Node, datacenter: Option<(DataCenterId, String)>) -> Label {
    Label { name: node.name(), boot: node.boot(), datacenter }
}

/// Returns once a roster has changed; never where there is none, or where its sender is gone.
async fn changed<T>(roster: Option<watch::Receiver<T>>) {
    if let Some(mut roster) = roster
        && roster.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
