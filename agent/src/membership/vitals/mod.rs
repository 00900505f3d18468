//! What each node says of itself: the crate `chitchat` (scuttlebutt reconciliation: van Renesse et
//! al., "Efficient Reconciliation and Flow Control for Anti-Entropy Protocols", 2008) over the mesh.
//!
//! chitchat is not trusted: what comes in is looked at first ([`guard`]), who is alive is decided
//! without it, whom it speaks with and how often is decided here ([`circle`]), and when its task
//! dies, by a peer's fault or its own, another takes its place under a new generation. The agent
//! only notices that vitals get a little older.

pub mod circle;
mod guard;
pub mod host;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use peerage_proto::backoff::Backoff;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::time::HowLong;
use peerage_proto::vitals::Vitals;
use rand::seq::IndexedRandom;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::Instant;

use self::guard::{DIGEST_ENTRIES_MAX, SHORT_ID_LEN};
use self::transport::{Directory, MeshTransport, address};

pub use self::guard::MESSAGE_MAX;
pub use self::transport::{INBOX_LEN, Messages, Received};

/// How often chitchat itself begins exchanges, forgets silent nodes, and looks which nodes fell
/// silent. All other exchanges are begun from here, at the pace of [`circle::pause`].
const CHITCHAT_ROUND: Duration = Duration::from_secs(60);

/// How many intervals between signs of life chitchat keeps for each node, eight bytes each, to
/// judge how long a silence is. Few will do, since the agent does not ask chitchat who is alive.
const CHITCHAT_SAMPLES: usize = 64;

/// How long a node's vitals are kept after the node fell silent.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// How long chitchat keeps a silent node, and the former generation of a restarted one; for half of
/// that time messages name it. A member that chitchat forgot is greeted, since the roster names it.
const CHITCHAT_GRACE: Duration = Duration::from_secs(4 * 60);

/// A member counts as silent when nothing was heard of it for so many pauses between exchanges.
const SILENT_PAUSES: u32 = 10;

/// One of so many exchanges is with a silent member.
const SILENT_TURN: u32 = 3;

/// News are published after this part of a pause, together with the news that follow meanwhile.
const NEWS_PER_PAUSE: u32 = 4;

/// The waits before a chitchat that died is followed by another.
const RESPAWN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// If a chitchat lived so long, another cause ended it than the one before, and the waits begin
/// anew.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// Only a peer's lie can make the version of this node's facts as large as this: the node starts
/// over before it cannot count any further.
const VERSION_MAX: u64 = u64::MAX >> 1;

/// What a node said of itself, and when that was last renewed.
#[derive(Debug, Clone)]
pub struct Vital {
    /// What it said.
    pub vitals: Arc<Vitals>,
    /// When a sign of life with these vitals was last heard.
    pub heard: Instant,
}

impl Vital {
    /// How long ago these vitals were last renewed.
    pub fn age(&self) -> Duration {
        self.heard.elapsed()
    }
}

/// The vitals of all other members, as far as any are known.
pub type AllVitals = Arc<BTreeMap<NodeId, Vital>>;

/// A handle of the task. The task ends when all handles are gone.
#[derive(Debug, Clone)]
pub struct VitalsHandle {
    own: watch::Sender<Vitals>,
    all: watch::Receiver<AllVitals>,
    circle: watch::Receiver<usize>,
    /// Closed when the last handle is dropped; a message through it ends the task before that.
    alive: mpsc::Sender<()>,
}

