//! Acts on changes of who is connected: the failure detector hears of them, and two members that
//! meet give each other what they lack.

use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::liveness::Evidence;
use peerage_proto::wire::CloseCode;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

use super::chronicle::Chronicle;
use super::liveness::LivenessHandle;
use super::members::Members;
use super::sessions::Sessions;
use super::stalls;
use super::tasks::Tasks;
use crate::mesh::{DialError, DisconnectReason, Event, Mesh, Path};
use crate::notices::Notices;

/// How many sessions run at once with peers because they were just met.
const SESSIONS_MAX: usize = 8;

/// The task that follows the mesh.
pub(super) struct Meetings {
    pub(super) members: Members,
    pub(super) mesh: Mesh,
    pub(super) liveness: LivenessHandle,
    pub(super) sessions: Sessions,
    pub(super) notices: Notices,
    pub(super) chronicle: Chronicle,
    pub(super) tasks: Tasks,
}

impl Meetings {
    /// Follows the mesh for as long as it lives.
    pub(super) async fn follow(self) {
        let room = Arc::new(Semaphore::new(SESSIONS_MAX));
        let mut events = self.mesh.events();
        let connected = self.mesh.peers();
        connected.into_iter().for_each(|connected| self.meet(connected.peer, None, &room));
        loop {
            let event = events.recv().await;
            if may_change_stalls(&event) {
                stalls::review(&self.members, &self.mesh, &self.notices);
            }
            match event {
                Ok(Event::Connected { peer, hello }) => {
                    self.meet(peer, hello.digest.clone(), &room);
                }
                Ok(Event::Moved { peer, from, to, lossy }) => {
                    self.tell_moved(peer, from, to);
                    if lossy {
                        // What was pushed on the former path may be lost.
                        self.catch_up(peer);
                    }
                }
                Ok(Event::Disconnected { peer, reason }) => self.part(peer, &reason),
                Ok(Event::Refused { peer, .. }) => {
                    self.liveness.evidence(peer, Evidence::Refused);
                }
                // A node that was reached and refused the dial is alive.
                Ok(Event::Unreachable { peer, error: DialError::Unreachable { .. }, .. }) => {
                    self.liveness.evidence(peer, Evidence::Unreachable);
                }
                Ok(Event::Unreachable { .. }) => {}
                Ok(Event::Stalled { .. }) | Err(RecvError::Lagged(_)) => {}
                Ok(Event::Released { peer }) => self.catch_up(peer),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Takes note of a peer that is connected now; `theirs` is the digest in its hello. `room`
    /// bounds how many of the sessions that begin here run at once.
    fn meet(&self, peer: NodeId, theirs: Option<String>, room: &Arc<Semaphore>) {
        if !self.members.roster().is_current(&peer) {
            // The peer was put out between its hello and now.
            return self.mesh.close(peer, CloseCode::Removed, "no longer a member");
        }
        self.liveness.met(peer);
        // The node with the lower id starts the session, so that the two do not run two; none runs
        // where both hold the same. Where many peers connect at once, `room` admits only a few
        // sessions, which bring what is new; what is still missing is found by comparing digests.
        let sessions = self.sessions.clone();
        let begins = self.members.me < peer;
        let place = begins.then(|| room.clone().try_acquire_owned().ok()).flatten();
        self.tasks.spawn(async move {
            let same = match &theirs {
                Some(theirs) => sessions.agrees(peer, theirs.as_bytes()).await,
                None => false,
            };
            if !same && place.is_some() {
                let _ = sessions.synchronise(peer).await;
            }
        });
    }

    /// Tells the failure detector what the end of a connection says of the peer.
    fn part(&self, peer: NodeId, reason: &DisconnectReason) {
        match reason {
            DisconnectReason::ByPeer { code: CloseCode::Shutdown | CloseCode::Leaving, .. } => {
                self.liveness.left(peer)
            }
            // The peer's agent may have ended without a goodbye.
            DisconnectReason::ByPeer { code: CloseCode::Dropped, .. }
            | DisconnectReason::Silent
            | DisconnectReason::Failed(_) => {
                self.liveness.evidence(peer, Evidence::Unreachable);
            }
            // A reset comes from an agent that is up again.
            DisconnectReason::Here { .. }
            | DisconnectReason::ByPeer { .. }
            | DisconnectReason::Reset => {}
        }
    }

    fn tell_moved(&self, peer: NodeId, from: Path, to: Path) {
        let roster = self.members.roster();
        let name = roster.name_of(&peer);
        let way = |path: Path| match path {
            Path::Direct(address) => address.to_string(),
            Path::Through(other) => format!("through {}", roster.name_of(&other)),
        };
        let (from, to) = (way(from), way(to));
        let message = format!("{name} is reached another way: {to}, and before {from}");
        info!("{message}");
        self.chronicle.tell_of(&name, "path", message);
    }

    /// Runs a session with a member that may not have received what was pushed to it.
    fn catch_up(&self, peer: NodeId) {
        let sessions = self.sessions.clone();
        self.tasks.spawn(async move {
            let _ = sessions.synchronise(peer).await;
        });
    }
}

/// Whether after this event large messages may get through to another set of members than before.
fn may_change_stalls(event: &Result<Event, RecvError>) -> bool {
    match event {
        Ok(event) => matches!(
            event,
            Event::Stalled { .. }
                | Event::Released { .. }
                | Event::Moved { .. }
                | Event::Disconnected { .. }
        ),
        Err(_) => true,
    }
}
