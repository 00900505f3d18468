//! What a node is made of: the handles that the daemon makes before the node, and gives to it.

use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::identity::Keypair;
use tokio::sync::{mpsc, watch};

use super::{KeyPlace, OwnName};
use crate::admission::past::Past;
use crate::host::clock::Clock;
use crate::host::links::NetworkLook;
use crate::membership::vitals::host::Look;
use crate::membership::{Inbound, Membership};
use crate::mesh::Mesh;
use crate::store::Store;

/// What a node is made of.
pub struct NodeParts {
    /// Its key.
    pub key: Keypair,
    /// The number of this start of the agent.
    pub boot: u64,
    /// The name that it takes where nobody says otherwise.
    pub name: OwnName,
    /// Where it is reached, now and later, the best first.
    pub addresses: watch::Receiver<Vec<Address>>,
    /// The version of the agent.
    pub version: String,
    /// The time.
    pub clock: Clock,
    /// How the host is looked at.
    pub look: Look,
    /// How its network is looked at.
    pub network: NetworkLook,
    /// The disk.
    pub store: Store,
    /// The mesh.
    pub mesh: Mesh,
    /// What arrives over the mesh.
    pub inbound: Inbound,
    /// Where the membership is shown to the mesh's gate.
    pub membership: watch::Sender<Option<Arc<Membership>>>,
    /// Set while the node becomes a member, for the mesh's gate.
    pub entering: watch::Sender<bool>,
    /// Where the mesh's gate finds how the last membership ended.
    pub past: watch::Sender<Option<Arc<Past>>>,
    /// Receives the cause when the disk fails for good.
    pub broken: mpsc::Sender<Arc<str>>,
    /// Where the key is kept; none where it is only in memory.
    pub key_place: Option<KeyPlace>,
}
