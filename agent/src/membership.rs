//! The tasks of a node that belongs to a Data Center, from joining or starting until it leaves or
//! is put out.
//!
//! Everything here is wired by channels that never block an owner: the mesh hands in datagrams,
//! messages, frames and sessions; the replica, the failure detector and the vitals each own their
//! state; this file only carries between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::FutureExt;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::liveness::State;
use peerage_proto::replica::{Actor, Replica, SignedChange};
use peerage_proto::roster::{Roster, Standing, admission_chain, member_path};
use peerage_proto::time::Now;
use peerage_proto::vitals::Vitals;
use peerage_proto::wire::{CloseCode, Hello, StreamKind, WIRE_VERSION};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_bytes::ByteBuf;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::Pending;
use crate::clock::Clock;
use crate::events::Feed;
use crate::happening::Happening;
use crate::liveness::{self, Heard, LivenessHandle};
use crate::mesh::{self, Datagram, DisconnectReason, Frame, Mesh, Message, Session};
use crate::receipts::Receipts;
use crate::replica::{Disk, Outlet, ReplicaHandle, ReplicaTask};
use crate::sync::{Outbox, Pusher, session, take_push};
use crate::vitals::{self, Received, VitalsHandle};

/// How many pushed frames are verified and merged at once.
const PUSHES_AT_ONCE: usize = 32;

/// How many sessions of others are served at once.
const SESSIONS_SERVED_MAX: usize = 8;

/// How many sessions this node runs at once because of what it compared.
const SESSIONS_BEGUN_MAX: usize = 4;

/// How often this node looks whether it and another hold the same.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// How long a difference may last while both go on changing before a session is run all the same.
const DIFFERENCE_MAX: Duration = Duration::from_secs(10);

/// How long a peer that was put out stays connected, to hear so.
const PARTING_LINGER: Duration = Duration::from_secs(1);

/// How often at most the others are told of a new digest.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How long [`Membership::stop`] waits for the tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Up to how many members this node connects with all of them at once, rather than when needed.
const CONNECT_ALL_MAX: usize = 64;

/// How many admissions a hello shows: this node's, and those that led to it.
const PROOF_LINKS: usize = 8;

/// A queue of the mesh, lent to one membership after the other.
pub type Lent<T> = Arc<Mutex<mpsc::Receiver<T>>>;

/// Where the mesh hands in what arrives from members.
#[derive(Clone)]
pub struct Inbound {
    /// For the failure detector.
    pub datagrams: Lent<Datagram>,
    /// For the vitals.
    pub vitals: Lent<Message>,
    /// For the replica.
    pub frames: Lent<Frame>,
    /// For anti-entropy.
    pub sessions: Lent<Session>,
    /// Questions about invitations.
    pub questions: Lent<Session>,
}

/// The mesh as the outbox of pushes.
pub struct MeshOutbox(pub Mesh);

impl Outbox for MeshOutbox {
    fn enqueue(&self, peer: NodeId, frame: Bytes) {
        self.0.push(peer, frame);
    }
}

/// Where commits go out to: the others, and those who watch here.
struct Out {
    pusher: Pusher<MeshOutbox>,
    changes: Feed<SignedChange>,
    happenings: Feed<Happening>,
    roster: watch::Receiver<Arc<Roster>>,
    clock: Clock,
}

impl Outlet for Out {
    fn push(&mut self, changes: &[SignedChange], receipt: bool) {
        self.pusher.push(changes, receipt);
    }

    fn tell(&mut self, changes: &[SignedChange]) {
        let at_ms = self.clock.now().wall_ms;
        let settings = changes.iter().filter(|change| !change.path.is_reserved());
        for change in settings {
            let happening = Happening::of_change(change, &self.roster.borrow());
            self.happenings.tell(happening, at_ms);
            self.changes.tell(change.clone(), at_ms);
        }
    }
}

