//! Puts the agent together upon a ground: a key, a socket, a disk, a clock.
//!
//! The daemon hands in the ground of its host, a simulation hands in its own. All between the
//! ground and the api is wired here, so a simulation runs the same agent as a host.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use peerage_proto::address::Address;
use peerage_proto::identity::Keypair;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::wire::StreamKind;
use tokio::sync::{Mutex, mpsc, watch};
use tracing::info;

use crate::door::gate::NodeGate;
use crate::door::seed::serve_joiners;
use crate::host::clock::Clock;
use crate::host::links::NetworkLook;
use crate::membership::Inbound;
use crate::membership::vitals::host::Look;
use crate::mesh::{Bind, Mesh, Places, Router, Underlay};
use crate::node::{KeyPlace, META_BOOT, META_PORT, Node, NodeParts, OwnName};
use crate::notices::{Notices, watch_disk};
use crate::store::{Image, Store, StoreError, Write};

/// How many arrivals of each kind may wait for their task.
const DATAGRAMS_MAX: usize = 1024;
const MESSAGES_MAX: usize = 256;
const DIGESTS_MAX: usize = 64;
const FRAMES_MAX: usize = 64;
const SESSIONS_MAX: usize = 32;
const JOINERS_MAX: usize = 128;

/// How often the whole journal is read back and verified.
const SELF_CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What an agent needs from its host.
pub struct Ground {
    /// The node's key, which is its identity.
    pub key: Keypair,
    /// The name that the node takes where nobody gives it another.
    pub name: OwnName,
    /// Where the others are told to find this node, now and later, the best first.
    pub addresses: watch::Receiver<Vec<Address>>,
    /// The time.
    pub clock: Clock,
    /// How the host is looked at.
    pub look: Look,
    /// How its network is looked at.
    pub network: NetworkLook,
    /// The mesh's socket.
    pub underlay: Underlay,
    /// Where further sockets come from.
    pub bind: Bind,
    /// The disk.
    pub store: Store,
    /// What the disk held at the start.
    pub image: Image,
    /// Where the key is kept; none where it is only in memory.
    pub key_place: Option<KeyPlace>,
}

/// Starts an agent. Returns its node, and the receiver of the cause when its disk fails for good.
///
/// # Errors
/// What kept it from starting.
pub async fn assemble(ground: Ground) -> anyhow::Result<(Arc<Node>, mpsc::Receiver<Arc<str>>)> {
    let Ground { key, name, addresses, clock, look, network, underlay, bind, store, image, .. } =
        ground;
    let bound = underlay.local_address().context("the mesh's own address")?;
    let boot = boot(&image, clock);
    let remembered = vec![
        Write::Meta { name: META_BOOT, value: boot.to_be_bytes().to_vec() },
        Write::Meta { name: META_PORT, value: bound.port().to_be_bytes().to_vec() },
    ];
    store.commit(remembered).await?;

    let membership = watch::Sender::new(None);
    let entering = watch::Sender::new(false);
    let past = watch::Sender::new(None);
    let gate = NodeGate {
        me: key.node_id(),
        membership: membership.subscribe(),
        entering: entering.subscribe(),
        past: past.subscribe(),
        clock,
        refusals: Arc::default(),
    };
    let mut router = Router::new();
    let lend = |receiver| Arc::new(Mutex::new(receiver));
    let inbound = Inbound {
        datagrams: Arc::new(Mutex::new(router.datagrams(DATAGRAMS_MAX))),
        vitals: Arc::new(Mutex::new(router.messages(StreamKind::Chitchat, MESSAGES_MAX))),
        digests: Arc::new(Mutex::new(router.messages(StreamKind::Digest, DIGESTS_MAX))),
        frames: Arc::new(Mutex::new(router.frames(FRAMES_MAX))),
        sessions: lend(router.sessions(StreamKind::Sync, SESSIONS_MAX)),
        questions: lend(router.sessions(StreamKind::InviteUses, SESSIONS_MAX)),
        clocks: lend(router.sessions(StreamKind::Clock, SESSIONS_MAX)),
    };
    let joiners = router.joins(JOINERS_MAX);
    let known = membership.subscribe();
    let lookup = move |peer| {
        let roster = known.borrow().as_ref().map(|membership| membership.roster());
        let places = roster.and_then(|roster| {
            let member = roster.member(&peer)?;
            Some(Places { told: member.addresses.clone(), seen: member.seen.clone() })
        });
        places.unwrap_or_default()
    };
    let mesh = Mesh::start(&key, underlay, gate, lookup, router).context("the mesh")?;

    let (broken, breaks) = mpsc::channel(1);
    let parts = NodeParts {
        key,
        boot,
        name,
        addresses,
        version: env!("CARGO_PKG_VERSION").into(),
        clock,
        look,
        network,
        store: store.clone(),
        mesh,
        inbound,
        membership,
        entering,
        past,
        broken,
        key_place: ground.key_place,
    };
    let node = Node::begin(parts, image).await?;
    tokio::spawn(serve_joiners(node.clone(), clock, bind, joiners));
    tokio::spawn(watch_disk(store.clone(), node.notices().clone()));
    tokio::spawn(check_journal(store, node.notices().clone()));
    Ok((node, breaks))
}

