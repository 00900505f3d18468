//! What a membership is made of, and what it says of this node first.

use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::identity::Keypair;
use peerage_proto::replica::{Replica, SignedChange};
use peerage_proto::time::Now;
use peerage_proto::vitals::Vitals;
use peerage_proto::wire::{Hello, WIRE_VERSION};
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, watch};

use super::end::End;
use super::inbound::Inbound;
use super::vitals::host::Look;
use crate::feed::{Feed, Happening};
use crate::host::clock::Clock;
use crate::host::links::NetworkLook;
use crate::mesh::Mesh;
use crate::notices::Notices;

/// What a membership is made of.
pub struct Parts<D> {
    /// This node's key.
    pub key: Keypair,
    /// The number of this start of the agent.
    pub boot: u64,
    /// Tells this start of the agent from the start of another host with the same key.
    pub instance: u64,
    /// The machine, as far as it is known.
    pub machine: Option<Vec<u8>>,
    /// The version of the agent.
    pub version: String,
    /// Where this node is reached, now and later, the best first.
    pub addresses: watch::Receiver<Vec<Address>>,
    /// The time.
    pub clock: Clock,
    /// How the host is looked at.
    pub look: Look,
    /// How its network is looked at.
    pub network: NetworkLook,
    /// The replica, as the disk holds it.
    pub replica: Replica,
    /// The disk.
    pub disk: Arc<D>,
    /// The mesh.
    pub mesh: Mesh,
    /// What arrives over the mesh.
    pub inbound: Inbound,
    /// Where changes of settings are told.
    pub changes: Feed<SignedChange>,
    /// Where everything else is told.
    pub happenings: Feed<Happening>,
    /// The states of this node that need a person.
    pub notices: Notices,
    /// Told when this node no longer belongs, or when its disk cannot be used any more.
    pub ended: mpsc::Sender<End>,
}

impl<D> Parts<D> {
    /// What the vitals say of this node at first.
    pub(super) fn vitals(&self) -> Vitals {
        Vitals {
            version: Some(self.version.clone()),
            boot: Some(self.boot),
            started_ms: Some(started_ms(self.clock.now())),
            addresses: self.addresses.borrow().iter().map(Address::to_string).collect(),
            ..Vitals::default()
        }
    }

    /// The hello as far as it is known without the roster.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            wire_version: WIRE_VERSION,
            datacenter: self.replica.datacenter(),
            name: String::new(),
            boot: self.boot,
            wall_ms: 0,
            addresses: self.addresses.borrow().clone(),
            proof: Vec::new(),
            supersedes: None,
            carries: true,
            instance: Some(self.instance),
            machine: self.machine.clone().map(ByteBuf::from),
            only_looks: false,
            digest: None,
            version: Some(self.version.clone()),
        }
    }
}

/// When the agent started, by its clock as it is now; zero where the clock was set back so far that
/// this would be negative.
fn started_ms(now: Now) -> u64 {
    now.wall_ms.saturating_sub(now.mono.as_millis() as u64)
}