impl VitalsHandle {
    /// Starts the task for node `me` in its `boot`. What it says of itself begins as `own`; `inbox`
    /// should hold [`INBOX_LEN`] messages.
    pub fn spawn(
        me: NodeId,
        boot: u64,
        data_center: DataCenterId,
        own: Vitals,
        members: watch::Receiver<BTreeSet<NodeId>>,
        inbox: mpsc::Receiver<Received>,
        messages: impl Messages,
    ) -> Self {
        let (own, own_rx) = watch::channel(own);
        let (all_tx, all) = watch::channel(AllVitals::default());
        let (circle_tx, circle) = watch::channel(0);
        let (alive, handles) = mpsc::channel(1);
        let (directory, directory_rx) = watch::channel(Directory::default());
        let transport = MeshTransport {
            messages: Arc::new(messages),
            inbox: Arc::new(Mutex::new(inbox)),
            directory: directory_rx,
        };
        let mut task = Task {
            me,
            boot,
            data_center,
            transport,
            members,
            own: own_rx,
            acquainted: directory,
            directory: Directory::default(),
            all: all_tx,
            circle: circle_tx,
            shared_bits: 0,
            known: BTreeMap::new(),
            turns: 0,
            greeted: None,
            entries: 0,
        };
        task.learn_members();
        tokio::spawn(task.run(handles));
        Self { own, all, circle, alive }
    }

    /// Changes what this node says of itself. What did not change is not sent again.
    pub fn tell(&self, change: impl FnOnce(&mut Vitals)) {
        self.own.send_if_modified(|own| {
            let before = own.clone();
            change(own);
            *own != before
        });
    }

    /// What this node says of itself.
    pub fn own(&self) -> Vitals {
        self.own.borrow().clone()
    }

    /// The vitals of the others, as a value to read or to wait on.
    pub fn all(&self) -> watch::Receiver<AllVitals> {
        self.all.clone()
    }

    /// With how many members this node exchanges vitals: with all, unless there are more than
    /// [`circle::CIRCLE_MAX`].
    pub fn circle(&self) -> usize {
        *self.circle.borrow()
    }

    /// As [`Self::circle`], as a value to wait on.
    pub fn circle_changes(&self) -> watch::Receiver<usize> {
        self.circle.clone()
    }

    /// Ends the task, also while there are other handles.
    pub async fn stop(&self) {
        // An error means that the task is gone already, or was told to end already.
        let _ = self.alive.try_send(());
        self.ended().await;
    }

    /// Returns when the task has ended.
    pub(crate) async fn ended(&self) {
        self.own.closed().await;
    }
}

struct Task {
    me: NodeId,
    boot: u64,
    data_center: DataCenterId,
    transport: MeshTransport,
    members: watch::Receiver<BTreeSet<NodeId>>,
    own: watch::Receiver<Vitals>,
    /// The nodes with which messages are exchanged: the circle, and the nodes in whose circle this
    /// node may be.
    acquainted: watch::Sender<Directory>,
    /// The circle.
    directory: Directory,
    all: watch::Sender<AllVitals>,
    circle: watch::Sender<usize>,
    /// How many leading bits all ids of the circle share.
    shared_bits: u32,
    known: BTreeMap<NodeId, Known>,
    /// How many exchanges this node began.
    turns: u32,
    /// The silent member that was greeted last.
    greeted: Option<NodeId>,
    /// How many entries a message of chitchat's has.
    entries: usize,
}

/// What was read from chitchat about a member, and at which generation, version and heartbeat.
struct Known {
    generation: u64,
    version: u64,
    heartbeat: u64,
    vital: Vital,
}

/// Why a chitchat is no longer served.
enum Ended {
    /// All handles are gone.
    Finished,
    /// Its task ended or panicked.
    Died(anyhow::Error),
    /// It is replaced on purpose.
    Replaced(&'static str),
}

impl Task {
    async fn run(mut self, mut handles: mpsc::Receiver<()>) {
        let mut deaths = 0u32;
        for respawns in 0.. {
            let started = Instant::now();
            let ended = match self.chitchat(respawns).await {
                Ok(chitchat) => {
                    let ended = self.attend(&chitchat, &mut handles).await;
                    chitchat.abort();
                    ended
                }
                Err(error) => Ended::Died(error),
            };
            match ended {
                Ended::Finished => return,
                Ended::Replaced(reason) => tracing::info!(reason, "vitals start over"),
                Ended::Died(error) => {
                    if started.elapsed() >= SOUND_AFTER {
                        deaths = 0;
                    }
                    let wait = RESPAWN.wait(deaths);
                    tracing::error!(%error, retry_in = %HowLong(wait), "the exchange of vitals died");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = handles.recv() => return,
                    }
                    deaths = deaths.saturating_add(1);
                }
            }
        }
    }

