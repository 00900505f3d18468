//! The agent as a process: the composition root. It sees every part, and no part sees it.

pub mod again;
mod assembly;
mod label;
mod listening;
pub mod signals;
mod stopped;
mod supervision;

use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use peerage_proto::access::Grant;
use peerage_proto::address::Address;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::roster::{NodeName, one_name};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{Agent, Rights};
use crate::daemon::again::{again, with_token};
use crate::daemon::signals::{Reload, Signals};
use crate::door::unattended;
use crate::host::clock::Clock;
use crate::host::config::{self, Config, JoinSource};
use crate::host::links::{LinksHandle, META_LINKS, Wishes, host_network, warn_of_names};
use crate::http;
use crate::membership::vitals::host::Sample;
use crate::mesh::Underlay;
use crate::node::{KeyPlace, Node, OwnName, mend};
use crate::notices::watch_descriptors;
use crate::store::{Folder, Home};

pub use assembly::{Ground, assemble};
pub use stopped::{become_owner, reset_identity};

/// Where this host lists its groups.
const GROUPS: &str = "/etc/group";

/// How many threads wait for files, and for the host's resolver. The unit's bound is derived from it.
const BLOCKING_THREADS_MAX: usize = 16;

/// How long threads that wait for files may take at the end; all that matters is on disk by then.
const UNFINISHED_MAX: Duration = Duration::from_secs(1);

/// Why a serving agent ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// A signal told it to stop, or its disk failed for good.
    Told,
    /// Its host has another identity, and the agent starts anew under it.
    Renewed,
}

/// Runs the agent until it is told to stop. `reload` reads its configuration anew.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: Config, reload: Reload) -> anyhow::Result<()> {
    // One thread is enough for an agent that waits more than it computes, and it need not wake
    // another one; for the disk the store has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("the runtime could not be started")?;
    let join = config.join.clone();
    let ending = runtime.block_on(serve(config, reload));
    // The host's resolver may take long for a name, and nobody waits for it any more.
    runtime.shutdown_timeout(UNFINISHED_MAX);
    match ending? {
        Ending::Told => Ok(()),
        Ending::Renewed => {
            let failure = match join {
                Some(JoinSource::Token(token)) => with_token(&token),
                _ => again().exec(),
            };
            Err(failure).context("the agent could not be started anew")
        }
    }
}

async fn serve(config: Config, reload: Reload) -> anyhow::Result<Ending> {
    // The signals are caught before anything answers: an agent that others can see must say goodbye
    // when it is stopped.
    let mut signals = Signals::catch(reload).context("the signals cannot be caught")?;
    let clock = Clock::start();
    let folder = Arc::new(Folder::open(&config.data_dir)?);
    let name = own_name(&config);
    let mut home = Home::open(folder)?;
    let mended = mend(&mut home, name.read().ok(), clock.now()).await?;
    let Home { key, store, image, about, .. } = home;
    let socket = http::Socket::bind(&config.socket).await?;
    let underlay = listening::bind(config.listen, &image)?;
    let bound = underlay.local_address().context("the mesh's own address")?;
    let kept = image.meta.get(META_LINKS).cloned();
    let wishes = Wishes { configured: config.links.clone(), kept, bound };
    let links = LinksHandle::spawn(wishes, store.clone(), clock);

    let addresses = links.addresses();
    let (replaced, mut renewals) = mpsc::channel(1);
    let ground = Ground {
        key,
        name,
        addresses: addresses.clone(),
        clock,
        look: Sample::of_this_host,
        network: host_network,
        underlay,
        bind: Arc::new(Underlay::bind),
        store: store.clone(),
        image,
        key_place: Some(KeyPlace { folder: config.data_dir.clone(), replaced }),
    };
    let (node, mut breaks) = assemble(ground).await?;
    let shutdown = CancellationToken::new();
    let rights = Rights::of_host(config.group, GROUPS.into(), Grant::defaults());
    let router = http::router(Agent::new(node.clone(), links), rights, shutdown.clone());
    let (notices, names) = (node.notices().clone(), node.mesh().names().clone());

    // The tasks beside the node's own, each with the handles that it needs.
    tokio::spawn(label::keep(node.clone(), store, about.map(|about| about.label)));
    tokio::spawn(watch_descriptors(notices.clone(), socket.refused()));
    let serving = tokio::spawn(http::serve(socket, router, shutdown.clone()));
    if let Some(source) = config.join {
        tokio::spawn(unattended::join(node.clone(), source, config.name.clone(), config.replace));
    }
    tokio::spawn(warn_of_names(names, addresses));
    let supervised = tokio::spawn(supervision::report(node.clone()));

    if !mended.is_empty() {
        let hint = "check the disk (`dmesg`): this stands until the next look at the whole journal";
        notices.set(NoticeKind::Journal, Some(State::new(mended.join("; "), hint)));
    }
    say_started(&node, config.name);

    let (ending, cause) = tokio::select! {
        () = signals.stop() => (Ending::Told, None),
        Some(()) = renewals.recv() => (Ending::Renewed, None),
        cause = breaks.recv() => (Ending::Told, cause),
    };
    if ending == Ending::Told {
        supervision::stopping();
    }
    supervised.abort();
    node.stop().await;
    shutdown.cancel();
    let _ = serving.await;
    info!("stopped");
    match cause {
        None => Ok(ending),
        Some(cause) => anyhow::bail!("the disk fails for good: {cause}"),
    }
}

/// Logs which node has started and where it is reached, and warns if the configured name is not the
/// name of this member.
fn say_started(node: &Node, configured: Option<NodeName>) {
    let addresses: Vec<_> = node.addresses().iter().map(Address::to_string).collect();
    let is_member = node.membership().is_some();
    if let Some(name) = configured.filter(|n| is_member && !one_name(n.as_str(), &node.name())) {
        let is = node.name();
        warn!(
            "{is} is this node's name in its Data Center; `peerage rename {is} {name}` changes it"
        );
    }
    let (id, boot) = (node.id().short(), node.boot());
    info!(node = node.name(), %id, boot, at = addresses.join(" "), "started");
}

/// The name that is configured, or the host's.
fn own_name(config: &Config) -> OwnName {
    config.name.clone().map_or(OwnName::OfHost(config::host_name), OwnName::Given)
}
