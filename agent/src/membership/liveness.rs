//! The task that owns the failure detector: it feeds `proto::liveness` with datagrams, the roster
//! and the time, and carries out what it says.
//!
//! The mesh is seen through [`Datagrams`] and a bounded queue. A full queue loses datagrams, as a
//! network would, and the detector is made for that.

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_proto::id::NodeId;
use peerage_proto::liveness::{Evidence, Liveness, LivenessEvent, Outputs, Standing};
use peerage_proto::time::Now;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

/// How many datagrams may wait for the task.
pub const INBOX_LEN: usize = 1_024;

/// How many commands may wait for the task.
const COMMANDS_LEN: usize = 64;

/// How many events a slow listener may lag behind before it misses some.
const EVENTS_LEN: usize = 1_024;

/// How many datagrams are handled before the detector's alarms are looked at again.
const BATCH_MAX: usize = 64;

/// Round trips and the times when members were last heard of are published this often at most, if
/// nothing changed that matters more.
const REFRESH: Duration = Duration::from_secs(2);

/// How every member but this node stands, by id.
pub type Standings = Arc<BTreeMap<NodeId, Standing>>;

/// Sends datagrams to peers. It never waits: a datagram that cannot leave at once is dropped.
pub trait Datagrams: Send + 'static {
    /// Sends a datagram to `node`, if a connection with it stands.
    fn send_datagram(&self, node: NodeId, datagram: Bytes);
}

impl<F: Fn(NodeId, Bytes) + Send + 'static> Datagrams for F {
    fn send_datagram(&self, node: NodeId, datagram: Bytes) {
        self(node, datagram);
    }
}

/// A datagram from an authenticated peer.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The peer.
    pub from: NodeId,
    /// What it sent.
    pub bytes: Bytes,
}

enum Command {
    Met(NodeId),
    Evidence(NodeId, Evidence),
    Left(NodeId),
    Goodbye(oneshot::Sender<()>),
}

/// A handle of the task. The task ends when all handles are gone, or after the goodbye.
#[derive(Debug, Clone)]
pub struct LivenessHandle {
    commands: mpsc::Sender<Command>,
    standings: watch::Receiver<Standings>,
    health: watch::Receiver<u32>,
    events: broadcast::Sender<LivenessEvent>,
}

impl LivenessHandle {
    /// Starts the task for node `me` in its `boot`. `start` is the zero of the times in
    /// [`Standing`]; `inbox` should hold [`INBOX_LEN`] datagrams.
    pub fn spawn(
        me: NodeId,
        boot: u64,
        rng: StdRng,
        start: Instant,
        members: watch::Receiver<BTreeSet<NodeId>>,
        inbox: mpsc::Receiver<Heard>,
        datagrams: impl Datagrams,
    ) -> Self {
        let (commands, command_rx) = mpsc::channel(COMMANDS_LEN);
        let (standings_tx, standings) = watch::channel(Standings::default());
        let (health_tx, health) = watch::channel(1);
        let (events, _) = broadcast::channel(EVENTS_LEN);
        let task = Task {
            core: Liveness::new(me, boot, rng),
            start,
            datagrams,
            standings: standings_tx,
            health: health_tx,
            events: events.clone(),
            published: start,
            unpublished: false,
            untold: Vec::new(),
        };
        tokio::spawn(task.run(members, inbox, command_rx));
        Self { commands, standings, health, events }
    }

    /// How the members stand, as a value to read or to wait on.
    pub fn standings(&self) -> watch::Receiver<Standings> {
        self.standings.clone()
    }

    /// By how much this host is slower than it should be: 1 while it keeps up, 9 at most.
    pub fn local_health_multiplier(&self) -> watch::Receiver<u32> {
        self.health.clone()
    }

    /// What changes from now on. A listener that lags behind by a thousand events misses some.
    pub fn events(&self) -> broadcast::Receiver<LivenessEvent> {
        self.events.subscribe()
    }

    /// A connection with `node` stands.
    pub fn met(&self, node: NodeId) {
        self.tell(Command::Met(node));
    }

