//! The agent as a process: the composition root. It sees every part, and no part sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use peerage_proto::roster::NodeName;
use peerage_proto::wire::StreamKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::addresses::advertised;
use crate::api::Agent;
use crate::clock::Clock;
use crate::config::{self, Config, Listen};
use crate::gate::NodeGate;
use crate::http;
use crate::membership::Inbound;
use crate::mesh::{Mesh, Router, Underlay};
use crate::node::{Node, NodeParts};
use crate::seed::serve_joiners;
use crate::store::{Folder, Image, Store, Write, node_key};
use crate::{supervision, unattended};

/// How many of what arrives may wait for those who take it.
const DATAGRAMS_MAX: usize = 1024;
const MESSAGES_MAX: usize = 256;
const FRAMES_MAX: usize = 64;
const SESSIONS_MAX: usize = 32;
const JOINERS_MAX: usize = 128;

/// How many threads serve the agent: it waits more than it computes.
const WORKERS_MAX: usize = 1;

/// How often the whole journal is read back and verified.
const SELF_CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Under which names the store keeps what is the agent's own.
const META_BOOT: &str = "boot";
const META_PORT: &str = "port";

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let clock = Clock::start();
    let folder = Arc::new(Folder::open(&config.data_dir)?);
    let key = node_key(&folder)?;
    let (store, image) = Store::open(folder)?;
    let socket = http::Socket::bind(&config.socket).await?;
    let underlay = bind(config.listen, &image)?;
    let bound = underlay.local_address().context("the mesh's own address")?;
    let boot = boot(&image, clock);
    let remembered = vec![
        Write::Meta { name: META_BOOT, value: boot.to_be_bytes().to_vec() },
        Write::Meta { name: META_PORT, value: bound.port().to_be_bytes().to_vec() },
    ];
    store.commit(remembered).await?;
    let configured: Vec<_> = config.advertise.iter().map(|a| (a.ip, a.port)).collect();
    let addresses = advertised(&configured, bound);

    let membership = watch::Sender::new(None);
    let entering = watch::Sender::new(false);
    let gate = NodeGate {
        me: key.node_id(),
        membership: membership.subscribe(),
        entering: entering.subscribe(),
        clock,
    };
    let mut router = Router::new();
    let lend = |receiver| Arc::new(Mutex::new(receiver));
    let inbound = Inbound {
        datagrams: Arc::new(Mutex::new(router.datagrams(DATAGRAMS_MAX))),
        vitals: Arc::new(Mutex::new(router.messages(StreamKind::Chitchat, MESSAGES_MAX))),
        frames: Arc::new(Mutex::new(router.frames(FRAMES_MAX))),
        sessions: lend(router.sessions(StreamKind::Sync, SESSIONS_MAX)),
        questions: lend(router.sessions(StreamKind::InviteUses, SESSIONS_MAX)),
    };
    let joiners = router.joins(JOINERS_MAX);
    let known = membership.subscribe();
    let lookup = move |peer| {
        let membership: Option<Arc<crate::membership::Membership>> = known.borrow().clone();
        let roster = membership.map(|membership| membership.roster());
        roster.and_then(|r| r.member(&peer).map(|m| m.addresses.clone())).unwrap_or_default()
    };
    let mesh = Mesh::start(&key, underlay, gate, lookup, router).context("the mesh")?;

    let (broken, mut breaks) = mpsc::channel(1);
    let parts = NodeParts {
        key,
        boot,
        name: own_name(&config)?,
        addresses,
        version: env!("CARGO_PKG_VERSION").into(),
        clock,
        store: store.clone(),
        mesh,
        inbound,
        membership,
        entering,
        broken,
    };
    let node = Node::begin(parts, image).await?;
    tokio::spawn(serve_joiners(node.clone(), clock, joiners));
    tokio::spawn(check_journal(store));
    let shutdown = CancellationToken::new();
    let service = Arc::new(Agent::new(node.clone()));
    let router = http::router(service, shutdown.clone());
    let serving = tokio::spawn(http::serve(socket, router, config.group, shutdown.clone()));
    if let Some(source) = config.join {
        tokio::spawn(unattended::join(node.clone(), source, config.name.clone()));
    }
    let addresses: Vec<_> = node.addresses().iter().map(SocketAddr::to_string).collect();
    if let Some(name) =
        config.name.filter(|name| node.membership().is_some() && *name != node.name())
    {
        let is = node.name();
        warn!(
            "{is} is this node's name in its Data Center; `peerage rename {is} {name}` changes it"
        );
    }
    info!(node = node.name(), id = %node.id().short(), boot, at = addresses.join(" "), "started");
    let supervised = tokio::spawn(supervision::report(node.clone()));

    let mut terminate = signal(SignalKind::terminate()).context("the signal SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("the signal SIGINT")?;
    let cause = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        cause = breaks.recv() => cause,
    };
    supervision::stopping();
    supervised.abort();
    node.stop().await;
    shutdown.cancel();
    let _ = serving.await;
    info!("stopped");
    match cause {
        None => Ok(()),
        Some(cause) => anyhow::bail!("the disk fails for good: {cause}"),
    }
}

/// Binds the mesh's socket. An agent that took any port takes the same again after a restart, where
/// the others look for it.
fn bind(listen: Listen, image: &Image) -> anyhow::Result<Underlay> {
    let port = image.meta.get(META_PORT).and_then(|port| port.as_slice().try_into().ok());
    let mut candidates = listen.candidates();
    if let (Some(port), Listen::At(address)) = (port.map(u16::from_be_bytes), listen)
        && address.port() == 0
    {
        candidates.insert(0, (address.ip(), port).into());
    }
    let mut failure = None;
    for address in candidates {
        match Underlay::bind(address) {
            Ok(underlay) => return Ok(underlay),
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!(
                    "cannot listen on UDP {address}: is another agent running? (--listen ADDR:PORT \
                     takes another)"
                ));
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("there is no address to listen on")))
}

/// The number of this start: higher than all before, also where the disk was rolled back.
fn boot(image: &Image, clock: Clock) -> u64 {
    let before = image.meta.get(META_BOOT).and_then(|boot| boot.as_slice().try_into().ok());
    let before = before.map_or(0, u64::from_be_bytes);
    before.saturating_add(1).max(clock.now().wall_ms / 1000)
}

/// The name that is configured, or the host's.
fn own_name(config: &Config) -> anyhow::Result<NodeName> {
    let name = config.name.clone().unwrap_or_else(config::host_name);
    name.parse::<NodeName>().context("give the node another name with --name")
}

/// Reads the journal back now and then, so that damage is known before it is needed.
async fn check_journal(store: Store) {
    loop {
        tokio::time::sleep(SELF_CHECK_EVERY).await;
        match store.self_check().await {
            Ok(report) if report.damage.is_none() => {
                info!(records = report.records, bytes = report.bytes, "the journal is sound");
            }
            Ok(report) => error!(damage = ?report.damage, "the journal is damaged: check the disk"),
            Err(error) => error!(%error, "the journal cannot be read"),
        }
    }
}
