//! Finds out which node is concerned when an address refuses packets.
//!
//! A refusal counts against a node only if it comes from the address at which the node is reached
//! now, or from the only address at which it is being dialled. If one of several addresses refuses,
//! another may serve.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use peerage_proto::id::NodeId;
use peerage_proto::links::canonical;

use super::peer::Peer;
use super::pool::Pool;
use super::report::Event;
use super::socket::REFUSALS_MAX;

/// How long refusals wait after [`REFUSALS_MAX`] of them, so that a flood of forged ones costs
/// little.
const PAUSE: Duration = Duration::from_millis(20);

/// Tells of refusals until the socket or the mesh is gone.
pub(super) async fn follow_refusals(
    pool: Weak<Pool>,
    mut refusals: broadcast::Receiver<SocketAddr>,
) {
    loop {
        for _ in 0..REFUSALS_MAX {
            match refusals.recv().await {
                Ok(address) => match pool.upgrade() {
                    Some(pool) => pool.refused(address),
                    None => return,
                },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Pool {
    /// Sends an event for each node that is reached, or is being dialled, at an address that
    /// refused.
    fn refused(&self, address: SocketAddr) {
        let (peers, dialled): (Vec<Arc<Peer>>, Vec<NodeId>) = {
            let table = self.read();
            let dialled = table
                .routes
                .iter()
                .filter(|(id, route)| route.dial.is_some() && !table.peers.contains_key(id));
            (table.peers.values().cloned().collect(), dialled.map(|(id, _)| *id).collect())
        };
        let peers = peers.iter().filter(|peer| peer.path().address() == Some(address));
        let dialled = dialled.into_iter().filter(|id| {
            let addresses = self.dialler.names.known(&self.known_addresses(*id));
            !addresses.is_empty() && addresses.iter().all(|known| canonical(*known) == address)
        });
        for peer in peers.map(|peer| peer.id).chain(dialled) {
            tracing::debug!(peer = %peer.short(), %address, "its port refused");
            // It may be that nobody listens to events.
            let _ = self.events.send(Event::Refused { peer, address });
        }
    }
}
