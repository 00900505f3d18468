//! What this node says of itself, and what it does where another holds something else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use peerage_proto::id::NodeId;
use rand::seq::IndexedRandom;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};

use super::Membership;

/// How many sessions this node runs at once because of what it compared.
const SESSIONS_BEGUN_MAX: usize = 4;

/// How often this node looks whether it and another hold the same.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// How long a difference may last while both go on changing before a session is run all the same.
const DIFFERENCE_MAX: Duration = Duration::from_secs(10);

/// How often at most the others are told of a new digest.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Tells the others of this node's digest and name.
pub(super) async fn tell_vitals(this: Arc<Membership>) {
    let (mut progress, mut rosters) = (this.replica.progress(), this.replica.roster());
    loop {
        let digest = HEXLOWER.decode(progress.borrow_and_update().digest.as_bytes()).ok();
        let name = rosters.borrow_and_update().name_of(&this.me);
        this.vitals.tell(|own| {
            own.digest = digest;
            own.name = Some(name);
        });
        tokio::time::sleep(TELL_EVERY).await;
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = rosters.changed() => if changed.is_err() { return },
        }
    }
}

/// Runs a session with one of those who hold something else than this node, now and then.
pub(super) async fn compare_digests(this: Arc<Membership>) {
    let room = Arc::new(Semaphore::new(SESSIONS_BEGUN_MAX));
    let mut ticks = tokio::time::interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Since when each member's digest differs, and what the two were when this node last looked.
    let mut differing: BTreeMap<NodeId, (Instant, Vec<u8>, String)> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let own = this.replica.progress().borrow().digest.clone();
        let alive = this.alive();
        let told = this.vitals.all().borrow().clone();
        let mut due = Vec::new();
        let mut still = BTreeMap::new();
        for (node, vital) in told.iter().filter(|(node, _)| alive.contains(node)) {
            let Some(digest) = &vital.vitals.digest else { continue };
            if HEXLOWER.encode(digest) == own {
                continue;
            }
            let before = differing.remove(node);
            let since = before.as_ref().map_or_else(Instant::now, |(since, _, _)| *since);
            // What changes right now is on its way by push.
            let stands = before.is_some_and(|(_, theirs, mine)| theirs == *digest && mine == own);
            if stands || since.elapsed() > DIFFERENCE_MAX {
                due.push(*node);
            }
            still.insert(*node, (since, digest.clone(), own.clone()));
        }
        differing = still;
        let chosen = due.choose(&mut rand::rng()).copied();
        // A peer that hangs holds one place, and not the sessions with the others.
        if let (Some(peer), Ok(place)) = (chosen, room.clone().try_acquire_owned()) {
            differing.remove(&peer);
            let membership = this.clone();
            this.spawn(async move {
                membership.synchronise(peer).await;
                drop(place);
            });
        }
    }
}
