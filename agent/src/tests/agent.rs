//! Agents that the tests ask. Everything in them is real but the disk, which is memory. They meet
//! on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::access::{Caller, Grant, Process};
use peerage_proto::api::Operation;
use peerage_proto::identity::Keypair;
use peerage_proto::isolation::Network;
use peerage_proto::links::{Link, Priority};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Reply, Said, exchange, request, run_on, until};
use crate::api::{self, Form, Rights, Serve};
use crate::cli::Terminal;
use crate::daemon::{Ground, assemble};
use crate::host::clock::Clock;
use crate::host::links::{LinksHandle, Wishes};
use crate::http::{self, Socket};
use crate::membership::vitals::host::Sample;
use crate::mesh::Underlay;
use crate::node::{KeyPlace, Node, OwnName};
use crate::store::{Image, MemoryDisk, Store};

/// The layer of the configuration that names an agent's link.
pub(super) const LAYER: &str = "/etc/peerage/peerage.toml";

/// An agent with its socket.
pub(super) struct Agent {
    pub(super) node: Arc<Node>,
    pub(super) socket: PathBuf,
    served: api::Agent,
    rights: Rights,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
    /// Receives word of a new identity, at which a daemon starts anew. It keeps the channel open.
    _renewals: mpsc::Receiver<()>,
    folder: tempfile::TempDir,
}

impl Agent {
    /// Starts a standalone agent.
    pub(super) async fn start() -> Self {
        Self::start_for("/no/such/file".into(), Grant::defaults()).await
    }

    /// Starts an agent on a host whose groups are in the file `groups`, with these grants for its
    /// users.
    pub(super) async fn start_for(groups: PathBuf, grants: Vec<Grant>) -> Self {
        Self::named("pve-1", Rights::of_host("peerage".into(), groups, grants)).await
    }

    /// Starts an agent that has founded `lab`.
    pub(super) async fn founder() -> Self {
        let agent = Self::start().await;
        agent.do_it("create lab").await;
        agent
    }

    /// Starts two members of `lab`, `pve-1` who founded it, and `pve-2`; each sees the other alive.
    pub(super) async fn pair() -> (Self, Self) {
        let first = Self::founder().await;
        let second = first.with_member("pve-2").await;
        (first, second)
    }

    /// Starts another agent, which joins by an invitation of this one. Both see all members alive.
    pub(super) async fn with_member(&self, name: &str) -> Self {
        let rights = Rights::of_host(String::new(), PathBuf::new(), Grant::defaults());
        let joiner = Self::named(name, rights).await;
        let token = self.do_it("invite").await.out;
        joiner.do_it(&format!("join {}", token.trim())).await;
        let members = joiner.node.membership().unwrap().roster().current().count();
        for agent in [self, &joiner] {
            agent.sees(members, "alive").await;
        }
        joiner
    }

