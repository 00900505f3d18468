//! The agent as a process: the composition root. It sees every part, and no part sees it.

pub mod again;
mod assembly;
mod label;
pub mod signals;
mod supervision;

use std::fs::{self, Metadata};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use peerage_proto::access::Grant;
use peerage_proto::address::Address;
use peerage_proto::api::node::IdentityReset;
use peerage_proto::api::{ApiError, ErrorCode, Named};
use peerage_proto::links::canonical;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::roster::one_name;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{Agent, Rights};
use crate::daemon::again::{again, with_token};
use crate::daemon::signals::{Reload, Signals};
use crate::door::unattended;
use crate::host::clock::Clock;
use crate::host::config::{self, Config, JoinSource, Listen};
use crate::host::links::{LinksHandle, META_LINKS, Wishes, host_network, warn_of_names};
use crate::http;
use crate::membership::vitals::host::Sample;
use crate::mesh::Underlay;
use crate::node::{KeyPlace, META_PORT, OwnName, mend, reset_stopped};
use crate::notices::watch_descriptors;
use crate::store::{Folder, Home, Image};

pub use assembly::{Ground, assemble};

/// Where this host lists its groups.
const GROUPS: &str = "/etc/group";

/// How many threads wait for files, and for the host's resolver. The unit's bound is derived from it.
const BLOCKING_THREADS_MAX: usize = 16;

/// How long what waits for files may take at the end; all that matters is on disk by then.
const UNFINISHED_MAX: Duration = Duration::from_secs(1);

/// Why an agent that serves comes to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// It was told to stop.
    Told,
    /// Its host has another identity, and it starts anew under that.
    Renewed,
}

/// Runs the agent until it is told to stop. `reload` reads its configuration anew.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub fn run(config: Config, reload: Reload) -> anyhow::Result<()> {
    // One thread is enough for what waits more than it computes, and it need not wake another one:
    // of the disk's waits the store has a thread of its own.
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

/// Starts this command anew as the user to whom a data folder belongs, where root gave it: what it
/// writes there must be the agent's, who is not root on a packaged host. Returns where this process
/// may go on as it is.
///
/// # Errors
/// That it is no agent's folder, or may not be looked into; what kept it from going on as its owner.
/// With what to do instead.
pub fn become_owner(folder: &Path) -> Result<(), ApiError> {
    let found = looked_into(folder)?;
    let owner = found.uid();
    if !rustix::process::geteuid().is_root() || owner == 0 {
        return Ok(());
    }
    // Nobody else's rights come along: without a word the groups of root are given up, too.
    let error = again().uid(owner).gid(found.gid()).exec();
    let message = format!("{} belongs to user {owner}: {error}", folder.display());
    Err(ApiError::new(ErrorCode::Failed, message)
        .hint(format!("run this command as that user: `sudo -u '#{owner}' peerage reset ...`")))
}

/// Looks whether a folder holds an agent's data. That it may not be looked into is not that it holds
/// none.
fn looked_into(folder: &Path) -> Result<Metadata, ApiError> {
    let shown = folder.display();
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            ApiError::new(ErrorCode::NotFound, format!("there is no folder {shown}"))
                .hint("`peerage config show` tells an agent's data_dir")
        }
        io::ErrorKind::PermissionDenied => {
            let message = format!("you may not look into {shown}, so what it holds is not known");
            ApiError::new(ErrorCode::Forbidden, message)
                .hint("run this as root (sudo); it acts there as the user whose folder it is")
        }
        io::ErrorKind::NotADirectory => {
            ApiError::new(ErrorCode::BadRequest, format!("{shown} is no folder"))
        }
        _ => ApiError::new(ErrorCode::Failed, format!("cannot look into {shown}: {error}")),
    };
    let names = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
    });
    let names = names.map_err(refused)?;
    let ours = ["node.key", "journal", "node.about", "node.key.new"];
    if !names.iter().any(|name| ours.iter().any(|ours| name == *ours)) {
        let message = format!("there is no agent's data in {shown}");
        return Err(ApiError::new(ErrorCode::NotFound, message)
            .hint("`peerage config show` tells an agent's data_dir"));
    }
    folder.metadata().map_err(refused)
}

/// Gives the host of a stopped agent's folder another identity.
///
/// # Errors
/// What kept it from that.
pub fn reset_identity(folder: &Path) -> Result<IdentityReset, ApiError> {
    let failed = |message: String| ApiError::new(ErrorCode::Failed, message);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let renewed = runtime.block_on(reset_stopped(folder)).map_err(|e| failed(e.to_string()))?;
    Ok(IdentityReset {
        node: Named { name: config::host_name(), id: renewed.is.to_string() },
        was: renewed.was.map(|was| was.to_string()),
        backup: renewed.backup.map(|backup| backup.display().to_string()),
        old_key: renewed.old_key.map(|key| key.display().to_string()),
    })
}