/// What a membership is made of.
pub struct Parts<D> {
    /// This node's key.
    pub key: Keypair,
    /// The number of this start of the agent.
    pub boot: u64,
    /// The version of the agent.
    pub version: String,
    /// Where this node is reached.
    pub addresses: Vec<SocketAddr>,
    /// The time.
    pub clock: Clock,
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
    /// Told when this node no longer belongs, or when its disk cannot be used any more.
    pub ended: mpsc::Sender<End>,
}

/// Why a membership ends by itself.
#[derive(Debug, Clone)]
pub enum End {
    /// The node was removed, or is held to have left.
    Standing(Standing),
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
    /// Held for the last look before an admission is written.
    pub last_look: Arc<Mutex<()>>,
    /// The mesh.
    pub mesh: Mesh,
    receipts: Arc<Receipts>,
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
    addresses: Vec<SocketAddr>,
    clock: Clock,
    ended: mpsc::Sender<End>,
}

impl Membership {
    /// Starts what this node knows by itself. Once the mesh's gate can see the membership,
    /// [`Membership::open`] lets the others in.
    pub async fn start<D: Disk>(parts: Parts<D>) -> (Arc<Self>, Opening) {
        let Parts { key, boot, clock, mesh, replica, .. } = parts;
        let (me, datacenter) = (key.node_id(), replica.datacenter());
        let receipts = Arc::new(Receipts::default());
        let outlet = |roster: watch::Receiver<Arc<Roster>>| {
            let outbox = Arc::new(MeshOutbox(mesh.clone()));
            let pusher = Pusher::new(me, outbox, roster.clone(), rand::random());
            let (changes, happenings) = (parts.changes.clone(), parts.happenings.clone());
            Out { pusher, changes, happenings, roster, clock }
        };
        let (task, replica) =
            ReplicaTask::new(replica, parts.disk, outlet, receipts.clone(), clock);
        let members = watch::Sender::new(others(me, &replica.roster().borrow()));
        let (heard, inbox) = mpsc::channel(liveness::INBOX_LEN);
        let datagrams = {
            let mesh = mesh.clone();
            move |node: NodeId, datagram: Bytes| mesh.send_datagram(node, datagram)
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
            version: Some(parts.version),
            boot: Some(boot),
            started_ms: Some(started_ms(clock.now())),
            addresses: parts.addresses.iter().map(SocketAddr::to_string).collect(),
            ..Vitals::default()
        };
        let (received, vitals_inbox) = mpsc::channel(vitals::INBOX_LEN);
        let messages = {
            let mesh = mesh.clone();
            move |node: NodeId, message: Bytes| {
                mesh.send_message(node, StreamKind::Chitchat, message);
            }
        };
        let vitals = VitalsHandle::spawn(
            me,
            boot,
            datacenter,
            own,
            members.subscribe(),
            vitals_inbox,
            messages,
        );
        let hello = Hello {
            wire_version: WIRE_VERSION,
            datacenter,
            name: String::new(),
            boot,
            wall_ms: 0,
            addresses: parts.addresses.clone(),
            proof: Vec::new(),
        };
        let this = Arc::new(Self {
            datacenter,
            me,
            replica,
            liveness,
            vitals,
            pending: Arc::default(),
            last_look: Arc::default(),
            mesh,
            receipts,
            hello: watch::Sender::new(hello),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let ended = parts.ended.clone();
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
            ended: parts.ended,
        };
        (this, opening)
    }

    /// Begins to talk with the others.
    pub fn open(self: &Arc<Self>, opening: Opening) {
        let Opening { inbound, members, heard, received, happenings, addresses, clock, ended } =
            opening;
        let this = || self.clone();
        self.spawn(carry_datagrams(inbound.datagrams, heard));
        self.spawn(carry_messages(inbound.vitals, received));
        self.spawn(take_frames(this(), inbound.frames));
        self.spawn(serve_sessions(this(), inbound.sessions));
        self.spawn(answer_questions(this(), inbound.questions));
        self.spawn(follow_mesh(this()));
        self.spawn(follow_liveness(this(), happenings.clone(), clock));
        self.spawn(follow_roster(this(), members, happenings, clock, ended));
        self.spawn(tell_vitals(this()));
        self.spawn(vitals::host::tell_samples(self.vitals.clone()));
        self.spawn(compare_digests(this()));
        self.spawn(correct_addresses(this(), addresses));
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
    }

    /// The members, as of the last commit.
    pub fn roster(&self) -> Arc<Roster> {
        self.replica.roster().borrow().clone()
    }

    /// What this node says first to a peer; the clock in it is not set.
    pub fn hello(&self) -> Hello {
        self.hello.borrow().clone()
    }

    /// The current members that are believed to be alive, without this node.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        let standings = self.liveness.standings().borrow().clone();
        let roster = self.roster();
        let alive = |id: &NodeId| standings.get(id).is_some_and(|s| s.state == State::Alive);
        roster.current().map(|m| m.id).filter(|id| *id != self.me && alive(id)).collect()
    }