    async fn named(name: &str, rights: Rights) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another user must be able to reach the socket.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (replaced, renewals) = mpsc::channel(1);
        let place = KeyPlace { folder: folder.path().to_owned(), replaced };
        let (node, links) = assembled(name, place).await;
        let mut agent = Self {
            served: api::Agent::new(node.clone(), links),
            node,
            socket: folder.path().join("peerage.sock"),
            rights,
            shutdown: CancellationToken::new(),
            serving: None,
            _renewals: renewals,
            folder,
        };
        agent.serve().await;
        agent
    }

    /// Opens its socket, again after [`hang_up`](Self::hang_up).
    pub(super) async fn serve(&mut self) {
        self.shutdown = CancellationToken::new();
        let socket = Socket::bind(&self.socket).await.unwrap();
        let rights = self.rights.clone();
        let router = http::router(self.served.clone(), rights, self.shutdown.clone());
        let serving = http::serve(socket, router, self.shutdown.clone());
        self.serving = Some(tokio::spawn(serving));
    }

    /// Closes its socket, as an agent does that stops. The node goes on.
    pub(super) async fn hang_up(&mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("it is served before it hangs up");
        tokio::time::timeout(DEADLINE, serving).await.expect("it stops in time").unwrap();
    }

    /// Stops it, in good order.
    pub(super) async fn stop(mut self) {
        self.hang_up().await;
        self.node.stop().await;
    }

    /// Asks for an operation past the socket, as root.
    pub(super) async fn ask_inside<O>(&self, operation: O) -> api::Reply<O>
    where
        O: Operation<Answer: Form>,
        api::Agent: Serve<O>,
    {
        let root = Process { uid: 0, gid: 0, user: None, groups: Vec::new() };
        self.served.serve(&Caller::Process(root), operation).await.unwrap()
    }

    /// Waits until the agent sees so many members in this state.
    pub(super) async fn sees(&self, count: usize, state: &str) {
        let seen = async {
            loop {
                let status = self.do_it("status --json").await.json();
                if status["members"][state] == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        seen.unwrap_or_else(|_| panic!("never: {count} {state}"));
    }

    /// Waits until so many followers follow the changes of its settings.
    pub(super) async fn is_watched_by(&self, count: usize) {
        until("the watchers are there", || self.node.changes().followers() == count).await;
    }

    /// The agent's temporary folder, which is removed with it.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs a command that must end well, with nothing on stdin.
    pub(super) async fn do_it(&self, words: &str) -> Said {
        let said = self.run(words).await;
        assert_eq!(said.exit, peerage_proto::api::Exit::Done, "{words}: {said:?}");
        said
    }

    /// Runs a command with nothing on stdin.
    pub(super) async fn run(&self, words: &str) -> Said {
        self.run_with(words, "", Terminal::default()).await
    }

    /// Runs a command. Words are divided by spaces.
    pub(super) async fn run_with(&self, words: &str, input: &str, terminal: Terminal) -> Said {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        run_on(&self.socket, &words, input, terminal).await
    }

    /// Sends bytes and reads to the end of the answer.
    pub(super) async fn send(&self, request: impl Into<Vec<u8>>) -> Reply {
        let (socket, request) = (self.socket.clone(), request.into());
        let exchange = move || exchange(UnixStream::connect(socket).unwrap(), &request);
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    /// Sends a request with a body that may be empty.
    pub(super) async fn ask(&self, line: &str, body: &str) -> Reply {
        self.send(request(line, &[], body)).await
    }

    /// Sends a request, and returns the answer's status. It starts no blocking thread, which would
    /// hold up tokio's paused clock.
    pub(super) async fn ask_here(&self, line_and_body: &str) -> u16 {
        let mut words = line_and_body.splitn(3, ' ');
        let line = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
        let request = request(&line, &[], words.next().unwrap_or_default());
        let mut stream = tokio::net::UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Begins a stream and reads until it has told its first place; it stays open.
    pub(super) async fn open_stream(&self, line: &str) -> UnixStream {
        let (socket, request) = (self.socket.clone(), request(line, &[], ""));
        let open = move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(&request).unwrap();
            let (mut text, mut piece) = (Vec::new(), [0; 256]);
            while !text.windows(4).any(|bytes| bytes == b"id: ") {
                let length = stream.read(&mut piece).unwrap();
                assert!(length > 0, "{:?}", String::from_utf8_lossy(&text));
                text.extend_from_slice(&piece[..length]);
            }
            stream
        };
        tokio::task::spawn_blocking(open).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Puts an agent together, as the daemon does, on a disk in memory and a port of loopback.
async fn assembled(name: &str, place: KeyPlace) -> (Arc<Node>, LinksHandle) {
    let backups = place.folder.join("backup");
    let (store, owner) = Store::over(MemoryDisk::default(), backups);
    tokio::spawn(owner.serve(|| Duration::ZERO));
    let clock = Clock::start();
    let underlay = Underlay::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let bound = underlay.local_address().unwrap();
    let address: SocketAddr = bound;
    let link = Link {
        address: address.to_string().parse().unwrap(),
        priority: Priority::default(),
        name: None,
    };
    let configured = Some((vec![link], LAYER.to_owned()));
    let wishes = Wishes { configured, kept: None, bound };
    let links = LinksHandle::spawn(wishes, store.clone(), clock);
    let ground = Ground {
        key: Keypair::from_seed(rand::random()),
        name: OwnName::Given(name.parse().unwrap()),
        addresses: links.addresses(),
        clock,
        look: Sample::default,
        network: Network::default,
        underlay,
        bind: Arc::new(Underlay::bind),
        store,
        image: Image::default(),
        key_place: Some(place),
    };
    let (node, _breaks) = assemble(ground).await.unwrap();
    (node, links)
}
