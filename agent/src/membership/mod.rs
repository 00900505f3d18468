//! The tasks of a node that belongs to a Data Center, from joining or starting until it leaves or
//! is put out.
//!
//! Everything here is wired by channels that never block an owner: the mesh hands in datagrams,
//! messages, frames and sessions; the replica, the failure detector and the vitals each own their
//! state; this file only carries between them.

mod addresses;
mod calling;
mod comparing;
mod following;
mod inbound;
mod isolation;
pub mod liveness;
mod notices;
mod objections;
mod openings;
mod stalls;
pub mod timekeeping;
pub mod vitals;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use peerage_proto::address::Address;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::liveness::State;
use peerage_proto::replica::{Replica, SignedChange, Vector};
use peerage_proto::roster::{Roster, Standing, admission_chain};
use peerage_proto::time::Now;
use peerage_proto::vitals::Vitals;
use peerage_proto::wire::{Hello, StreamCode, StreamKind, WIRE_VERSION};
use quinn::{RecvStream, SendStream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::Pending;
use crate::feed::Feed;
use crate::feed::Happening;
use crate::host::clock::Clock;
use crate::host::links::NetworkLook;
use crate::membership::liveness::{Heard, LivenessHandle};
use crate::membership::timekeeping::{ClockStanding, Timekeeper};
use crate::membership::vitals::{Messages, Received, VitalsHandle};
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::replica::receipts::Receipts;
use crate::replica::sync::{Pusher, SessionReport, SyncError, session};
use crate::replica::{Disk, Outlet, ReplicaHandle, ReplicaTask, Views};

pub use inbound::{Inbound, Lent, MeshOutbox};
pub use notices::name_clash;
pub use objections::{Contested, Grounds};
pub use stalls::stalled;

use addresses::follow_addresses;
use calling::call_those_put_out;
use comparing::{compare_digests, tell_vitals};
use following::{
    follow_health, follow_liveness, follow_mesh, follow_roster, follow_standings,
    spread_what_is_large,
};
use inbound::{answer_questions, carry_datagrams, carry_messages, serve_sessions, take_frames};
use isolation::follow_sight;
use notices::{OF_A_MEMBER, follow_notices, follow_room};
use objections::Objections;
use openings::Openings;

/// How long [`Membership::stop`] waits for the tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How many admissions a hello shows: this node's, and those that led to it.
const PROOF_LINKS: usize = 8;

/// Where commits go out to: the others, and those who watch here.
struct Out {
    pusher: Pusher<MeshOutbox>,
    changes: Feed<SignedChange>,
    happenings: Feed<Happening>,
    views: watch::Receiver<Views>,
    /// Told where there is more for the others than is pushed to them.
    large: Arc<Notify>,
    clock: Clock,
}

/// How many bytes of settings are pushed at once. What is more would fill the queue of a peer that is
/// slower than the disk.
const PUSH_BYTES_MAX: usize = 1024 * 1024;

/// How many changes that are told at once are events of their own.
const HAPPENINGS_MAX: usize = 256;

impl Outlet for Out {
    fn push(&mut self, changes: &[SignedChange], receipt: bool) {
        let settings = || changes.iter().filter(|change| !change.path.is_reserved());
        if settings().map(|change| change.bytes().len()).sum::<usize>() <= PUSH_BYTES_MAX {
            return self.pusher.push(changes, receipt);
        }
        // Sessions bring it, each at the pace of its peer. What is said of members goes at once.
        let records = changes.iter().filter(|change| change.path.is_reserved());
        self.pusher.push(&records.cloned().collect::<Vec<_>>(), receipt);
        self.large.notify_one();
    }

    fn tell(&mut self, changes: &[SignedChange]) {
        let at_ms = self.clock.now().wall_ms;
        let settings = || changes.iter().filter(|change| !change.path.is_reserved());
        let views = self.views.borrow();
        let happenings: Vec<_> = match settings().count() {
            0 => return,
            1..=HAPPENINGS_MAX => {
                settings().map(|change| Happening::of_change(change, &views.roster)).collect()
            }
            _ => Happening::of_many_changes(settings(), &views.roster),
        };
        self.happenings.tell_all(happenings, at_ms);
        self.changes.tell_all(settings().cloned(), at_ms);
    }
}

/// What a membership is made of.
pub struct Parts<D> {
    /// This node's key.
    pub key: Keypair,
    /// The number of this start of the agent.
    pub boot: u64,
    /// What tells this start from that of another host with the same key.
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
    pub look: vitals::host::Look,
    /// How its network is looked at.
    pub network: NetworkLook,
    /// The replica, as the disk holds it.
    pub replica: Replica,
    /// The disk.
    pub disk: Arc<D>,
    /// The mesh.
    pub mesh: Mesh,
    /// What arrives by it.
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

/// Why a membership ends by itself.
#[derive(Debug, Clone)]
pub enum End {
    /// The node was removed, or is held to have left.
    Standing(Standing),
    /// Another host with this node's key is alive, and was started before this one.
    Twin {
        /// The member that said so.
        by: String,
        /// What it said.
        cause: String,
    },
    /// The disk fails for good.
    Disk(Arc<str>),
}

/// A running membership.
pub struct Membership {
    /// The Data Center.
    pub datacenter: DataCenterId,
    /// This node.
    pub me: NodeId,
    /// The replica.
    pub replica: ReplicaHandle,
    /// The failure detector.
    pub liveness: LivenessHandle,
    /// The vitals.
    pub vitals: VitalsHandle,
    /// The admissions under way.
    pub pending: Arc<Pending>,
    /// The mesh.
    pub mesh: Mesh,
    /// How this node's clock stands.
    pub time: watch::Receiver<ClockStanding>,
    /// The states of this node that need a person.
    pub notices: Notices,
    ended: mpsc::Sender<End>,
    happenings: Feed<Happening>,
    clock: Clock,
    receipts: Arc<Receipts>,
    objections: Objections,
    network: NetworkLook,
    hello: watch::Sender<Hello>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What [`Membership::open`] still needs.
pub struct Opening {
    inbound: Inbound,
    members: watch::Sender<BTreeSet<NodeId>>,
    heard: mpsc::Sender<Heard>,
    received: mpsc::Sender<Received>,
    happenings: Feed<Happening>,
    addresses: watch::Receiver<Vec<Address>>,
    clock: Clock,
    look: vitals::host::Look,
    time: watch::Sender<ClockStanding>,
    large: Arc<Notify>,
}

/// Takes vitals to peers.
struct VitalsOut {
    mesh: Mesh,
}

impl Messages for VitalsOut {
    fn send_message(&self, node: NodeId, message: Bytes) {
        self.mesh.send_message(node, StreamKind::Chitchat, message);
    }

    fn has_time(&self) -> bool {
        // By chance: vitals count rounds themselves, and two counts could miss each other for ever.
        rand::random_range(0..self.mesh.lateness()) == 0
    }
}

impl Membership {
    /// Starts what this node knows by itself. Once the mesh's gate can see the membership,
    /// [`Membership::open`] lets the others in.
    pub async fn start<D: Disk>(parts: Parts<D>) -> (Arc<Self>, Opening) {
        let Parts { key, boot, clock, mesh, replica, .. } = parts;
        let (me, datacenter) = (key.node_id(), replica.datacenter());
        let receipts = Arc::new(Receipts::default());
        let large = Arc::new(Notify::new());
        let outlet = |views: watch::Receiver<Views>| {
            let outbox = Arc::new(MeshOutbox(mesh.clone()));
            let pusher = Pusher::new(me, outbox, views.clone(), rand::random());
            let (changes, happenings) = (parts.changes.clone(), parts.happenings.clone());
            Out { pusher, changes, happenings, views, large: large.clone(), clock }
        };
        let (task, replica) =
            ReplicaTask::new(replica, parts.disk, outlet, receipts.clone(), clock);
        let members: watch::Sender<BTreeSet<NodeId>> =
            watch::Sender::new(replica.views().borrow().roster.others(me).collect());
        let (heard, inbox) = mpsc::channel(liveness::INBOX_LEN);
        let datagrams = {
            let (mesh, members) = (mesh.clone(), members.subscribe());
            let openings = std::sync::Mutex::new(Openings::new(Instant::now()));
            move |node: NodeId, datagram: Bytes| {
                let mut openings = openings.lock().unwrap_or_else(PoisonError::into_inner);
                let others = members.borrow().len();
                let mut admitted =
                    || openings.admit(&datagram, others, mesh.lateness(), Instant::now());
                if mesh.is_connected(node) || admitted() {
                    mesh.send_datagram(node, datagram);
                }
            }
        };
        let rng = StdRng::seed_from_u64(rand::random());
        let liveness = LivenessHandle::spawn(
            me,
            boot,
            rng,
            clock.zero(),
            members.subscribe(),
            inbox,
            datagrams,
        );
        let own = Vitals {
            version: Some(parts.version.clone()),
            boot: Some(boot),
            started_ms: Some(started_ms(clock.now())),
            addresses: parts.addresses.borrow().iter().map(Address::to_string).collect(),
            ..Vitals::default()
        };
        let (received, vitals_inbox) = mpsc::channel(vitals::INBOX_LEN);
        let vitals = VitalsHandle::spawn(
            me,
            boot,
            datacenter,
            own,
            members.subscribe(),
            vitals_inbox,
            VitalsOut { mesh: mesh.clone() },
        );
        let hello = Hello {
            wire_version: WIRE_VERSION,
            datacenter,
            name: String::new(),
            boot,
            wall_ms: 0,
            addresses: parts.addresses.borrow().clone(),
            proof: Vec::new(),
            supersedes: None,
            carries: true,
            instance: Some(parts.instance),
            machine: parts.machine.map(ByteBuf::from),
            only_looks: false,
            digest: None,
            version: Some(parts.version),
        };
        let (time, time_rx) = watch::channel(ClockStanding::default());
        let this = Arc::new(Self {
            datacenter,
            me,
            replica,
            liveness,
            vitals,
            pending: Arc::default(),
            mesh,
            time: time_rx,
            notices: parts.notices,
            ended: parts.ended.clone(),
            happenings: parts.happenings.clone(),
            clock,
            receipts,
            objections: Objections::default(),
            network: parts.network,
            hello: watch::Sender::new(hello),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let ended = parts.ended;
        this.spawn(async move {
            // A bug in the rules must not leave an agent that looks alive and answers nothing.
            let outcome = AssertUnwindSafe(task.run()).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| Err("the replica's task panicked".into()));
            if let Err(cause) = outcome {
                let _ = ended.send(End::Disk(cause)).await;
            }
        });
        this.renew_hello().await;
        let opening = Opening {
            inbound: parts.inbound,
            members,
            heard,
            received,
            happenings: parts.happenings,
            addresses: parts.addresses,
            clock,
            look: parts.look,
            time,
            large,
        };
        (this, opening)
    }

    /// Begins to talk with the others.
    pub fn open(self: &Arc<Self>, opening: Opening) {
        let Opening { inbound, members, heard, received, happenings, .. } = opening;
        let Opening { addresses, clock, look, time, large, .. } = opening;
        let this = || self.clone();
        self.spawn(carry_datagrams(inbound.datagrams, heard));
        self.spawn(carry_messages(inbound.vitals, received));
        self.spawn(take_frames(this(), inbound.frames));
        self.spawn(serve_sessions(this(), inbound.sessions));
        self.spawn(answer_questions(this(), inbound.questions));
        self.spawn(follow_mesh(this()));
        self.spawn(follow_liveness(this(), happenings.clone(), clock));
        self.spawn(follow_standings(this()));
        self.spawn(follow_health(this()));
        self.spawn(spread_what_is_large(this(), large));
        let known = members.subscribe();
        let timekeeper = Timekeeper::new(this(), known, clock, time);
        self.spawn(timekeeper.run(inbound.clocks));
        self.spawn(follow_roster(this(), members, happenings, clock, self.ended.clone()));
        self.spawn(tell_vitals(this()));
        self.spawn(follow_notices(this()));
        self.spawn(follow_sight(this()));
        self.spawn(follow_room(this()));
        self.spawn(vitals::host::tell_samples(self.vitals.clone(), look));
        self.spawn(compare_digests(this(), inbound.digests));
        self.spawn(follow_addresses(this(), addresses));
        self.spawn(call_those_put_out(this()));
    }

    /// Ends all tasks; with a goodbye, the others are told first.
    pub async fn stop(&self, goodbye: bool) {
        if goodbye {
            self.liveness.goodbye().await;
        }
        self.vitals.stop().await;
        self.stop.cancel();
        self.tasks.close();
        if timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            warn!("some tasks of the membership are slow to end");
        }
        self.notices.forget(&OF_A_MEMBER);
    }

    /// The members, as of the last commit.
    pub fn roster(&self) -> Arc<Roster> {
        self.replica.views().borrow().roster.clone()
    }

    /// Says that this membership has come to its end, which it cannot bring about itself.
    pub fn end(&self, end: End) {
        // Full means that as much was said several times, and is not taken in yet.
        let _ = self.ended.try_send(end);
    }

    /// Tells those who follow what happens of something about a member.
    pub fn tell(&self, kind: &'static str, member: &str, message: String) {
        self.happenings.tell(Happening::here(kind, member, message), self.clock.now().wall_ms);
    }

    /// What this node says first to a peer; the clock in it is not set.
    pub fn hello(&self) -> Hello {
        Hello { digest: Some(self.digest()), ..self.hello.borrow().clone() }
    }

    /// The digest of what is on this node's disk.
    fn digest(&self) -> String {
        self.replica.progress().borrow().digest.clone()
    }

    /// Whether a peer whose disk has this digest holds what this node holds. Where that is
    /// news, or someone here waits for receipts, it counts as one of all that this node holds.
    async fn agrees(&self, peer: NodeId, theirs: &[u8]) -> bool {
        if self.digest().as_bytes() != theirs {
            return false;
        }
        if self.receipts.are_awaited() || !self.receipts.knows_agreement(theirs) {
            let both = |replica: &Replica| (replica.digest(), replica.durable_vector().clone());
            // An error means that this node stops.
            if let Ok((ours, vector)) = self.replica.read(both).await
                && ours.as_bytes() == theirs
            {
                self.receipts.note_vector(peer, &vector);
                self.receipts.note_agreement(theirs);
            }
        }
        true
    }

    /// The current members that are believed to be alive, without this node.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        let standings = self.liveness.standings().borrow().clone();
        let roster = self.roster();
        let alive = |id: &NodeId| standings.get(id).is_some_and(|s| s.state == State::Alive);
        roster.others(self.me).filter(alive).collect()
    }

    /// The current members that answer, or may: all but those that are known to be away. This node
    /// is not among them.
    pub fn reached(&self) -> BTreeSet<NodeId> {
        let standings = self.liveness.standings().borrow().clone();
        let roster = self.roster();
        let is_away = |id: &NodeId| {
            standings.get(id).is_some_and(|s| matches!(s.state, State::Down | State::Left))
        };
        roster.others(self.me).filter(|id| !is_away(id)).collect()
    }

    /// What another node was known to hold since this agent started.
    pub fn seen_elsewhere(&self) -> Vector {
        self.receipts.seen_elsewhere()
    }

    /// Runs a session with a member now. Tells whether it came to its end: then the member has on its
    /// disk what this node had on its own.
    pub async fn synchronise(&self, peer: NodeId) -> bool {
        let outcome = match self.mesh.open(peer, StreamKind::Sync).await {
            Ok((send, recv)) => self.run_session(peer, send, recv).await,
            Err(error) => {
                debug!(peer = %peer.short(), %error, "no session");
                return false;
            }
        };
        match &outcome {
            Ok(report) if report.sent + report.received > 0 => {
                info!(
                    peer = self.roster().name_of(&peer),
                    sent = report.sent,
                    received = report.received,
                    "caught up"
                );
            }
            Ok(_) => {}
            Err(error) => debug!(peer = %peer.short(), %error, "a session ended early"),
        }
        outcome.is_ok()
    }

    /// Runs a session on a stream, unless nothing large gets through to the peer: then what was sent
    /// is taken back, so that it is not in the way of what is small.
    async fn run_session(
        &self,
        peer: NodeId,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<SessionReport, SyncError> {
        let outcome = tokio::select! {
            biased;
            () = self.mesh.holds_back(peer) => None,
            outcome = session(peer, &mut send, &mut recv, &self.replica, &self.receipts) => {
                Some(outcome)
            }
        };
        outcome.unwrap_or_else(|| {
            // It may have ended by itself.
            let _ = send.reset(StreamCode::TooSlow.number().into());
            let _ = recv.stop(StreamCode::TooSlow.number().into());
            Err(SyncError::Stalled)
        })
    }

    async fn renew_hello(&self) {
        let me = self.me;
        let chain = self.replica.read(move |replica| admission_chain(replica, &me, PROOF_LINKS));
        let chain = chain.await.unwrap_or_default();
        let name = self.roster().name_of(&me);
        self.hello.send_modify(|hello| {
            hello.name = name;
            hello.proof = chain.iter().map(|c| ByteBuf::from(c.bytes().to_vec())).collect();
        });
    }

    /// Runs a task for as long as the membership goes on.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }
}

/// When the agent started, by its clock now; zero where that was set back to before.
fn started_ms(now: Now) -> u64 {
    now.wall_ms.saturating_sub(now.mono.as_millis() as u64)
}
