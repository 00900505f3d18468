//! What each node says of itself: the crate `chitchat` (scuttlebutt reconciliation: van Renesse et
//! al., "Efficient Reconciliation and Flow Control for Anti-Entropy Protocols", 2008) over the mesh.
//!
//! chitchat is kept as a guest: what comes in is looked at first ([`guard`]), what it says of who is
//! alive is not asked for, and when its task dies, by a peer's fault or its own, another takes its
//! place under a new generation. The agent does not notice, but for vitals that get a little older.

mod guard;
pub mod host;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::vitals::Vitals;
use tokio::sync::{Mutex, Notify, broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use self::guard::{DIGEST_ENTRIES_MAX, SHORT_ID_LEN};
use self::transport::{Directory, MeshTransport, address};

pub use self::guard::MESSAGE_MAX;
pub use self::transport::{INBOX_LEN, Messages, Received};

/// How often a node gossips with three others, in a small Data Center and in a larger one: the work
/// of a round grows with the number of nodes.
const ROUND_SMALL: Duration = Duration::from_secs(2);
const ROUND_LARGE: Duration = Duration::from_secs(3);

/// From this many nodes on rounds are slow; they become quick again below the second figure.
const LARGE_FROM: usize = 20;
const SMALL_BELOW: usize = 14;

/// How long what a node said is kept after it fell silent, here and by chitchat.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// How often the vitals are published with new ages, and members that say nothing are greeted.
const REFRESH: Duration = Duration::from_secs(1);

/// How many silent members are greeted at once, in turn.
const GREETINGS_MAX: usize = 3;

/// The waits before a chitchat that died is followed by another.
const RESPAWN_FIRST: Duration = Duration::from_millis(100);
const RESPAWN_LAST: Duration = Duration::from_secs(10);

/// A chitchat that lived so long did not die of what killed the one before.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// A version of this node's facts from here on can only be a peer's lie: the node starts over
/// before it cannot count any further.
const VERSION_MAX: u64 = u64::MAX >> 1;

/// How many digests a slow listener may lag behind before it misses some.
const DIGESTS_LEN: usize = 256;

/// What a node said of itself, and when that was last renewed.
#[derive(Debug, Clone)]
pub struct Vital {
    /// What it said.
    pub vitals: Arc<Vitals>,
    /// When a sign of life that carried it was last heard.
    pub heard: Instant,
}

impl Vital {
    /// How old it is.
    pub fn age(&self) -> Duration {
        self.heard.elapsed()
    }
}

/// The vitals of all members of whom any are known, but this node.
pub type AllVitals = Arc<BTreeMap<NodeId, Vital>>;

/// A member's replica has another digest than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestChanged {
    /// The member.
    pub node: NodeId,
    /// What it says its digest is.
    pub digest: Vec<u8>,
}

/// A handle of the task. The task ends when all handles are gone.
#[derive(Debug, Clone)]
pub struct VitalsHandle {
    own: watch::Sender<Vitals>,
    all: watch::Receiver<AllVitals>,
    digests: broadcast::Sender<DigestChanged>,
    /// Closed when the last handle goes; a word through it ends the task before that.
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
        let (digests, _) = broadcast::channel(DIGESTS_LEN);
        let (alive, handles) = mpsc::channel(1);
        let (directory, directory_rx) = watch::channel(Directory::default());
        let transport = MeshTransport {
            messages: Arc::new(messages),
            inbox: Arc::new(Mutex::new(inbox)),
            directory: directory_rx,
        };
        let task = Task {
            me,
            boot,
            data_center,
            transport,
            members,
            own: own_rx,
            directory,
            all: all_tx,
            digests: digests.clone(),
            known: BTreeMap::new(),
            greeted: None,
        };
        tokio::spawn(task.run(handles));
        Self { own, all, digests, alive }
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

    /// Changes of the others' digests from now on. Who lags behind misses some, and finds them in
    /// [`VitalsHandle::all`].
    pub fn digests(&self) -> broadcast::Receiver<DigestChanged> {
        self.digests.subscribe()
    }