    /// Something suggests that `node` is down: the failure detector asks it at once.
    pub fn evidence(&self, node: NodeId, evidence: Evidence) {
        self.tell(Command::Evidence(node, evidence));
    }

    /// The peer `node` closed its connection with a goodbye.
    pub fn left(&self, node: NodeId) {
        self.tell(Command::Left(node));
    }

    /// Tells every member that this node stops. When it returns the datagrams were handed to the
    /// mesh, and the task has ended.
    pub async fn goodbye(&self) {
        let (done, said) = oneshot::channel();
        if self.commands.send(Command::Goodbye(done)).await.is_ok() {
            // An error means that the task is gone already: nobody is left to say goodbye.
            let _ = said.await;
        }
    }

    /// Every such command is a hint that makes the detector faster: if the task is behind, the
    /// command is dropped.
    fn tell(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }
}

struct Task<D> {
    core: Liveness,
    start: Instant,
    datagrams: D,
    standings: watch::Sender<Standings>,
    health: watch::Sender<u32>,
    events: broadcast::Sender<LivenessEvent>,
    published: Instant,
    /// Whether a datagram was heard since `published`.
    unpublished: bool,
    /// The events since `published`. They are told once the standings are published.
    untold: Vec<LivenessEvent>,
}

impl<D: Datagrams> Task<D> {
    async fn run(
        mut self,
        mut members: watch::Receiver<BTreeSet<NodeId>>,
        mut inbox: mpsc::Receiver<Heard>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        self.teach(&members.borrow_and_update().clone());
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let deadline = self.core.next_deadline().map(|deadline| self.start + deadline);
            // Datagrams are handled before alarms: after a stall, the answers of members that would
            // be accused wait in the inbox.
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Met(node)) => {
                        let outputs = self.core.met(self.now(), node);
                        self.carry_out(outputs);
                    }
                    Some(Command::Evidence(node, evidence)) => {
                        let outputs = self.core.evidence(self.now(), node, evidence);
                        self.carry_out(outputs);
                    }
                    Some(Command::Left(node)) => {
                        let outputs = self.core.left(self.now(), node);
                        self.carry_out(outputs);
                    }
                    Some(Command::Goodbye(done)) => {
                        let outputs = self.core.goodbye(self.now());
                        self.carry_out(outputs);
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                Ok(()) = members.changed() => {
                    self.teach(&members.borrow_and_update().clone());
                }
                count = inbox.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for Heard { from, bytes } in batch.drain(..) {
                        match self.core.heard(self.now(), from, &bytes) {
                            Ok(outputs) => self.carry_out(outputs),
                            Err(refused) => {
                                tracing::debug!(%from, %refused, "a liveness datagram was refused");
                            }
                        }
                    }
                    self.unpublished = true;
                    // A flood must not keep the alarms from being served.
                    if count == BATCH_MAX {
                        self.expire_if_due();
                    }
                }
                () = reached(deadline) => self.expire_if_due(),
            }
            let health = self.core.local_health_multiplier();
            self.health.send_if_modified(|known| std::mem::replace(known, health) != health);
            // The standings are published once for a whole batch, since they are as long as the
            // roster.
            if !self.untold.is_empty() || (self.unpublished && self.published.elapsed() >= REFRESH)
            {
                self.publish();
            }
        }
    }

    fn now(&self) -> Now {
        // The detector reads no wall clock.
        Now { mono: self.start.elapsed(), wall_ms: 0 }
    }

    fn expire_if_due(&mut self) {
        let now = self.now();
        if self.core.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
            let outputs = self.core.expired(now);
            self.carry_out(outputs);
        }
    }

    fn teach(&mut self, members: &BTreeSet<NodeId>) {
        let outputs = self.core.members(self.now(), members);
        self.carry_out(outputs);
        self.publish();
    }

    fn carry_out(&mut self, outputs: Outputs) {
        for (node, datagram) in outputs.send {
            self.datagrams.send_datagram(node, datagram.into());
        }
        self.untold.extend(outputs.notify);
    }

    fn publish(&mut self) {
        self.standings.send_replace(Arc::new(self.core.standings().collect()));
        self.published = Instant::now();
        self.unpublished = false;
        for event in self.untold.drain(..) {
            // An error means that nobody listens. The standings show the change, too.
            let _ = self.events.send(event);
        }
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use peerage_proto::liveness::{State, Why};
    use rand::SeedableRng;

    use super::*;

    type Inboxes = Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Heard>>>>;

    struct Node {
        id: NodeId,
        handle: LivenessHandle,
        _members: watch::Sender<BTreeSet<NodeId>>,
    }

    fn id(node: u8) -> NodeId {
        NodeId([node; 32])
    }

    fn start(node: u8, boot: u64, of: u8, inboxes: &Inboxes) -> Node {
        let id_of_me = id(node);
        let (inbox_tx, inbox) = mpsc::channel(INBOX_LEN);
        inboxes.lock().unwrap().insert(id_of_me, inbox_tx);
        let (members_tx, members) = watch::channel((0..of).map(id).collect());
        let inboxes = inboxes.clone();
        let send = move |to: NodeId, bytes: Bytes| {
            if let Some(inbox) = inboxes.lock().unwrap().get(&to) {
                let _ = inbox.try_send(Heard { from: id_of_me, bytes });
            }
        };
        let rng = StdRng::seed_from_u64(u64::from(node));
        let handle =
            LivenessHandle::spawn(id_of_me, boot, rng, Instant::now(), members, inbox, send);
        Node { id: id_of_me, handle, _members: members_tx }
    }

    fn fleet(of: u8) -> (Vec<Node>, Inboxes) {
        let inboxes = Inboxes::default();
        ((0..of).map(|node| start(node, 1, of, &inboxes)).collect(), inboxes)
    }

    /// Waits until `node` says of `about` that it is `state`, for `bound` at most.
    async fn until(node: &Node, about: NodeId, state: State, bound: Duration) -> Standing {
        let mut standings = node.handle.standings();
        let seen = standings.wait_for(|s| s.get(&about).is_some_and(|s| s.state == state));
        let seen = tokio::time::timeout(bound, seen).await.expect("in time").expect("it runs");
        seen[&about].clone()
    }

    async fn settle(nodes: &[Node]) {
        for node in nodes {
            for other in nodes.iter().filter(|other| other.id != node.id) {
                until(node, other.id, State::Alive, Duration::from_secs(3)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_is_seen_by_all_at_once() {
        let (nodes, inboxes) = fleet(5);
        settle(&nodes).await;
        let mut events = nodes[1].handle.events();
        nodes[0].handle.goodbye().await;
        inboxes.lock().unwrap().remove(&nodes[0].id);
        for node in &nodes[1..] {
            let standing = until(node, id(0), State::Left, Duration::from_millis(200)).await;
            assert_eq!(standing.why, Why::Goodbye);
        }
        let event = events.recv().await.unwrap();
        assert_eq!((event.node, event.to), (id(0), State::Left));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_falls_silent_is_down_and_returns_with_its_next_boot() {
        let (mut nodes, inboxes) = fleet(5);
        settle(&nodes).await;
        inboxes.lock().unwrap().remove(&id(0));
        drop(nodes.remove(0));
        for node in &nodes {
            until(node, id(0), State::Down, Duration::from_secs(4)).await;
        }
        nodes.push(start(0, 2, 5, &inboxes));
        for node in &nodes[..4] {
            let standing = until(node, id(0), State::Alive, Duration::from_secs(4)).await;
            assert_eq!(standing.boot, Some(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_member_vanishes_from_the_standings() {
        let (nodes, _inboxes) = fleet(3);
        settle(&nodes).await;
        nodes[0]._members.send_replace([id(0), id(1)].into());
        let mut standings = nodes[0].handle.standings();
        let vanished = standings.wait_for(|standings| !standings.contains_key(&id(2)));
        tokio::time::timeout(Duration::from_secs(1), vanished).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!standings.borrow().contains_key(&id(2)));
    }
}