    /// Runs a session with a member now.
    pub async fn synchronise(&self, peer: NodeId) {
        let outcome = match self.mesh.open(peer, StreamKind::Sync).await {
            Ok((send, recv)) => session(peer, send, recv, &self.replica, &self.receipts).await,
            Err(error) => return debug!(peer = %peer.short(), %error, "no session"),
        };
        match outcome {
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

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
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

fn others(me: NodeId, roster: &Roster) -> BTreeSet<NodeId> {
    roster.current().map(|member| member.id).filter(|id| *id != me).collect()
}

async fn carry_datagrams(from: Lent<Datagram>, to: mpsc::Sender<Heard>) {
    let mut from = from.lock().await;
    while let Some(Datagram { from, bytes }) = from.recv().await {
        // A full queue loses datagrams, as a network would.
        let _ = to.try_send(Heard { from, bytes });
    }
}

async fn carry_messages(from: Lent<Message>, to: mpsc::Sender<Received>) {
    let mut from = from.lock().await;
    while let Some(Message { from, bytes }) = from.recv().await {
        let _ = to.try_send(Received { from, bytes });
    }
}

async fn take_frames(this: Arc<Membership>, frames: Lent<Frame>) {
    let mut frames = frames.lock().await;
    let room = Arc::new(Semaphore::new(PUSHES_AT_ONCE));
    while let Some(Frame { from, bytes }) = frames.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let membership = this.clone();
        if !membership.roster().is_current(&from) {
            // Put out just now: its connection is about to be closed.
            continue;
        }
        this.spawn(async move {
            let outbox = MeshOutbox(membership.mesh.clone());
            let Membership { replica, receipts, mesh, .. } = &*membership;
            if let Err(error) =
                take_push(membership.me, from, &bytes, replica, receipts, &outbox).await
            {
                warn!(peer = %from.short(), %error, "a push came to nothing");
                if error.is_the_peers_fault() {
                    mesh.close(from, CloseCode::Protocol, &error.to_string());
                }
            }
            drop(place);
        });
    }
}

async fn serve_sessions(this: Arc<Membership>, sessions: Lent<Session>) {
    let mut sessions = sessions.lock().await;
    let room = Arc::new(Semaphore::new(SESSIONS_SERVED_MAX));
    while let Some(Session { from, send, recv }) = sessions.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let membership = this.clone();
        this.spawn(async move {
            let Membership { replica, receipts, .. } = &*membership;
            if let Err(error) = session(from, send, recv, replica, receipts).await {
                debug!(peer = %from.short(), %error, "a session ended early");
            }
            drop(place);
        });
    }
}

async fn answer_questions(this: Arc<Membership>, questions: Lent<Session>) {
    let mut questions = questions.lock().await;
    while let Some(Session { from, mut send, mut recv }) = questions.recv().await {
        let membership = this.clone();
        this.spawn(async move {
            let roster = membership.roster();
            let pending = &membership.pending;
            if let Err(error) =
                crate::admission::answer(&roster, pending, &mut send, &mut recv).await
            {
                debug!(peer = %from.short(), %error, "a question was not answered");
            }
        });
    }
}

/// Acts on every change of who belongs.
async fn follow_roster(
    this: Arc<Membership>,
    members: watch::Sender<BTreeSet<NodeId>>,
    happenings: Feed<Happening>,
    clock: Clock,
    ended: mpsc::Sender<End>,
) {
    let mut rosters = this.replica.roster();
    let mut before = rosters.borrow_and_update().clone();
    connect_with(&this, &before, &Roster::default());
    loop {
        let roster = rosters.borrow_and_update().clone();
        for event in roster.events_since(&before) {
            let happening = Happening::of_roster(&event, &roster);
            info!("{}", happening.message);
            happenings.tell(happening, clock.now().wall_ms);
        }
        members.send_if_modified(|current| {
            let now = others(this.me, &roster);
            let changed = *current != now;
            *current = now;
            changed
        });
        this.renew_hello().await;
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
        if rosters.changed().await.is_err() {
            return;
        }
    }
}

/// Connects with members that are new, so that each is seen at once.
fn connect_with(this: &Arc<Membership>, roster: &Roster, before: &Roster) {
    if roster.current().count() > CONNECT_ALL_MAX {
        return;
    }
    let new = roster.current().map(|m| m.id).filter(|id| *id != this.me && !before.is_current(id));
    for peer in new {
        let membership = this.clone();
        this.spawn(async move {
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
async fn follow_mesh(this: Arc<Membership>) {
    use tokio::sync::broadcast::error::RecvError;

    let meet = |peer: NodeId| {
        if !this.roster().is_current(&peer) {
            // It was put out between its hello and now.
            return this.mesh.close(peer, CloseCode::Removed, "no longer a member");
        }
        this.liveness.met(peer);
        // One of the two starts the session, so that they do not run two.
        if this.me < peer {
            let membership = this.clone();
            this.spawn(async move { membership.synchronise(peer).await });
        }
    };
    let mut events = this.mesh.events();
    this.mesh.peers().into_iter().for_each(|connected| meet(connected.peer));
    loop {
        match events.recv().await {
            Ok(mesh::Event::Connected { peer, .. }) => meet(peer),
            Ok(mesh::Event::Disconnected { peer, reason }) => match reason {
                DisconnectReason::ByPeer {
                    code: CloseCode::Shutdown | CloseCode::Leaving, ..
                } => this.liveness.left(peer),
                DisconnectReason::Here { .. } | DisconnectReason::ByPeer { .. } => {}
                DisconnectReason::Silent
                | DisconnectReason::Reset
                | DisconnectReason::Failed(_) => this.liveness.evidence(peer),
            },
            Ok(mesh::Event::Unreachable { peer, .. }) => this.liveness.evidence(peer),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn follow_liveness(this: Arc<Membership>, happenings: Feed<Happening>, clock: Clock) {
    use tokio::sync::broadcast::error::RecvError;

    let mut events = this.liveness.events();
    loop {
        match events.recv().await {
            Ok(event) => {
                let happening = Happening::of_liveness(&event, &this.roster());
                info!("{}", happening.message);
                happenings.tell(happening, clock.now().wall_ms);
            }
            Err(RecvError::Lagged(missed)) => warn!(missed, "changes of liveness went by untold"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Tells the others of this node's digest and name.
async fn tell_vitals(this: Arc<Membership>) {
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
async fn compare_digests(this: Arc<Membership>) {
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

/// Writes this node's addresses into the roster where they are not what the roster says.
async fn correct_addresses(this: Arc<Membership>, addresses: Vec<SocketAddr>) {
    let roster = this.roster();
    let known = roster.member(&this.me).filter(|me| me.is_current());
    if known.is_none_or(|me| me.addresses == addresses) || addresses.is_empty() {
        return;
    }
    let actor = Actor { who: "peerage".into(), via: "agent".into() };
    let edit = Roster::addressing(&addresses);
    if let Err(error) = this.replica.write(member_path(&this.me), edit, actor, false).await {
        warn!(%error, "this node's new addresses could not be written");
    }
}