    /// Starts another chitchat. Its generation is larger than that of any before: it counts its
    /// versions from the start, and under a former generation the others would take them for old
    /// ones.
    async fn chitchat(&self, respawns: u64) -> anyhow::Result<ChitchatHandle> {
        let generation = (self.boot.min(u64::MAX >> 20) << 16).saturating_add(respawns);
        let short_id = &self.me.to_string()[..SHORT_ID_LEN];
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(short_id, generation, address(self.me)),
            cluster_id: self.data_center.to_string(),
            gossip_interval: CHITCHAT_ROUND,
            listen_addr: address(self.me),
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: circle::pause(0) * 4,
                max_interval: CHITCHAT_ROUND,
                dead_node_grace_period: CHITCHAT_GRACE,
                sampling_window_size: CHITCHAT_SAMPLES,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let facts = self.own.borrow().facts().into_iter().collect();
        spawn_chitchat(config, facts, &self.transport).await
    }

    /// Serves a chitchat as long as it lives.
    async fn attend(
        &mut self,
        chitchat: &ChitchatHandle,
        handles: &mut mpsc::Receiver<()>,
    ) -> Ended {
        let news = Arc::new(Notify::new());
        let announce = news.clone();
        let _listener = chitchat
            .with_chitchat(|state| {
                let announce = announce.clone();
                state.subscribe_event("", move |_| announce.notify_one())
            })
            .await;
        let died = chitchat.termination_watcher();
        tokio::pin!(died);
        // News that came a moment ago are published at `look`; it is `None` where there are no
        // news.
        let (mut turn, mut look) = (Instant::now(), None);
        loop {
            tokio::select! {
                result = &mut died => {
                    let error = result.err().unwrap_or_else(|| anyhow::anyhow!("it stopped"));
                    return Ended::Died(error);
                }
                _ = handles.recv() => return Ended::Finished,
                Ok(()) = self.members.changed() => {
                    if self.learn_members() {
                        return Ended::Replaced("the circle is another one");
                    }
                }
                Ok(()) = self.own.changed() => {
                    let facts = self.own.borrow_and_update().facts();
                    let told = chitchat.with_chitchat(|state| tell(state, &facts)).await;
                    if !told {
                        return Ended::Replaced("a peer has spoiled the versions of our facts");
                    }
                }
                () = news.notified() => {
                    let soon = circle::pause(self.entries) / NEWS_PER_PAUSE;
                    look.get_or_insert_with(|| Instant::now() + soon);
                }
                () = tokio::time::sleep_until(look.unwrap_or(turn)), if look.is_some() => {
                    look = None;
                    self.publish(chitchat).await;
                }
                () = tokio::time::sleep_until(turn) => {
                    look = None;
                    self.publish(chitchat).await;
                    if self.entries > DIGEST_ENTRIES_MAX {
                        return Ended::Died(anyhow::anyhow!("{} nodes were named", self.entries));
                    }
                    let pause = circle::pause(self.entries);
                    if let Some(node) = self.next(pause) {
                        // It fails if chitchat's task just died, which `died` tells.
                        let _ = chitchat.gossip(address(node));
                    }
                    // The pause is random, so that nodes that started together do not speak
                    // together.
                    turn = Instant::now() + pause.mul_f64(rand::random_range(0.75..1.25));
                }
            }
        }
    }

