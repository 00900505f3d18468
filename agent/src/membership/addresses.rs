//! Where this node is reached, told to whoever should know: in the hello, among the vitals, and in
//! its own record of the roster.

use std::sync::Arc;
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::replica::Actor;
use peerage_proto::roster::{Roster, member_path};
use tokio::sync::watch;
use tracing::warn;

use super::Membership;

/// How often the record is looked at: it may not have been written, or a copy of this node's disk
/// may have written its own addresses into it before it was refused.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Tells of this node's addresses whenever they are not what was told: at the start too, since they
/// may have changed while it was away. Nothing is written where the record says so already.
pub(super) async fn follow_addresses(
    this: Arc<Membership>,
    mut addresses: watch::Receiver<Vec<Address>>,
) {
    loop {
        let now = addresses.borrow_and_update().clone();
        if is_cut_off(&this, &now) {
            match addresses.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        this.hello.send_if_modified(|hello| {
            let news = hello.addresses != now;
            hello.addresses.clone_from(&now);
            news
        });
        this.vitals.tell(|own| own.addresses = now.iter().map(Address::to_string).collect());
        record(&this, &now).await;
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, addresses.changed()).await {
            return;
        }
    }
}

/// Whether the host has no network (yet), as in the first seconds after it was switched on: what is
/// known of it is better than that it is reached by nobody but itself.
fn is_cut_off(this: &Membership, addresses: &[Address]) -> bool {
    let alone = |addresses: &[Address]| addresses.iter().all(Address::is_loopback);
    let roster = this.roster();
    alone(addresses) && roster.member(&this.me).is_some_and(|me| !alone(&me.addresses))
}

/// Makes this node's record say these addresses.
async fn record(this: &Membership, addresses: &[Address]) {
    let roster = this.roster();
    let known = roster.member(&this.me).filter(|me| me.is_current());
    if known.is_none_or(|me| me.addresses == addresses) {
        return;
    }
    let actor = Actor { who: "peerage".into(), via: "agent".into() };
    let edit = Roster::addressing(addresses);
    let written = this.replica.write(member_path(&this.me), edit, actor, false).await;
    if let Err(error) = written {
        warn!(%error, "this node's new addresses could not be written yet");
    }
}
