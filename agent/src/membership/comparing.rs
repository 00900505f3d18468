//! Tells the others this node's digest, and runs a session with a member that holds something else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use peerage_proto::id::NodeId;
use peerage_proto::wire::StreamKind;
use rand::seq::IndexedRandom;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::inbound::Lent;
use super::members::Members;
use super::sessions::Sessions;
use super::tasks::Tasks;
use super::vitals::VitalsHandle;
use crate::mesh::{Mesh, Message};
use crate::replica::ReplicaHandle;

/// How many sessions this node runs at once because of what it compared.
const SESSIONS_BEGUN_MAX: usize = 4;

/// About how often this node tells its digest to one other member; the time is drawn anew each
/// time. Whatever a push did not reach is repaired in a few times this, however many nodes there
/// are (Demers et al., "Epidemic Algorithms for Replicated Database Maintenance", 1987, section
/// 1.3).
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// How long a difference between two digests is left alone, since a push may be about to end it.
const PUSH_TIME: Duration = Duration::from_secs(1);

/// How long this node may agree with nobody, while what it holds goes on changing, before a session
/// is run all the same.
const DISAGREEMENT_MAX: Duration = Duration::from_secs(10);

/// How many members with another digest are kept in mind.
const DIFFERING_MAX: usize = 16;

/// How often at most the others are told of a new digest.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Tells the others of this node's digest and name.
pub(super) async fn tell_vitals(me: NodeId, replica: ReplicaHandle, vitals: VitalsHandle) {
    let (mut progress, mut views) = (replica.progress(), replica.views());
    loop {
        let digest = HEXLOWER.decode(progress.borrow_and_update().digest.as_bytes()).ok();
        let name = views.borrow_and_update().roster.name_of(&me);
        vitals.tell(|own| {
            own.digest = digest;
            own.name = Some(name);
        });
        tokio::time::sleep(TELL_EVERY).await;
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

/// A member that told another digest than this node's.
struct Difference {
    theirs: Bytes,
    /// This node's digest when it heard theirs.
    ours: String,
    /// When the difference is looked at again.
    due: Instant,
}

/// Tells this node's digest to one member after the other, and runs a session with each member that
/// tells another digest.
pub(super) async fn compare_digests(
    from: Lent<Message>,
    members: Members,
    sessions: Sessions,
    mesh: Mesh,
    tasks: Tasks,
) {
    let mut from = from.lock().await;
    let room = Arc::new(Semaphore::new(SESSIONS_BEGUN_MAX));
    let mut differing: BTreeMap<NodeId, Difference> = BTreeMap::new();
    let (mut tell_at, mut agreed) = (Instant::now() + drawn(COMPARE_EVERY), Instant::now());
    loop {
        let due = differing.values().map(|difference| difference.due).min();
        tokio::select! {
            message = from.recv() => {
                let Some(Message { from: peer, bytes: theirs }) = message else { return };
                let ours = sessions.digest();
                if sessions.agrees(peer, &theirs).await {
                    agreed = Instant::now();
                    differing.remove(&peer);
                } else if differing.len() < DIFFERING_MAX {
                    let due = Instant::now() + PUSH_TIME;
                    differing.entry(peer).or_insert(Difference { theirs, ours, due });
                }
            }
            () = tokio::time::sleep_until(tell_at) => {
                tell_at = Instant::now() + drawn(COMPARE_EVERY);
                let alive: Vec<NodeId> = members.alive().into_iter().collect();
                if let Some(peer) = alive.choose(&mut rand::rng()) {
                    mesh.send_message(*peer, StreamKind::Digest, sessions.digest().into());
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or(tell_at)), if due.is_some() => {
                let ours = sessions.digest();
                let is_due = |difference: &Difference| difference.due <= Instant::now();
                let due = differing.iter().filter(|(_, difference)| is_due(difference));
                let due: Vec<NodeId> = due.map(|(peer, _)| *peer).collect();
                for peer in due {
                    let Some(difference) = differing.remove(&peer) else { continue };
                    // If this node's digest has changed meanwhile, a push is probably about to end
                    // the difference.
                    let stands = difference.ours == ours || agreed.elapsed() > DISAGREEMENT_MAX;
                    if !stands || difference.theirs == ours.as_bytes() {
                        continue;
                    }
                    // A peer that hangs takes one place, and does not hold up the sessions with the
                    // others.
                    if let Ok(place) = room.clone().try_acquire_owned() {
                        let sessions = sessions.clone();
                        tasks.spawn(async move {
                            let _ = sessions.synchronise(peer).await;
                            drop(place);
                        });
                    }
                }
            }
        }
    }
}

/// A random time of about this length, so that nodes that started together do not speak together.
fn drawn(about: Duration) -> Duration {
    about.mul_f64(rand::random_range(0.5..1.5))
}
