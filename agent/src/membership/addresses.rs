//! Where this node is reached, told to whoever should know: in the hello, among the vitals, and in
//! its own record of the roster.

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

/// How often the record is looked at: it may not have been written, or a copy of this node's disk
/// may have written its own addresses into it before it was refused.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Tells of this node's addresses whenever they are not what was told: at the start too, since they
/// may have changed while it was away. Nothing is written where the record says so already.
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

/// Whether the host has no network (yet), as in the first seconds after it was switched on: what is
/// known of it is better than that it is reached by nobody but itself.
fn is_cut_off(members: &Members, addresses: &[Address]) -> bool {
    let alone = |addresses: &[Address]| addresses.iter().all(Address::is_loopback);
    let roster = members.roster();
    alone(addresses) && roster.member(&members.me).is_some_and(|me| !alone(&me.addresses))
}

/// Makes this node's record say these addresses.
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
