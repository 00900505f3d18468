//! Carries what arrives from members to the task that owns it, in bounded numbers at once.

use std::sync::Arc;

use peerage_proto::wire::CloseCode;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tracing::{debug, warn};

use super::liveness::Heard;
use super::members::Members;
use super::sessions::Sessions;
use super::tasks::Tasks;
use super::vitals::Received;
use crate::admission::{Pending, answer};
use crate::mesh::{Datagram, Frame, Mesh, Message, Session};
use crate::replica::sync::SyncError;
use crate::replica::{ReplicaHandle, WriteFailure};

/// How many pushed frames are verified and merged at once.
const PUSHES_AT_ONCE: usize = 32;

/// How many sessions that other members began are served at once.
const SESSIONS_SERVED_MAX: usize = 8;

/// A queue of the mesh, lent to one membership after the other.
pub type Lent<T> = Arc<Mutex<mpsc::Receiver<T>>>;

/// Where the mesh hands in what arrives from members.
#[derive(Clone)]
pub struct Inbound {
    /// For the failure detector.
    pub datagrams: Lent<Datagram>,
    /// For the vitals.
    pub vitals: Lent<Message>,
    /// The digests of other members.
    pub digests: Lent<Message>,
    /// For the replica.
    pub frames: Lent<Frame>,
    /// For anti-entropy.
    pub sessions: Lent<Session>,
    /// Questions about invitations.
    pub questions: Lent<Session>,
    /// Looks at this node's clock.
    pub clocks: Lent<Session>,
}

pub(super) async fn carry_datagrams(from: Lent<Datagram>, to: mpsc::Sender<Heard>) {
    let mut from = from.lock().await;
    while let Some(Datagram { from, bytes }) = from.recv().await {
        // A full queue loses datagrams, as a network would.
        let _ = to.try_send(Heard { from, bytes });
    }
}

pub(super) async fn carry_messages(from: Lent<Message>, to: mpsc::Sender<Received>) {
    let mut from = from.lock().await;
    while let Some(Message { from, bytes }) = from.recv().await {
        let _ = to.try_send(Received { from, bytes });
    }
}

pub(super) async fn take_frames(
    frames: Lent<Frame>,
    members: Members,
    sessions: Sessions,
    mesh: Mesh,
    tasks: Tasks,
) {
    let mut frames = frames.lock().await;
    let room = Arc::new(Semaphore::new(PUSHES_AT_ONCE));
    while let Some(Frame { from, bytes }) = frames.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        if !members.roster().is_current(&from) {
            // The peer was put out just now: its connection is about to be closed.
            continue;
        }
        let (sessions, mesh) = (sessions.clone(), mesh.clone());
        tasks.spawn(async move {
            match sessions.take_push(from, &bytes).await {
                Ok(()) => {}
                Err(SyncError::Own(WriteFailure::Stopping)) => {
                    debug!(peer = %from.short(), "a push came as this node stops");
                }
                Err(error) => {
                    warn!(peer = %from.short(), %error, "a push came to nothing");
                    if error.is_the_peers_fault() {
                        mesh.close(from, CloseCode::Protocol, &error.to_string());
                    }
                }
            }
            drop(place);
        });
    }
}

pub(super) async fn serve_sessions(
    asked: Lent<Session>,
    replica: ReplicaHandle,
    sessions: Sessions,
    tasks: Tasks,
) {
    let mut asked = asked.lock().await;
    let room = Arc::new(Semaphore::new(SESSIONS_SERVED_MAX));
    while let Some(Session { from, send, recv }) = asked.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        if replica.is_closed() {
            // A closed replica means that this node is about to leave, and the peer may count on
            // what this node holds: so this node runs no session any more.
            continue;
        }
        let sessions = sessions.clone();
        tasks.spawn(async move {
            if let Err(error) = sessions.run(from, send, recv).await {
                debug!(peer = %from.short(), %error, "a session ended early");
            }
            drop(place);
        });
    }
}

pub(super) async fn answer_questions(
    questions: Lent<Session>,
    members: Members,
    pending: Arc<Pending>,
    tasks: Tasks,
) {
    let mut questions = questions.lock().await;
    while let Some(Session { from, mut send, mut recv }) = questions.recv().await {
        let (roster, pending) = (members.roster(), pending.clone());
        tasks.spawn(async move {
            if let Err(error) = answer(&roster, &pending, &mut send, &mut recv).await {
                debug!(peer = %from.short(), %error, "a question was not answered");
            }
        });
    }
}
