//! Brings changes that are too large to be pushed to the other members, by a session with each of
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_proto::id::NodeId;
use tokio::sync::{Notify, Semaphore};

use super::members::Members;
use super::sessions::Sessions;
use super::tasks::Tasks;

/// How many sessions run at once because a commit was too large to be pushed.
const SESSIONS_MAX: usize = 8;

/// Runs a session with each member that is reached, whenever a commit was too large to be pushed.
/// One session runs with each member at a time, and one more follows where another such commit came
/// meanwhile.
pub(super) async fn spread_what_is_large(
    large: Arc<Notify>,
    members: Members,
    sessions: Sessions,
    tasks: Tasks,
) {
    let room = Arc::new(Semaphore::new(SESSIONS_MAX));
    // The members with whom a session is due or under way, and whether there was news since it
    // began.
    let under_way: Arc<Due> = Arc::default();
    loop {
        large.notified().await;
        for peer in members.reached() {
            if locked(&under_way).insert(peer, true).is_some() {
                continue;
            }
            let (sessions, room, under_way) = (sessions.clone(), room.clone(), under_way.clone());
            tasks.spawn(async move {
                while is_due(&under_way, peer) {
                    let Ok(_place) = room.acquire().await else { return };
                    // What a failed session did not bring is found by comparing digests.
                    let _ = sessions.synchronise(peer).await;
                }
            });
        }
    }
}

type Due = Mutex<BTreeMap<NodeId, bool>>;

/// Whether a session with a member is due; if so, it counts as begun. If not, the member is taken
/// off the list, since no session with it is under way any more.
fn is_due(due: &Due, peer: NodeId) -> bool {
    let mut due = locked(due);
    match due.get_mut(&peer) {
        Some(news @ true) => {
            *news = false;
            true
        }
        _ => {
            due.remove(&peer);
            false
        }
    }
}

fn locked(due: &Due) -> MutexGuard<'_, BTreeMap<NodeId, bool>> {
    due.lock().unwrap_or_else(PoisonError::into_inner)
}