    /// Ends the task, whatever handles there still are.
    pub async fn stop(&self) {
        // An error means that it is gone already.
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
    directory: watch::Sender<Directory>,
    all: watch::Sender<AllVitals>,
    digests: broadcast::Sender<DigestChanged>,
    known: BTreeMap<NodeId, Known>,
    /// The member that was greeted last.
    greeted: Option<NodeId>,
}

/// What was read from chitchat about a member, and as of when.
struct Known {
    generation: u64,
    version: u64,
    heartbeat: u64,
    vital: Vital,
}

/// Why a chitchat is followed by another.
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
        let mut wait = RESPAWN_FIRST;
        for respawns in 0.. {
            self.learn_members();
            let round = round(None, self.members.borrow().len());
            let started = Instant::now();
            let ended = match self.chitchat(respawns, round).await {
                Ok(chitchat) => {
                    let ended = self.attend(&chitchat, round, &mut handles).await;
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
                        wait = RESPAWN_FIRST;
                    }
                    tracing::error!(%error, retry_in = ?wait, "the exchange of vitals died");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = handles.recv() => return,
                    }
                    wait = (wait * 2).min(RESPAWN_LAST);
                }
            }
        }
    }

    /// Another chitchat. Its generation is larger than that of any before, since it counts its
    /// versions from the start and the others would take them for old ones.
    async fn chitchat(&self, respawns: u64, round: Duration) -> anyhow::Result<ChitchatHandle> {
        let generation = (self.boot.min(u64::MAX >> 20) << 16).saturating_add(respawns);
        let short_id = &self.me.to_string()[..SHORT_ID_LEN];
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(short_id, generation, address(self.me)),
            cluster_id: self.data_center.to_string(),
            gossip_interval: round,
            listen_addr: address(self.me),
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: round * 4,
                dead_node_grace_period: GRACE,
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
        round_now: Duration,
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
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = &mut died => {
                    let error = result.err().unwrap_or_else(|| anyhow::anyhow!("it stopped"));
                    return Ended::Died(error);
                }
                _ = handles.recv() => return Ended::Finished,
                Ok(()) = self.members.changed() => {
                    let new = self.learn_members();
                    for node in new.into_iter().take(GREETINGS_MAX) {
                        let _ = chitchat.gossip(address(node));
                    }
                    if round(Some(round_now), self.members.borrow().len()) != round_now {
                        return Ended::Replaced("the number of nodes asks for another rate");
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
                    self.publish(chitchat).await;
                }
                _ = refresh.tick() => {
                    let entries = self.publish(chitchat).await;
                    if entries > DIGEST_ENTRIES_MAX {
                        return Ended::Replaced("too many nodes were named");
                    }
                    self.greet_silent(chitchat);
                }
            }
        }
    }

    /// Takes over the roster's members; answers with those that are new.
    fn learn_members(&mut self) -> Vec<NodeId> {
        let members = self.members.borrow_and_update().clone();
        let before = self.directory.borrow().clone();
        let others = members.iter().filter(|node| **node != self.me);
        let after: BTreeMap<_, _> = others.map(|node| (address(*node), *node)).collect();
        let new = after.iter().filter(|(address, _)| !before.contains_key(address));
        let new = new.map(|(_, node)| *node).collect();
        self.known.retain(|node, _| members.contains(node));
        self.directory.send_replace(Arc::new(after));
        new
    }

    /// Greets some of the members of whom nothing was heard lately, in turn: chitchat would never
    /// think of those whom it does not know, or has forgotten.
    fn greet_silent(&mut self, chitchat: &ChitchatHandle) {
        let members = self.members.borrow();
        let lately = |node: &NodeId| {
            self.known.get(node).is_some_and(|known| known.vital.age() < REFRESH * 10)
        };
        let silent: Vec<NodeId> =
            members.iter().filter(|node| **node != self.me && !lately(node)).copied().collect();
        let next = silent.iter().position(|node| self.greeted.is_none_or(|last| *node > last));
        let in_turn = silent.iter().cycle().skip(next.unwrap_or(0));
        for node in in_turn.take(silent.len().min(GREETINGS_MAX)) {
            // It fails if the task just died, which is noticed elsewhere.
            let _ = chitchat.gossip(address(*node));
            self.greeted = Some(*node);
        }
    }

    /// Reads what is new in chitchat, and publishes it. Answers with the number of its entries.
    async fn publish(&mut self, chitchat: &ChitchatHandle) -> usize {
        let state = chitchat.chitchat();
        let state = state.lock().await;
        let mut changed = Vec::new();
        for (id, node_state) in state.node_states() {
            let Some(node) = self.directory.borrow().get(&id.gossip_advertise_addr).copied() else {
                continue;
            };
            if node.to_string().starts_with(&*id.node_id)
                && let Some(digest) = self.read(node, id.generation_id, node_state)
            {
                changed.push(DigestChanged { node, digest });
            }
        }
        let entries = state.node_states().len();
        drop(state);
        self.known.retain(|_, known| known.vital.age() < GRACE);
        let all = self.known.iter().map(|(node, known)| (*node, known.vital.clone())).collect();
        self.all.send_replace(Arc::new(all));
        for change in changed {
            // Nobody listens: the published vitals say it, too.
            let _ = self.digests.send(change);
        }
        entries
    }

    /// Reads one node's state if it is newer than what is known; answers with a digest that is new.
    fn read(&mut self, node: NodeId, generation: u64, state: &NodeState) -> Option<Vec<u8>> {
        let heartbeat = u64::from(state.heartbeat());
        let version = state.max_version();
        // Without a fact nothing was heard from the node itself, only that it exists.
        state.key_values().next()?;
        let now = Instant::now();
        match self.known.get_mut(&node) {
            Some(known) if known.generation > generation => None,
            Some(known) if (known.generation, known.version) == (generation, version) => {
                if heartbeat > known.heartbeat {
                    known.heartbeat = heartbeat;
                    known.vital.heard = now;
                }
                None
            }
            before => {
                let vitals = Vitals::read(state.key_values());
                let old_digest = before.and_then(|known| known.vital.vitals.digest.clone());
                let digest = vitals.digest.clone().filter(|new| old_digest.as_ref() != Some(new));
                let vital = Vital { vitals: Arc::new(vitals), heard: now };
                self.known.insert(node, Known { generation, version, heartbeat, vital });
                digest
            }
        }
    }
}

/// Sets this node's facts; those that did not change stay as they are. Answers `false`, and does
/// nothing, if the versions cannot be counted on.
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

/// How long a round takes for so many members, given how long it takes `now`.
fn round(now: Option<Duration>, members: usize) -> Duration {
    let large_from = if now == Some(ROUND_LARGE) { SMALL_BELOW } else { LARGE_FROM };
    if members >= large_from { ROUND_LARGE } else { ROUND_SMALL }
}

#[cfg(test)]
mod tests;
