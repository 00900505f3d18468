//! Meets a member at addresses that its operator gave, whatever was known of it before.

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::id::NodeId;

use super::Mesh;
use super::dial::{DIAL_TIMEOUT, DialError, Pace, STAGGER};
use super::pool::Pool;
use super::ways::Way;

/// How long a peer that is connected may take to show that the connection still leads to it.
const PROOF_OF_LIFE: Duration = Duration::from_secs(1);

impl Mesh {
    /// Makes sure of a connection with a node that answers, by dialling it at these addresses if
    /// need be. Whoever is there has to hold the node's key and to be a member, as always; from then
    /// on the node is looked for where it says itself that it is.
    ///
    /// # Errors
    /// [`DialError`]; what was known of the node stays.
    pub async fn meet(&self, peer: NodeId, addresses: &[Address]) -> Result<(), DialError> {
        if peer == self.pool.own {
            return Err(DialError::Own);
        }
        if self.answers(peer, PROOF_OF_LIFE).await {
            return Ok(());
        }
        let (pool, addresses) = (self.pool.clone(), addresses.to_vec());
        // On a task of its own: a hello once begun has to come to its end.
        let met = tokio::spawn(async move { pool.meet(peer, &addresses).await });
        met.await.unwrap_or(Err(DialError::Stopped))
    }
}

impl Pool {
    async fn meet(self: Arc<Self>, id: NodeId, addresses: &[Address]) -> Result<(), DialError> {
        let ways = Way::to_each(addresses);
        let pace = Pace { timeout: DIAL_TIMEOUT, detours_after: STAGGER };
        let connection = self.race(id, &ways, pace).await?;
        // If there is a connection, it did not answer just before, so the new one replaces it.
        let silent = self.peer(id).map(|peer| peer.name);
        let greeted = self.greeted(id, connection, silent).await;
        if let Err(DialError::Refused(refusal)) = &greeted {
            self.gate.refused(id, refusal.clone());
        }
        self.install(greeted?);
        Ok(())
    }
}
