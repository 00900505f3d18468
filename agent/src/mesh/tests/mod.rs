//! Tests of the mesh over real QUIC on loopback, with a gate in memory. This file holds the world
//! that the tests share; each story has a file of its own.

mod cuts;
mod detours;
mod dials;
mod exchange;
mod hellos;
mod joins;
mod named;
mod narrow;
mod paths;
mod succession;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::ConnectionError;
use serde_bytes::ByteBuf;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout};

use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::wire::{
    ALPN_MEMBER, CloseCode, Hello, Refusal, RefusalCode, StreamKind, WIRE_VERSION,
};

use super::*;
use crate::resolver::tests::Zone;
use cuts::Cuts;

/// How long anything here may take; far above what it does take.
const BOUND: Duration = Duration::from_secs(10);

const QUEUE: usize = 64;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const SESSIONS_WAITING: usize = 4;

/// All nodes of a test, who is a member, and where they are.
#[derive(Default, Clone)]
struct World {
    members: Arc<Mutex<HashSet<NodeId>>>,
    places: Arc<Mutex<HashMap<NodeId, Vec<Address>>>>,
    cuts: Cuts,
    names: Zone,
}

struct Node {
    id: NodeId,
    boot: u64,
    mesh: Mesh,
    gate: Arc<TestGate>,
    datagrams: mpsc::Receiver<Datagram>,
    messages: mpsc::Receiver<Message>,
    frames: mpsc::Receiver<Frame>,
    sessions: mpsc::Receiver<Session>,
    joins: mpsc::Receiver<IncomingJoin>,
    events: broadcast::Receiver<Event>,
}

impl World {
    fn member(&self, number: u8) -> Node {
        let node = self.start(number, LOCAL, 1);
        self.place(node.id, vec![node.address()]);
        node
    }

    fn stranger(&self, number: u8) -> Node {
        let node = self.member(number);
        self.members.lock().unwrap().remove(&node.id);
        node
    }

    fn start(&self, number: u8, address: SocketAddr, boot: u64) -> Node {
        let keypair = Keypair::from_seed([number; 32]);
        let id = keypair.node_id();
        self.members.lock().unwrap().insert(id);
        let hello = Hello {
            wire_version: WIRE_VERSION,
            datacenter: DataCenterId([1; 16]),
            name: format!("node{number}"),
            boot,
            wall_ms: 0,
            addresses: Vec::new(),
            proof: Vec::new(),
            supersedes: None,
            carries: true,
            instance: Some(boot),
            machine: None,
            only_looks: false,
            digest: None,
            version: None,
        };
        let gate = Arc::new(TestGate {
            hello: Mutex::new(Some(hello)),
            members: self.members.clone(),
            refused: Mutex::default(),
            settles_in: Mutex::default(),
            heard: Mutex::default(),
        });
        let mut router = Router::new();
        let datagrams = router.datagrams(QUEUE);
        let messages = router.messages(StreamKind::Chitchat, QUEUE);
        let frames = router.frames(QUEUE);
        let sessions = router.sessions(StreamKind::Sync, SESSIONS_WAITING);
        let joins = router.joins(QUEUE);
        let places = self.places.clone();
        let addresses =
            move |peer: NodeId| places.lock().unwrap().get(&peer).cloned().unwrap_or_default();
        let underlay = self.cuts.under(Underlay::bind(address).unwrap());
        let underlay = Underlay { names: self.names.resolver(), ..underlay };
        let mesh = Mesh::start(&keypair, underlay, gate.clone(), addresses, router).unwrap();
        let events = mesh.events();
        Node { id, boot, mesh, gate, datagrams, messages, frames, sessions, joins, events }
    }

    fn place(&self, node: NodeId, addresses: Vec<SocketAddr>) {
        self.tell(node, addresses.into_iter().map(Address::Ip).collect());
    }

    fn tell(&self, node: NodeId, addresses: Vec<Address>) {
        self.places.lock().unwrap().insert(node, addresses);
    }
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.mesh.local_address().unwrap()
    }

    /// A connection to a node past the handshake, on which nothing was said.
    async fn raw(&self, to: &Self) -> quinn::Connection {
        let dialler = &self.mesh.pool.dialler;
        soon(dialler.race(to.id, ALPN_MEMBER, &[to.address().into()])).await.unwrap()
    }
}

/// A roster in memory.
struct TestGate {
    hello: Mutex<Option<Hello>>,
    members: Arc<Mutex<HashSet<NodeId>>>,
    refused: Mutex<Vec<(NodeId, Refusal)>>,
    settles_in: Mutex<Duration>,
    /// The address from which each node spoke last.
    heard: Mutex<HashMap<NodeId, SocketAddr>>,
}

impl TestGate {
    fn change(&self, change: impl FnOnce(&mut Hello)) {
        change(self.hello.lock().unwrap().as_mut().unwrap());
    }
}

impl Gate for TestGate {
    async fn settled(&self) {
        let wait = *self.settles_in.lock().unwrap();
        tokio::time::sleep(wait).await;
    }

    fn hello(&self) -> Option<Hello> {
        // In these tests the stored `wall_ms` tells how far the clock of the node is ahead.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut hello = self.hello.lock().unwrap().clone()?;
        hello.wall_ms += now.as_millis() as u64;
        Some(hello)
    }

    async fn judge(&self, peer: NodeId, hello: &Hello, remote: SocketAddr) -> Verdict {
        self.heard.lock().unwrap().insert(peer, remote);
        let ours = self.hello.lock().unwrap().as_ref().map(|ours| ours.datacenter);
        if ours.is_none() {
            return Verdict::Refuse(Refusal::new(RefusalCode::Standalone, "nowhere"));
        }
        if ours != Some(hello.datacenter) {
            return Verdict::Refuse(Refusal::new(RefusalCode::WrongDataCenter, "elsewhere"));
        }
        if !self.members.lock().unwrap().contains(&peer) {
            let mut refusal = Refusal::new(RefusalCode::NotMember, "not in the roster");
            refusal.evidence.push(ByteBuf::from(b"evidence".to_vec()));
            return Verdict::Refuse(refusal);
        }
        Verdict::Welcome
    }

    fn refused(&self, peer: NodeId, refusal: Refusal) {
        self.refused.lock().unwrap().push((peer, refusal));
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("it took too long")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < BOUND, "never true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn closed_with(connection: &quinn::Connection) -> CloseCode {
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => CloseCode::from(close.error_code.into_inner()),
        other => panic!("{other:?}"),
    }
}