/// The number of this start: higher than all before, also where the disk was rolled back.
fn boot(image: &Image, clock: Clock) -> u64 {
    let before = image.meta.get(META_BOOT).and_then(|boot| boot.as_slice().try_into().ok());
    let before = before.map_or(0, u64::from_be_bytes);
    before.saturating_add(1).max(clock.now().wall_ms / 1000)
}

/// Reads the journal back now and then, so that damage is known before it is needed.
async fn check_journal(store: Store, notices: Notices) {
    loop {
        tokio::time::sleep(SELF_CHECK_EVERY).await;
        let state = match store.self_check().await {
            Ok(report) if report.damage.is_none() => {
                info!(records = report.records, bytes = report.bytes, "the journal is sound");
                None
            }
            Ok(report) => Some(State::new(
                format!("the journal is damaged: {}", report.damage),
                "check the disk; what the agent has in memory goes on, and the next start mends what \
                 it can and takes the rest from the other members",
            )),
            Err(StoreError::Closed) => return,
            Err(error) => Some(State::new(error.what(), error.remedy())),
        };
        notices.set(NoticeKind::Journal, state);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::notices::tests::{notices, told};
    use crate::store::{Damage, Disk, MemoryDisk, Report};

    /// A disk that loses a block while the agent runs.
    struct Rotting(MemoryDisk, Arc<AtomicBool>);

    impl Disk for Rotting {
        fn load(&mut self) -> Result<Image, StoreError> {
            self.0.load()
        }

        fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
            self.0.commit(writes)
        }

        fn check(&mut self) -> Result<Report, StoreError> {
            let unnamed = usize::from(self.1.load(Ordering::Relaxed));
            Ok(Report { damage: Damage { unnamed, ..Damage::default() }, ..self.0.check()? })
        }

        fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
            self.0.copy_to(path)
        }

        fn tidy(&mut self) -> Result<(), StoreError> {
            self.0.tidy()
        }

        fn compact(&mut self) -> Result<(), StoreError> {
            self.0.compact()
        }

        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_that_is_damaged_while_the_agent_runs_is_told_within_a_day() {
        let rotten = Arc::new(AtomicBool::new(false));
        let disk = Rotting(MemoryDisk::default(), rotten.clone());
        let (store, owner) = Store::over(disk, "/data/backup".into());
        tokio::spawn(owner.serve(|| Duration::ZERO));
        let (notices, happenings) = notices();
        tokio::spawn(check_journal(store, notices.clone()));
        let days = |days| tokio::time::sleep(SELF_CHECK_EVERY * days + Duration::from_secs(1));
        let standing = || -> Vec<_> {
            let board = notices.board().borrow().clone();
            board.standing().map(|(kind, notice)| (kind, notice.message.clone())).collect()
        };
        days(2).await;
        assert_eq!(standing(), []);

        rotten.store(true, Ordering::Relaxed);
        days(1).await;

        let told_of = standing();
        assert_eq!(told_of.len(), 1, "{told_of:?}");
        assert_eq!(told_of[0].0, NoticeKind::Journal);
        assert!(told_of[0].1.starts_with("the journal is damaged: "), "{told_of:?}");
        rotten.store(false, Ordering::Relaxed);
        days(1).await;
        assert_eq!(standing(), []);
        let told = told(&happenings).await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[1], "journal the journal is sound again");
    }
}
