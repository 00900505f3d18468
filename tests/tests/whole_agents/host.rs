//! A simulated host: its disk, its clock, and the agent that runs on it, with an operator who asks
//! the agent by the same interface as every front end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use peerage::api::{Agent, Answer, Serve};
use peerage::daemon::{Ground, assemble};
use peerage::host::clock::Clock;
use peerage::host::links::{LinksHandle, META_LINKS, Wishes};
use peerage::membership::vitals::host::Sample;
use peerage::node::{Node, OwnName};
use peerage::store::{Disk, Store};
use peerage_proto::access::{Caller, Process};
use peerage_proto::api::invites::{CreateInvite, RevokeInvite, Uses};
use peerage_proto::api::members::{RemoveMember, RenameMember};
use peerage_proto::api::node::{Create, GetStatus, Join, Leave};
use peerage_proto::api::settings::{
    Conflict, Document, GetHistory, HistoryEntry, ListConflicts, ListDocuments, SetFields,
};
use peerage_proto::api::{Span, Wait};
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::isolation::Network;
use peerage_proto::links::{Link, Priority};
use peerage_tests::sim::dice::Dice;
use tokio::sync::mpsc;

use crate::disk::SimulatedDisk;
use crate::flaw::Flaw;
use crate::wire::{Air, bind};

/// The port of every mesh.
const PORT: u16 = 4747;

/// The time of day at which every world begins, in milliseconds since 1970.
const BEGINNING_MS: i64 = 1_800_000_000_000;

/// How long a disk takes for half a commit, in milliseconds; one in ten takes ten times as long.
const DISK_MS_MAX: u64 = 6;

/// How long a write that is asked to wait waits for the others, in seconds.
const WAIT_S: u64 = 5;

/// What an operator asks.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Create,
    Invite {
        uses: Uses,
    },
    Revoke {
        invite: String,
    },
    Join {
        token: String,
        name: String,
    },
    Set {
        path: String,
        field: String,
        value: u64,
        wait: Wait,
    },
    Remove {
        node: String,
    },
    Rename {
        node: String,
        name: String,
    },
    Leave,
    Status,
    Look {
        histories: Vec<String>,
    },
    /// Stops the agent in good order.
    Stop,
}

/// What an agent says when it did what it was asked.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Done,
    Invited { token: String, id: String },
    Joined { name: String },
    Written { stamp: String, on: u32, of: u32 },
    Told { names: Vec<String> },
    Status { state: String },
    Looked(Box<View>),
}

/// All that a member shows of the settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) documents: Vec<Document>,
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) histories: Vec<(String, Vec<HistoryEntry>)>,
}

/// An order with the number by which its answer is known.
pub(crate) type Order = (u64, Ask);

/// An agent's answer.
pub(crate) type Answered = (u64, Answer<Said>);

/// What the world and the agents on a host share.
#[derive(Debug, Default)]
struct Desk {
    orders: Option<mpsc::UnboundedSender<Order>>,
    answers: Vec<Answered>,
    node: Weak<Node>,
    boots: u64,
    gave_up: Option<String>,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) disk: SimulatedDisk,
    key: Keypair,
    seed: u64,
    skew_ms: Mutex<i64>,
    backups: PathBuf,
    air: Arc<Air>,
    desk: Mutex<Desk>,
}

impl Host {
    pub(crate) fn new(
        number: usize,
        seed: u64,
        skew_ms: i64,
        flaw: Option<Flaw>,
        air: Arc<Air>,
        backups: PathBuf,
    ) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let mut secret = [0; 32];
        secret.chunks_mut(8).for_each(|c| c.copy_from_slice(&dice.draw().to_le_bytes()));
        Arc::new(Self {
            number,
            disk: SimulatedDisk::new(flaw),
            key: Keypair::from_seed(secret),
            seed: dice.draw(),
            skew_ms: Mutex::new(skew_ms),
            backups,
            air,
            desk: Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// The name that its agent takes by default.
    pub(crate) fn name(&self) -> String {
        format!("h{}", self.number)
    }

    pub(crate) fn ip(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number as u8 + 1).into()
    }

    /// Sets how far its clock is ahead, from the next start of its agent on.
    pub(crate) fn set_skew_ms(&self, skew_ms: i64) {
        *self.skew_ms.lock().unwrap_or_else(PoisonError::into_inner) = skew_ms;
    }

    /// Hands an order to the agent; `false` where none runs.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.desk().orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    /// The answers since this was last asked.
    pub(crate) fn answers(&self) -> Vec<Answered> {
        std::mem::take(&mut self.desk().answers)
    }

    /// The node that runs on it.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.desk().node.upgrade()
    }

    /// Why its agent stopped by itself, if it did since this was last asked.
    pub(crate) fn gave_up(&self) -> Option<String> {
        self.desk().gave_up.take()
    }