async fn serve(config: Config, reload: Reload) -> anyhow::Result<Ending> {
    // Before anything answers: whoever sees the agent may stop it, and it says goodbye.
    let mut signals = Signals::catch(reload).context("the signals cannot be caught")?;
    let clock = Clock::start();
    let folder = Arc::new(Folder::open(&config.data_dir)?);
    let name = own_name(&config);
    let mut home = Home::open(folder)?;
    let mended = mend(&mut home, name.read().ok(), clock.now()).await?;
    let Home { key, store, image, about, .. } = home;
    let socket = http::Socket::bind(&config.socket).await?;
    let underlay = bind(config.listen, &image)?;
    let bound = underlay.local_address().context("the mesh's own address")?;
    let kept = image.meta.get(META_LINKS).cloned();
    let wishes = Wishes { configured: config.links.clone(), kept, bound };
    let links = LinksHandle::spawn(wishes, store.clone(), clock);

    let told = links.addresses();
    let (replaced, mut renewals) = mpsc::channel(1);
    let ground = Ground {
        key,
        name,
        addresses: links.addresses(),
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
    tokio::spawn(label::keep(node.clone(), store, about.map(|about| about.label)));
    if !mended.is_empty() {
        let hint = "check the disk (`dmesg`): this stands until the next look at the whole journal";
        let state = State::new(mended.join("; "), hint);
        node.notices().set(NoticeKind::Journal, Some(state));
    }
    let shutdown = CancellationToken::new();
    let rights = Rights::of_host(config.group, GROUPS.into(), Grant::defaults());
    let router = http::router(Agent::new(node.clone(), links), rights, shutdown.clone());
    tokio::spawn(watch_descriptors(node.notices().clone(), socket.refused()));
    let serving = tokio::spawn(http::serve(socket, router, shutdown.clone()));
    if let Some(source) = config.join {
        tokio::spawn(unattended::join(node.clone(), source, config.name.clone(), config.replace));
    }
    let addresses: Vec<_> = node.addresses().iter().map(Address::to_string).collect();
    if let Some(name) = config
        .name
        .filter(|name| node.membership().is_some() && !one_name(name.as_str(), &node.name()))
    {
        let is = node.name();
        warn!(
            "{is} is this node's name in its Data Center; `peerage rename {is} {name}` changes it"
        );
    }
    let (id, boot) = (node.id().short(), node.boot());
    info!(node = node.name(), %id, boot, at = addresses.join(" "), "started");
    tokio::spawn(warn_of_names(node.mesh().names().clone(), told));
    let supervised = tokio::spawn(supervision::report(node.clone()));

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
                let words = cannot_listen(canonical(address), &error);
                let error = anyhow::Error::new(error).context(words);
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("there is no address to listen on")))
}

/// Why the mesh's socket cannot be bound, and what to do.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "is another agent running? (--listen ADDR:PORT takes another)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable if !address.ip().is_unspecified() => {
            let (ip, all) =
                (address.ip(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())));
            format!(
                "this host has no address {ip} (yet); `ip addr` shows what it has, and --listen \
                 {all} takes all addresses, also those that come later"
            )
        }
        _ => "--listen ADDR:PORT takes another place".to_owned(),
    };
    format!("cannot listen on UDP {address}: {why}")
}

/// The name that is configured, or the host's.
fn own_name(config: &Config) -> OwnName {
    config.name.clone().map_or(OwnName::OfHost(config::host_name), OwnName::Given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_and_an_address_that_is_not_there_are_told_apart() {
        let told = |address: &str, kind: io::ErrorKind| {
            cannot_listen(canonical(address.parse().unwrap()), &kind.into())
        };
        let taken = told("[::]:4747", io::ErrorKind::AddrInUse);
        assert!(taken.contains("another agent") && taken.contains("[::]:4747"), "{taken}");
        let missing = told("[::ffff:10.0.0.9]:4747", io::ErrorKind::AddrNotAvailable);
        assert!(missing.contains("UDP 10.0.0.9:4747"), "{missing}");
        assert!(missing.contains("no address 10.0.0.9 (yet)"), "{missing}");
        let forbidden = told("0.0.0.0:47", io::ErrorKind::PermissionDenied);
        assert!(forbidden.contains("--listen") && !forbidden.contains("another agent"));
    }
}
