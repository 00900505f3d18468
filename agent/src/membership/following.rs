//! What follows from changes of who belongs, who is connected, and who is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::{Evidence, State, Why};
use peerage_proto::roster::{Roster, Standing};
use peerage_proto::wire::CloseCode;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tracing::{debug, info, warn};

use super::{End, Membership, stalls};
use crate::feed::Feed;
use crate::feed::Happening;
use crate::host::clock::Clock;
use crate::mesh::{self, DialError, DisconnectReason};

/// How long a peer that was put out stays connected, to hear so.
const PARTING_LINGER: Duration = Duration::from_secs(1);

/// Up to how many members this node connects with all of them at once, rather than when needed.
pub(super) const CONNECT_ALL_MAX: usize = 64;

/// What one stall does to the local health multiplier.
const OF_ONE_STALL: u32 = 2;

/// How long the node of the higher id leaves the dial to the other.
const DIALLED_WITHIN: Duration = Duration::from_millis(250);

/// Up to how many members the log names each one that is heard of for the first time.
const MET_TOLD_MAX: usize = 64;

/// How many sessions run at once with peers because they were just met.
const SESSIONS_AT_MEETINGS_MAX: usize = 8;

/// Acts on every change of who belongs.
pub(super) async fn follow_roster(
    this: Arc<Membership>,
    members: watch::Sender<BTreeSet<NodeId>>,
    happenings: Feed<Happening>,
    clock: Clock,
    ended: mpsc::Sender<End>,
) {
    let mut views = this.replica.views();
    let mut before = views.borrow_and_update().roster.clone();
    connect_with(&this, &before, &Roster::default());
    loop {
        let roster = views.borrow_and_update().roster.clone();
        for event in roster.events_since(&before) {
            let happening = Happening::of_roster(&event, &roster);
            info!("{}", happening.message);
            happenings.tell(happening, clock.now().wall_ms);
        }
        members.send_if_modified(|current| {
            let now = roster.others(this.me).collect();
            let changed = *current != now;
            *current = now;
            changed
        });
        this.renew_hello().await;
        this.mesh.review_paths();
        connect_with(&this, &roster, &before);
        part_with(&this, &roster);
        match roster.member(&this.me).map(|me| &me.standing) {
            Some(Standing::Member) | None => {}
            Some(standing) => {
                let _ = ended.send(End::Standing(standing.clone())).await;
                return;
            }
        }
        before = roster;
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Connects with members that are new, so that each is seen at once.
fn connect_with(this: &Arc<Membership>, roster: &Roster, before: &Roster) {
    if roster.current().count() > CONNECT_ALL_MAX {
        return;
    }
    let new = roster.others(this.me).filter(|id| !before.is_current(id));
    for peer in new {
        let membership = this.clone();
        this.spawn(async move {
            if membership.me > peer {
                // The other one dials, unless it is not there yet: of two dials one is for nothing.
                tokio::time::sleep(DIALLED_WITHIN).await;
            }
            if let Err(error) = membership.mesh.connect(peer).await {
                debug!(peer = %peer.short(), %error, "not connected");
            }
        });
    }
}

/// Hangs up on peers that no longer belong, once they had the time to hear of it.
fn part_with(this: &Arc<Membership>, roster: &Roster) {
    let gone = roster.all().filter(|m| !m.is_current() && this.mesh.is_connected(m.id));
    for peer in gone.map(|member| member.id) {
        let membership = this.clone();
        this.spawn(async move {
            tokio::time::sleep(PARTING_LINGER).await;
            if !membership.roster().is_current(&peer) {
                membership.mesh.close(peer, CloseCode::Removed, "no longer a member");
            }
        });
    }
}

/// Tells the failure detector what connections say, and catches up with whom it meets.
pub(super) async fn follow_mesh(this: Arc<Membership>) {
    let room = Arc::new(Semaphore::new(SESSIONS_AT_MEETINGS_MAX));
    let meet = |peer: NodeId, theirs: Option<String>| {
        if !this.roster().is_current(&peer) {
            // It was put out between its hello and now.
            return this.mesh.close(peer, CloseCode::Removed, "no longer a member");
        }
        this.liveness.met(peer);
        // One of the two starts the session, so that they do not run two; none does where both hold
        // the same. Where many meet at once a few sessions bring what is new, and what is missing
        // after that is found by comparing.
        let membership = this.clone();
        let place = (this.me < peer).then(|| room.clone().try_acquire_owned().ok()).flatten();
        this.spawn(async move {
            let same = match &theirs {
                Some(theirs) => membership.agrees(peer, theirs.as_bytes()).await,
                None => false,
            };
            if !same && place.is_some() {
                let _ = membership.synchronise(peer).await;
            }
        });
    };
    let mut events = this.mesh.events();
    this.mesh.peers().into_iter().for_each(|connected| meet(connected.peer, None));
    loop {
        let event = events.recv().await;
        if may_change_stalls(&event) {
            stalls::review(&this);
        }
        match event {
            Ok(mesh::Event::Connected { peer, hello }) => meet(peer, hello.digest.clone()),
            Ok(mesh::Event::Moved { peer, from, to, lossy }) => {
                let roster = this.roster();
                let name = roster.name_of(&peer);
                let way = |path: mesh::Path| match path {
                    mesh::Path::Direct(address) => address.to_string(),
                    mesh::Path::Through(other) => format!("through {}", roster.name_of(&other)),
                };
                let (from, to) = (way(from), way(to));
                let message = format!("{name} is reached another way: {to}, and before {from}");
                info!("{message}");
                this.tell("path", &name, message);
                if lossy {
                    // What was pushed on the former path may be lost.
                    catch_up(&this, peer);
                }
            }
            Ok(mesh::Event::Disconnected { peer, reason }) => match reason {
                DisconnectReason::ByPeer {
                    code: CloseCode::Shutdown | CloseCode::Leaving, ..
                } => this.liveness.left(peer),
                // The agent may have ended without a word.
                DisconnectReason::ByPeer { code: CloseCode::Dropped, .. }
                | DisconnectReason::Silent
                | DisconnectReason::Failed(_) => {
                    this.liveness.evidence(peer, Evidence::Unreachable);
                }
                // A reset comes from an agent that is up again.
                DisconnectReason::Here { .. }
                | DisconnectReason::ByPeer { .. }
                | DisconnectReason::Reset => {}
            },
            Ok(mesh::Event::Refused { peer, .. }) => {
                this.liveness.evidence(peer, Evidence::Refused);
            }
            // Who was reached and said no is alive.
            Ok(mesh::Event::Unreachable { peer, error: DialError::Unreachable { .. }, .. }) => {
                this.liveness.evidence(peer, Evidence::Unreachable);
            }
            Ok(mesh::Event::Unreachable { .. }) => {}
            Ok(mesh::Event::Stalled { .. }) | Err(RecvError::Lagged(_)) => {}
            Ok(mesh::Event::Released { peer }) => catch_up(&this, peer),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whether something large may get through now to a member to which it did not, or no longer.
fn may_change_stalls(event: &Result<mesh::Event, RecvError>) -> bool {
    match event {
        Ok(event) => matches!(
            event,
            mesh::Event::Stalled { .. }
                | mesh::Event::Released { .. }
                | mesh::Event::Moved { .. }
                | mesh::Event::Disconnected { .. }
        ),
        Err(_) => true,
    }
}

/// Runs a session with a member to which something that was pushed may be lost.
fn catch_up(this: &Arc<Membership>, peer: NodeId) {
    let membership = this.clone();
    this.spawn(async move {
        let _ = membership.synchronise(peer).await;
    });
}

/// Runs a session with each member that is reached, whenever there is more for them than is pushed;
/// with each one at a time, and one more where there was news meanwhile.
pub(super) async fn spread_what_is_large(this: Arc<Membership>, large: Arc<Notify>) {
    let room = Arc::new(Semaphore::new(SESSIONS_AT_MEETINGS_MAX));
    // With whom a session is due or under way, and whether there was news since it began.
    let under_way: Arc<Due> = Arc::default();
    loop {
        large.notified().await;
        for peer in this.reached() {
            if locked(&under_way).insert(peer, true).is_some() {
                continue;
            }
            let (membership, room, under_way) = (this.clone(), room.clone(), under_way.clone());
            this.spawn(async move {
                while is_due(&under_way, peer) {
                    let Ok(_place) = room.acquire().await else { return };
                    // What fails here is found by comparing.
                    let _ = membership.synchronise(peer).await;
                }
            });
        }
    }
}

type Due = Mutex<BTreeMap<NodeId, bool>>;

/// Whether a session with a member is due, which begins then; if not, none is under way any more.
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

pub(super) async fn follow_liveness(
    this: Arc<Membership>,
    happenings: Feed<Happening>,
    clock: Clock,
) {
    let mut events = this.liveness.events();
    loop {
        match events.recv().await {
            Ok(event) => {
                let happening = Happening::of_liveness(&event, &this.roster());
                // After a start every member is heard of for the first time, however many there are.
                let is_news =
                    event.why != Why::Met || this.roster().current().count() <= MET_TOLD_MAX;
                match is_news {
                    true => info!("{}", happening.message),
                    false => debug!("{}", happening.message),
                }
                happenings.tell(happening, clock.now().wall_ms);
                follow_up(&this, event.node, event.from, event.to);
            }
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "changes of liveness went by untold");
                let standings = this.liveness.standings().borrow().clone();
                for (node, standing) in standings.iter() {
                    follow_up(&this, *node, State::Unknown, standing.state);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Lets go of the connection with one that is dead, and connects with one that is back.
fn follow_up(this: &Arc<Membership>, node: NodeId, from: State, to: State) {
    match (from, to) {
        (_, State::Down) => this.mesh.abandon(node),
        (State::Unknown | State::Down | State::Left, State::Alive | State::Suspect) => {
            this.mesh.forgive(node);
            if !this.mesh.is_connected(node) && this.roster().current().count() <= CONNECT_ALL_MAX {
                let membership = this.clone();
                this.spawn(async move {
                    // Whoever needs it dials again.
                    let _ = membership.mesh.connect(node).await;
                });
            }
        }
        _ => {}
    }
}

/// Tells the mesh how far behind this host is. That it stood still once is no reason to look later
/// for a path that broke.
pub(super) async fn follow_health(this: Arc<Membership>) {
    let mut health = this.liveness.local_health_multiplier();
    loop {
        let multiplier = *health.borrow_and_update();
        this.mesh.slow_down(multiplier.saturating_sub(OF_ONE_STALL).max(1));
        if health.changed().await.is_err() {
            return this.mesh.slow_down(1);
        }
    }
}

/// Tells the mesh who is heard through another member only: the path to it may be broken.
pub(super) async fn follow_standings(this: Arc<Membership>) {
    let mut standings = this.liveness.standings();
    let mut before = BTreeMap::new();
    loop {
        let now: BTreeMap<NodeId, NodeId> = standings
            .borrow_and_update()
            .iter()
            .filter_map(|(node, standing)| Some((*node, standing.through?)))
            .collect();
        for (node, through) in &now {
            if before.get(node) != Some(through) {
                this.mesh.heard_through(*node, *through);
            }
        }
        before = now;
        if standings.changed().await.is_err() {
            return;
        }
    }
}
