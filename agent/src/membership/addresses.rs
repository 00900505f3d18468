//! Publishes the addresses at which this node is reached: in its hello, in its vitals, and in its
//! own record in the roster.

use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::replica::Actor;
use peerage_proto::roster::{Roster, member_path};
use tokio::sync::watch;
use tracing::warn;

use super::greeting::Greeting;
use super::members::Members;
use super::vitals::VitalsHandle;
use crate::replica::ReplicaHandle;

/// How often this node checks its own record in the roster: an earlier write may have failed, or a
/// copy of this node's disk may have written its own addresses there before it was refused.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Publishes this node's addresses at the start, since they may have changed while the agent was
/// down, and after every change. Nothing is written to the roster where the record holds these
/// addresses already.
pub(super) async fn follow_addresses(
    mut addresses: watch::Receiver<Vec<Address>>,
    members: Members,
    greeting: Greeting,
    vitals: VitalsHandle,
    replica: ReplicaHandle,
) {
    loop {
        let now = addresses.borrow_and_update().clone();
        if is_cut_off(&members, &now) {
            match addresses.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        greeting.move_to(&now);
        vitals.tell(|own| own.addresses = now.iter().map(Address::to_string).collect());
        record(&members, &replica, &now).await;
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, addresses.changed()).await {
            return;
        }
    }
}

/// Whether the host has no network (yet), as in the first seconds after it was switched on: it has
/// only loopback addresses, and the roster holds others for it. The others are kept then, since
/// only the host itself would reach this node at a loopback address.
fn is_cut_off(members: &Members, addresses: &[Address]) -> bool {
    let alone = |addresses: &[Address]| addresses.iter().all(Address::is_loopback);
    let roster = members.roster();
    alone(addresses) && roster.member(&members.me).is_some_and(|me| !alone(&me.addresses))
}

/// Writes these addresses into this node's record in the roster, unless it holds them already.
async fn record(members: &Members, replica: &ReplicaHandle, addresses: &[Address]) {
    let roster = members.roster();
    let known = roster.member(&members.me).filter(|me| me.is_current());
    if known.is_none_or(|me| me.addresses == addresses) {
        return;
    }
    let actor = Actor { who: "peerage".into(), via: "agent".into() };
    let edit = Roster::addressing(addresses);
    let written = replica.write(member_path(&members.me), edit, actor, false).await;
    if let Err(error) = written {
        warn!(%error, "this node's new addresses could not be written yet");
    }
}
