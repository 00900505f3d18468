//! Hosts without an invitation that attack an agent. The benches measure under these attacks, and
//! the tests check that an agent holds out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use peerage::mesh::{Closed, Mesh, Router, Underlay, write_frame};
use peerage_proto::admission::exchange::JoinerFrame;
use peerage_proto::admission::verdict::JoinRequest;
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::wire::WIRE_VERSION;
use quinn::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Agent;

/// The address of strangers that have only one; no agent of the tests has it.
pub const STRANGERS_AT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// How many addresses many strangers have: more than the agent has places (256) for callers that
/// have not said who they are, or for joiners without an invitation, so that each address can hold
/// one place and all places are taken.
pub const MANY_SOURCES: usize = 320;

/// How many connections strangers hold or begin at once, all together and from each address.
const AT_ONCE: usize = 200;
const AT_ONCE_EACH: usize = 2;

/// How long a connection that is not let in waits until it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What strangers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// They hold as many connections on the join protocol as they can, and say nothing.
    Silence,
    /// They hold as many connections, and send on each what its windows take.
    Windows,
    /// They begin handshakes and hang up, as fast as they can.
    Handshakes,
    /// They ask to join by an invitation that they made up.
    Requests,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silence, Self::Windows, Self::Handshakes, Self::Requests];
}

/// An attack that goes on until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    stop: watch::Sender<bool>,
    begun: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl UnderWay {
    /// Begins an attack on an agent, from so many addresses.
    ///
    /// # Panics
    /// When the agent does not answer, or there are more sources than addresses for them.
    pub fn begin(attack: Attack, sources: usize, agent: &Agent) -> Self {
        let port = agent.port().expect("the agent runs");
        Self::begin_at(attack, sources, agent, (Ipv4Addr::LOCALHOST, port).into())
    }

    /// Begins an attack on an agent that is reached at this address.
    ///
    /// # Panics
    /// As [`UnderWay::begin`].
    pub fn begin_at(attack: Attack, sources: usize, agent: &Agent, address: SocketAddr) -> Self {
        let id = agent.status()["node"]["id"].as_str().map(str::parse);
        let node: NodeId = id.expect("a node has an id").expect("the id reads");
        allow_sockets();
        let (stop, stopped) = watch::channel(false);
        let begun = Arc::new(AtomicU64::new(0));
        let count = begun.clone();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime needs nothing that tests lack");
            runtime.block_on(go_on(attack, sources, node, address, stopped, count));
        });
        Self { stop, begun, thread: Some(thread) }
    }

    /// How many connections came up so far.
    pub fn connections(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn go_on(
    attack: Attack,
    sources: usize,
    node: NodeId,
    address: SocketAddr,
    mut stopped: watch::Receiver<bool>,
    begun: Arc<AtomicU64>,
) {
    let meshes: Vec<_> = (0..sources).map(|n| Arc::new(stranger(source(n)))).collect();
    let connections = AT_ONCE.max(sources * AT_ONCE_EACH);
    for mesh in meshes.iter().cycle().take(connections) {
        let (mesh, begun) = (mesh.clone(), begun.clone());
        tokio::spawn(async move {
            loop {
                if let Ok(connection) = mesh.dial_join(node, &[address.into()]).await {
                    begun.fetch_add(1, Ordering::Relaxed);
                    act(attack, &connection).await;
                }
                sleep(PAUSE).await;
            }
        });
    }
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What a stranger does with one connection.
async fn act(attack: Attack, connection: &Connection) {
    match attack {
        Attack::Silence => drop(connection.closed().await),
        Attack::Windows => {
            let fill = async {
                let (mut send, _recv) = connection.open_bi().await?;
                // The first bytes are an empty frame, which the agent refuses; it does not take the
                // rest.
                send.write_all(&vec![0; 4 * 1024 * 1024]).await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            };
            let _ = fill.await;
            let _ = timeout(Duration::from_secs(10), connection.closed()).await;
        }
        Attack::Handshakes => connection.close(0u32.into(), b"never mind"),
        Attack::Requests => {
            let ask = async {
                let (mut send, mut recv) = connection.open_bi().await?;
                let frame = JoinerFrame::Request(made_up()).encode();
                write_frame(&mut send, &frame, usize::MAX).await?;
                let _ = recv.read_to_end(64 * 1024).await;
                Ok::<_, Box<dyn std::error::Error>>(())
            };
            let _ = timeout(Duration::from_secs(10), ask).await;
            connection.close(0u32.into(), b"done");
        }
    }
}

fn made_up() -> JoinRequest {
    JoinRequest {
        terms: vec![7; 200],
        terms_signature: vec![7; 64],
        proof: vec![7; 64],
        name: "stranger".into(),
        addresses: vec![SocketAddr::from((STRANGERS_AT, 4790)).into()],
        version: "1.0".into(),
        wire_version: WIRE_VERSION,
        wall_ms: 1_800_000_000_000,
        replace: false,
    }
}

/// Lets this process have as many sockets as the host allows it: the usual bound of a shell is 1,024,
/// and strangers of several tests at once have more.
fn allow_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, all).expect("a process may have what its hard limit says");
}

/// The address of one stranger of many; the first is [`STRANGERS_AT`].
fn source(n: usize) -> IpAddr {
    let [high, low] = u16::try_from(n).expect("127.66/16 has as many addresses").to_be_bytes();
    if n == 0 { STRANGERS_AT } else { Ipv4Addr::new(127, 66, high, low).into() }
}

/// A node of no Data Center, with a key that it just made up.
fn stranger(at: IpAddr) -> Mesh {
    let key = Keypair::from_seed(rand::random());
    let underlay = Underlay::bind((at, 0).into()).expect("loopback has all of 127/8");
    let nowhere = |_: NodeId| Vec::new();
    Mesh::start(&key, underlay, Closed, nowhere, Router::new()).expect("a mesh needs a socket")
}