    /// Forgets the agent that ran on it.
    pub(crate) fn clear(&self) {
        let mut desk = self.desk();
        desk.orders = None;
        desk.node = Weak::new();
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an agent until it is told to stop, or cannot go on.
    pub(crate) async fn live(self: Arc<Self>) -> turmoil::Result {
        if let Err(error) = self.clone().serve().await {
            self.desk().gave_up = Some(error.to_string());
        }
        Ok(())
    }

    async fn serve(self: Arc<Self>) -> turmoil::Result {
        let (orders, mut order) = mpsc::unbounded_channel();
        let boots = {
            let mut desk = self.desk();
            desk.orders = Some(orders);
            desk.boots += 1;
            desk.boots
        };
        let mut disk = self.disk.clone();
        let image = disk.load()?;
        let (store, owner) = Store::over(disk, self.backups.clone());
        let mut dice = Dice::new(self.seed.wrapping_add(boots));
        tokio::spawn(owner.serve(move || {
            let slow = if dice.chance(10) { 10 } else { 1 };
            Duration::from_millis(dice.below(DISK_MS_MAX) * slow)
        }));
        let bind = bind(&self.air);
        let underlay = bind((Ipv4Addr::UNSPECIFIED, PORT).into())?;
        let clock = Clock::start_at(self.wall_ms());
        let place = SocketAddr::from((self.ip(), PORT)).to_string().parse()?;
        let link = Link { address: place, priority: Priority::default(), name: None };
        let wishes = Wishes {
            configured: Some((vec![link], "the simulation".into())),
            kept: image.meta.get(META_LINKS).cloned(),
            bound: underlay.local_address()?,
        };
        let links = LinksHandle::spawn(wishes, store.clone(), clock);
        let ground = Ground {
            key: self.key.clone(),
            name: OwnName::Given(self.name().parse()?),
            addresses: links.addresses(),
            clock,
            look: Sample::default,
            network: Network::default,
            underlay,
            bind,
            store,
            image,
            key_place: None,
        };
        let (node, mut breaks) = assemble(ground).await?;
        self.desk().node = Arc::downgrade(&node);
        let agent = Agent::new(node.clone(), links);
        loop {
            tokio::select! {
                biased;
                Some(cause) = breaks.recv() => return Err(cause.to_string().into()),
                Some((number, ask)) = order.recv() => {
                    if matches!(ask, Ask::Stop) {
                        node.stop().await;
                        self.desk().answers.push((number, Ok(Said::Done)));
                        return Ok(());
                    }
                    let (host, agent) = (self.clone(), agent.clone());
                    tokio::spawn(async move {
                        let answer = obey(&agent, ask).await;
                        host.desk().answers.push((number, answer));
                    });
                }
            }
        }
    }

    fn wall_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let skew_ms = *self.skew_ms.lock().unwrap_or_else(PoisonError::into_inner);
        (BEGINNING_MS + elapsed.as_millis() as i64 + skew_ms) as u64
    }
}

/// Does what an operator asks.
async fn obey(agent: &Agent, ask: Ask) -> Answer<Said> {
    let root = Process { uid: 0, gid: 0, user: None, groups: Vec::new() };
    let root = Caller::Process(root);
    let root = &root;
    Ok(match ask {
        Ask::Create => {
            agent.serve(root, Create { name: "Simulated".into() }).await?;
            Said::Done
        }
        Ask::Invite { uses } => {
            let made = agent.serve(root, CreateInvite { uses, ..CreateInvite::default() }).await?;
            Said::Invited { token: made.token, id: made.id }
        }
        Ask::Revoke { invite } => {
            agent.serve(root, RevokeInvite { id: invite }).await?;
            Said::Done
        }
        Ask::Join { token, name } => {
            let join = Join { token, name: Some(name), password: None, replace: false };
            Said::Joined { name: agent.serve(root, join).await?.node.name }
        }
        Ask::Set { path, field, value, wait } => {
            let set = [(field, value.into())].into();
            let timeout = Some(Span::seconds(WAIT_S));
            let fields = SetFields { path, set, wait, timeout, ..SetFields::default() };
            let written = agent.serve(root, fields).await?;
            Said::Written { stamp: written.stamp, on: written.wait.reached, of: written.wait.of }
        }
        Ask::Remove { node } => {
            Said::Told { names: agent.serve(root, RemoveMember { node, force: true }).await?.told }
        }
        Ask::Rename { node, name } => {
            Said::Joined { name: agent.serve(root, RenameMember { node, name }).await?.name }
        }
        Ask::Leave => Said::Told { names: agent.serve(root, Leave { force: true }).await?.told },
        Ask::Status => Said::Status { state: agent.serve(root, GetStatus {}).await?.node.state },
        Ask::Look { histories } => {
            let all = ListDocuments { full: true, ..ListDocuments::default() };
            let documents = agent.serve(root, all).await?.all();
            let conflicts = agent.serve(root, ListConflicts {}).await?.all();
            let mut entries = Vec::new();
            for path in histories {
                let history = agent.serve(root, GetHistory { path: path.clone() }).await?.all();
                entries.push((path, history));
            }
            Said::Looked(Box::new(View { documents, conflicts, histories: entries }))
        }
        Ask::Stop => Said::Done,
    })
}