    /// Takes over the roster's members. Answers `true` where their number has changed so much that
    /// this node's circle is another one.
    fn learn_members(&mut self) -> bool {
        let members = self.members.borrow_and_update().clone();
        let shared_bits = circle::shared_bits(members.len(), self.shared_bits);
        let is_another = shared_bits != self.shared_bits;
        self.shared_bits = shared_bits;
        let circle = circle::circle(self.me, &members, shared_bits);
        self.known.retain(|node, _| circle.contains(node));
        self.circle.send_replace(circle.len());
        let acquainted = circle::acquainted_bits(shared_bits);
        let acquainted = circle::circle(self.me, &members, acquainted);
        let directory = |nodes: BTreeSet<NodeId>| -> Directory {
            Arc::new(nodes.into_iter().map(|node| (address(node), node)).collect())
        };
        self.directory = directory(circle);
        self.acquainted.send_replace(directory(acquainted));
        is_another
    }

    /// The member to exchange with next: at random one that was heard of lately, and every
    /// [`SILENT_TURN`] turns a silent one, in turn, since chitchat itself never greets a member
    /// that it has forgotten.
    fn next(&mut self, pause: Duration) -> Option<NodeId> {
        self.turns = self.turns.wrapping_add(1);
        let lately = |node: &NodeId| {
            self.known.get(node).is_some_and(|known| known.vital.age() < pause * SILENT_PAUSES)
        };
        let (fresh, mut silent): (Vec<NodeId>, Vec<NodeId>) =
            self.directory.values().partition(|n| lately(n));
        silent.sort_unstable();
        if !fresh.is_empty() && (silent.is_empty() || !self.turns.is_multiple_of(SILENT_TURN)) {
            return fresh.choose(&mut rand::rng()).copied();
        }
        let next = silent.iter().find(|node| self.greeted.is_none_or(|last| **node > last));
        self.greeted = next.or(silent.first()).copied();
        self.greeted
    }

    /// Reads what is new in chitchat, and publishes it.
    async fn publish(&mut self, chitchat: &ChitchatHandle) {
        let state = chitchat.chitchat();
        let state = state.lock().await;
        let directory = self.directory.clone();
        for (id, node_state) in state.node_states() {
            if let Some(node) = directory.get(&id.gossip_advertise_addr) {
                self.read(*node, id, node_state);
            }
        }
        self.entries = state.node_states().len();
        drop(state);
        self.known.retain(|_, known| known.vital.age() < GRACE);
        let all = self.known.iter().map(|(node, known)| (*node, known.vital.clone())).collect();
        self.all.send_replace(Arc::new(all));
    }

    /// Reads one node's state if it is newer than what is known.
    fn read(&mut self, node: NodeId, id: &ChitchatId, state: &NodeState) {
        let heartbeat = u64::from(state.heartbeat());
        let (generation, version) = (id.generation_id, state.max_version());
        // Without a fact nothing was heard from the node itself, only that it exists.
        if state.key_values().next().is_none() {
            return;
        }
        let now = Instant::now();
        match self.known.get_mut(&node) {
            Some(known) if known.generation > generation => {}
            Some(known) if (known.generation, known.version) == (generation, version) => {
                if heartbeat > known.heartbeat {
                    known.heartbeat = heartbeat;
                    known.vital.heard = now;
                }
            }
            _ if !node.to_string().starts_with(&*id.node_id) => {}
            _ => {
                let vitals = Arc::new(Vitals::read(state.key_values()));
                let vital = Vital { vitals, heard: now };
                self.known.insert(node, Known { generation, version, heartbeat, vital });
            }
        }
    }
}

/// Sets this node's facts; facts that did not change stay as they are. Answers `false`, and does
/// nothing, if a peer has made the version so large that the node cannot go on counting.
fn tell(state: &mut chitchat::Chitchat, facts: &BTreeMap<String, String>) -> bool {
    let own = state.self_node_state();
    if own.max_version() >= VERSION_MAX {
        return false;
    }
    let stale: Vec<String> = own
        .key_values()
        .map(|(name, _)| name.to_owned())
        .filter(|n| !facts.contains_key(n))
        .collect();
    for name in stale {
        own.delete(&name);
    }
    for (name, value) in facts {
        debug_assert!(name.is_ascii(), "chitchat panics at other keys");
        own.set(name, value);
    }
    true
}

#[cfg(test)]
mod tests;
