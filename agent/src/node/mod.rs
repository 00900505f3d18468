//! This node: standalone, or a member of one Data Center; and the ways from one to the other.
//!
//! Founding, joining, leaving and being put out take turns here. Each is one commit on disk, so a
//! crash finds the node on one side or on the other.

#[cfg(test)]
mod damage;
mod disk;
mod error;
mod leaving;
mod meeting;
mod mending;
mod own_name;
mod renewal;

use std::path::PathBuf;
use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::admission::invitation::{JoinInformation, Secret, TokenError};
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::identity::Keypair;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::replica::{Actor, Limits, Outputs, Replica, SignedChange};
use peerage_proto::roster::{
    NodeName, Roster, Standing, datacenter_name, datacenter_path, member_path,
};
use peerage_proto::time::Now;
use peerage_proto::wire::CloseCode;
use quinn::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admission::join::{Dialler, Joiner};
use crate::admission::past::Past;
use crate::feed::Feed;
use crate::feed::Happening;
use crate::host::clock::{Clock, rfc3339};
use crate::host::links::NetworkLook;
use crate::host::machine::machine;
use crate::membership::vitals::host::Look;
use crate::membership::{End, Inbound, Membership, Parts};
use crate::mesh::Mesh;
use crate::notices::Notices;
use crate::replica::{ReplicaHandle, WriteFailure};
use crate::store::{Image, Store, StoreError, Write};

pub use error::NodeError;
pub use leaving::Farewell;
pub use meeting::{MeetError, Meeting};
pub use mending::{META_BOOT, META_PORT, mend};
pub use own_name::{NAMELESS_HINT, OwnName};
pub use renewal::{KeyPlace, Renewed, reset_stopped};

use disk::{StoreDisk, loaded};

/// What a node that left can do.
const LEFT_HINT: &str = "join again with new Join Information (`peerage invite` on a member)";

/// What a node that was removed can do.
const REMOVED_HINT: &str = "to join again it needs a new identity: `peerage reset --identity`, then \
                            new Join Information";

/// What to do about a disk that was copied.
pub const TWIN_HINT: &str = "if this host is the copy, give it an identity of its own: \
                             `peerage reset --identity`; if it is the one to stay, stop the other \
                             for good, do the same here, and take the name over by `peerage join \
                             --replace` with Join Information of another member; starting it anew \
                             changes nothing";

/// Under which names the store keeps what is this node's own.
const META_DATACENTER: &str = "datacenter";
const META_NOTICE: &str = "notice";
const META_TWIN: &str = "twin";
const META_PAST: &str = "past";

/// Something that the operator should know, until it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether this node's key was put out for good.
    pub removed: bool,
}

impl Notice {
    fn write(&self, name: &'static str) -> Write {
        Write::Meta { name, value: self.bytes() }
    }

    /// Its form on disk.
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notice is plain text")
    }

    /// The one that a disk holds under a name.
    fn read(image: &Image, name: &str) -> Option<Self> {
        image.meta.get(name).and_then(|notice| serde_json::from_slice(notice).ok())
    }
}

/// What a node is made of.
pub struct NodeParts {
    /// Its key.
    pub key: Keypair,
    /// The number of this start of the agent.
    pub boot: u64,
    /// The name that it takes where nobody says otherwise.
    pub name: OwnName,
    /// Where it is reached, now and later, the best first.
    pub addresses: watch::Receiver<Vec<Address>>,
    /// The version of the agent.
    pub version: String,
    /// The time.
    pub clock: Clock,
    /// How the host is looked at.
    pub look: Look,
    /// How its network is looked at.
    pub network: NetworkLook,
    /// The disk.
    pub store: Store,
    /// The mesh.
    pub mesh: Mesh,
    /// What arrives by it.
    pub inbound: Inbound,
    /// Where the membership is shown to the mesh's gate.
    pub membership: watch::Sender<Option<Arc<Membership>>>,
    /// Set while the node becomes a member, for the mesh's gate.
    pub entering: watch::Sender<bool>,
    /// Where the mesh's gate finds how the last membership ended.
    pub past: watch::Sender<Option<Arc<Past>>>,
    /// Told when the disk fails for good.
    pub broken: mpsc::Sender<Arc<str>>,
    /// Where the key is kept; none where it is nowhere but in memory.
    pub key_place: Option<KeyPlace>,
}

/// What whoever founds, joins, leaves or parks must know.
#[derive(Debug, Default)]
struct Turn {
    /// Why the last membership ended, as long as what the node had in it is still in the store
    /// because it could not be put aside. No other membership begins before it is.
    left_over: Option<&'static str>,
}

/// The node.
pub struct Node {
    parts: NodeParts,
    limits: Limits,
    /// Drawn at random at this start of the agent.
    instance: u64,
    changes: Feed<SignedChange>,
    happenings: Feed<Happening>,
    notices: Notices,
    notice: watch::Sender<Option<Notice>>,
    /// Set where this node keeps apart, because another host with its key was alive. It is on disk,
    /// as all that the node has is: a start that finds the other away must not take its place.
    twin: watch::Sender<Option<Notice>>,
    /// Whoever founds, joins, leaves or parks holds this.
    turning: Mutex<Turn>,
    /// Whether the agent was told to stop.
    stopping: CancellationToken,
    ended: mpsc::Sender<End>,
}

impl Node {
    /// The node that a disk holds: a member goes on as one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(parts: NodeParts, image: Image) -> Result<Arc<Self>, StoreError> {
        let (ended, ends) = mpsc::channel(4);
        let notice = Notice::read(&image, META_NOTICE);
        let twin = Notice::read(&image, META_TWIN);
        let happenings = Feed::new(parts.boot, Happening::bytes);
        let named = {
            let (membership, name) = (parts.membership.subscribe(), parts.name.clone());
            let me = parts.key.node_id();
            move || match &*membership.borrow() {
                Some(membership) => membership.roster().name_of(&me),
                None => name.shown(),
            }
        };
        let node = Arc::new(Self {
            limits: Limits::default(),
            instance: rand::random(),
            twin: watch::Sender::new(twin),
            changes: Feed::new(parts.boot, |change| change.bytes().len()),
            notices: Notices::new(happenings.clone(), parts.clock, named),
            happenings,
            notice: watch::Sender::new(notice),
            turning: Mutex::default(),
            stopping: CancellationToken::new(),
            ended,
            parts,
        });
        node.show_notices();
        let past = image.meta.get(META_PAST).and_then(|past| Past::decode(past));
        node.parts.past.send_replace(past.map(Arc::new));
        let id = image.meta.get(META_DATACENTER).and_then(|id| id.as_slice().try_into().ok());
        let twin = node.twin.borrow().clone();
        match (id.map(DataCenterId), twin) {
            (Some(_), Some(notice)) => error!("{}; {}", notice.message, notice.hint),
            (Some(datacenter), None) => {
                let replica = loaded(datacenter, node.disk(datacenter), image);
                node.start(replica).await;
            }
            // A departure was cut off after its commit: what was left is put aside now.
            (None, _) if !image.changes.is_empty() => {
                let mut turn = node.turning.lock().await;
                if let Err(error) = node.put_aside(&mut turn, "left").await {
                    error!("{error}");
                }
            }
            (None, _) => {}
        }
        tokio::spawn(follow_ends(node.clone(), ends));
        Ok(node)
    }

    /// The membership; none while standalone.
    pub fn membership(&self) -> Option<Arc<Membership>> {
        self.parts.membership.borrow().clone()
    }

    /// The membership as it is and will be.
    pub fn memberships(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        self.parts.membership.subscribe()
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.parts.key.node_id()
    }

    /// This node's key.
    pub fn key(&self) -> &Keypair {
        &self.parts.key
    }

    /// The name that it shows, or takes when it joins.
    pub fn name(&self) -> String {
        match self.membership() {
            Some(membership) => membership.roster().name_of(&self.id()),
            None => self.parts.name.shown(),
        }
    }

    /// The number of this start of the agent.
    pub fn boot(&self) -> u64 {
        self.parts.boot
    }

    /// Where it is reached, the best first.
    pub fn addresses(&self) -> Vec<Address> {
        self.parts.addresses.borrow().clone()
    }

    /// The version of the agent.
    pub fn version(&self) -> &str {
        &self.parts.version
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.parts.clock.now()
    }

    /// How its last membership ended; none where it is in that Data Center again.
    pub fn past(&self) -> Option<Arc<Past>> {
        self.parts.past.borrow().clone()
    }

    /// The states of this node that need a person.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Why it is in no Data Center any more, where it was in one.
    pub fn notice(&self) -> Option<Notice> {
        self.twin.borrow().clone().or_else(|| self.notice.borrow().clone())
    }

    /// Whether it keeps apart, because another host with its key is alive.
    pub fn has_twin(&self) -> bool {
        self.twin.borrow().is_some()
    }

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.parts.mesh
    }

    /// The changes of the settings.
    pub fn changes(&self) -> &Feed<SignedChange> {
        &self.changes
    }

    /// What happens.
    pub fn happenings(&self) -> &Feed<Happening> {
        &self.happenings
    }

    /// The name that it takes where nobody gives it another.
    ///
    /// # Errors
    /// [`NodeError::Nameless`]: its host's name cannot name a node.
    pub fn own_name(&self) -> Result<NodeName, NodeError> {
        self.parts.name.read().map_err(NodeError::Nameless)
    }

    /// Founds a Data Center.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn create(&self, name: &str, actor: Actor) -> Result<Arc<Membership>, NodeError> {
        let mut turn = self.turning.lock().await;
        self.check_standalone()?;
        let name = datacenter_name(name)?;
        let own = self.own_name()?;
        self.make_room(&mut turn).await?;
        let datacenter = DataCenterId(rand::random());
        let mut replica = Replica::new(datacenter, self.parts.key.clone(), self.limits.clone());
        let (me, now) = (self.id(), self.now());
        let admission =
            Roster::default().admission(&me, &own, &self.addresses(), me, None, now.wall_ms);
        let founding = Roster::founding(&name, now.wall_ms);
        let edits = vec![(datacenter_path(), founding), (member_path(&me), admission)];
        let (_, outputs) = replica.write_all(edits, actor.clone(), rand::random(), now)?;
        self.enter(replica, &outputs).await?;
        let message = format!("{} founded {name} on {own}", actor.who);
        self.tell("created", message);
        self.membership().ok_or(NodeError::Standalone)
    }

    /// Joins the Data Center that Join Information is for; tells which seed let this node in. With
    /// `replace` it takes the name over from a member that is down, which is removed by that.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn join(
        &self,
        token: &str,
        password: Option<&str>,
        name: Option<&str>,
        replace: bool,
    ) -> Result<(Arc<Membership>, String), NodeError> {
        let mut turn = self.turning.lock().await;
        self.check_standalone()?;
        let information = JoinInformation::parse(token)?;
        let secret = match (&information.secret, password) {
            (Some(secret), _) => secret.clone(),
            (None, Some(password)) => Secret::from_password(password)?,
            (None, None) => return Err(NodeError::PasswordNeeded),
        };
        if !information.opens_with(&secret) {
            return Err(TokenError::Password.into());
        }
        let name = match name {
            Some(name) => name.parse::<NodeName>()?,
            None => self.own_name()?,
        };
        self.make_room(&mut turn).await?;
        let joiner = Joiner {
            key: self.parts.key.clone(),
            name: name.to_string(),
            addresses: self.addresses(),
            version: self.parts.version.clone(),
            replace,
            limits: self.limits.clone(),
            store: self.parts.store.clone(),
            clock: self.parts.clock,
        };
        let _entering = Entering::begin(&self.parts.entering);
        let dialler = JoinDialler(self.parts.mesh.clone());
        // Seeds may be slow, and an agent that is told to stop does not wait for them.
        let joining = joiner.join(&information, &secret, &dialler);
        let admission = self.stopping.run_until_cancelled(joining).await;
        let admission = admission.ok_or(WriteFailure::Stopping)??;
        self.enter(admission.replica, &admission.outputs).await?;
        let membership = self.membership().ok_or(NodeError::Standalone)?;
        let datacenter = membership.roster().datacenter_name.clone();
        self.tell("joined", format!("{name} joined {datacenter} by {}", admission.seed));
        Ok((membership, admission.seed))
    }

    /// Stops: the others are told that the agent goes, and everything is on disk.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let _turn = self.turning.lock().await;
        if let Some(membership) = self.membership() {
            membership.stop(true).await;
        }
        self.parts.mesh.shutdown(CloseCode::Shutdown, "the agent stops").await;
        self.parts.store.close().await;
    }

    /// Puts itself aside after its membership was ended by others.
    async fn park(&self, standing: &Standing) -> Result<(), NodeError> {
        let mut turn = self.turning.lock().await;
        let Some(membership) = self.membership() else { return Ok(()) };
        let roster = membership.roster();
        if roster.is_current(&self.id()) {
            // It was said of a membership that ended meanwhile, not of this one.
            return Ok(());
        }
        let datacenter = &roster.datacenter_name;
        let (removed, ending) = match standing {
            Standing::Removed(ending) => (true, ending),
            Standing::Left(ending) => (false, ending),
            Standing::Member => return Ok(()),
        };
        let (on, at) = (roster.name_of(&ending.by), rfc3339(ending.at_ms));
        let notice = if removed {
            Notice {
                message: format!(
                    "this node was removed from {datacenter} by {} on {on} at {at}",
                    ending.who
                ),
                hint: REMOVED_HINT.into(),
                removed,
            }
        } else {
            Notice {
                message: format!("this node left {datacenter} on {at}, as the others tell it"),
                hint: LEFT_HINT.into(),
                removed,
            }
        };
        let how = match removed {
            true => format!("was removed from {datacenter} by {} on {on}", ending.who),
            false => format!("left {datacenter}: {} on {on}", ending.who),
        };
        let past = self.past_of(&membership.replica, membership.datacenter, how).await;
        membership.stop(false).await;
        self.parts.mesh.disconnect_all(CloseCode::Leaving, "no longer a member");
        warn!("{}", notice.message);
        let reason = if removed { "removed" } else { "left" };
        self.tell(reason, notice.message.clone());
        self.step_out(&mut turn, notice, past, reason).await.map(drop)
    }

    /// Keeps apart from the others, who know another host by this node's key. Its data stays.
    async fn keep_apart(&self, by: &str, cause: &str) {
        let _turn = self.turning.lock().await;
        let Some(membership) = self.membership() else { return };
        let datacenter = membership.roster().datacenter_name.clone();
        let notice = Notice {
            message: format!("{by} of {datacenter} refuses this node: {cause}"),
            hint: TWIN_HINT.into(),
            removed: false,
        };
        membership.stop(false).await;
        // Not as one that leaves: the other host goes on under this identity.
        self.parts.mesh.disconnect_all(CloseCode::Done, "another host has this identity");
        if let Err(error) = self.parts.store.commit(vec![notice.write(META_TWIN)]).await {
            error!(%error, "that this host was refused is forgotten at its next start");
        }
        self.twin.send_replace(Some(notice.clone()));
        self.parts.membership.send_replace(None);
        self.show_notices();
        error!("{}; {}", notice.message, notice.hint);
        self.tell("duplicate", notice.message);
    }

    fn check_standalone(&self) -> Result<(), NodeError> {
        if self.stopping.is_cancelled() {
            return Err(WriteFailure::Stopping.into());
        }
        if let Some(notice) = &*self.twin.borrow() {
            return Err(NodeError::Twin(notice.message.clone()));
        }
        match self.membership() {
            None => Ok(()),
            Some(membership) => Err(already_member(&membership.roster(), membership.datacenter)),
        }
    }

    /// Becomes a member, with a replica that is not on disk yet.
    async fn enter(&self, mut replica: Replica, outputs: &Outputs) -> Result<(), NodeError> {
        let mut writes = vec![
            Write::ClearReplica,
            Write::Meta { name: META_DATACENTER, value: replica.datacenter().0.to_vec() },
            Write::MetaDelete { name: META_NOTICE },
        ];
        writes.extend(outputs.commit.ops.iter().cloned().map(Write::Replica));
        let is_back = self.past().is_some_and(|past| past.datacenter == replica.datacenter());
        writes.extend(is_back.then_some(Write::MetaDelete { name: META_PAST }));
        self.parts.store.commit(writes).await?;
        replica.committed(&outputs.commit);
        self.parts.past.send_if_modified(|past| is_back && past.take().is_some());
        self.notice.send_replace(None);
        self.show_notices();
        self.notices.set(NoticeKind::Joins, None);
        self.start(replica).await;
        Ok(())
    }

    /// What those shall hear who still take this node for a member of what it is about to leave.
    async fn past_of(
        &self,
        replica: &ReplicaHandle,
        datacenter: DataCenterId,
        how: String,
    ) -> Past {
        let me = self.id();
        let without = Past { datacenter, how: how.clone(), evidence: Vec::new() };
        let past = replica.read(move |replica| Past::of(replica, &me, how)).await;
        past.unwrap_or_else(|error| {
            warn!(%error, "the end of this node's membership cannot be shown");
            without
        })
    }

    /// Becomes standalone; what the replica held is put aside.
    async fn step_out(
        &self,
        turn: &mut Turn,
        notice: Notice,
        past: Past,
        reason: &'static str,
    ) -> Result<PathBuf, NodeError> {
        let writes = vec![
            Write::MetaDelete { name: META_DATACENTER },
            notice.write(META_NOTICE),
            Write::Meta { name: META_PAST, value: past.encode() },
        ];
        if let Err(error) = self.parts.store.commit(writes).await {
            // The tasks of the membership are gone, and it cannot end: only a new start helps.
            let _ = self.ended.try_send(End::Disk(error.to_string().into()));
            return Err(error.into());
        }
        self.parts.past.send_replace(Some(Arc::new(past)));
        self.parts.membership.send_replace(None);
        self.notice.send_replace(Some(notice));
        self.show_notices();
        self.put_aside(turn, reason).await
    }

    /// Puts aside what the last membership left in the store, and tells where.
    async fn put_aside(&self, turn: &mut Turn, reason: &'static str) -> Result<PathBuf, NodeError> {
        turn.left_over = Some(reason);
        let at = rfc3339(self.now().wall_ms).replace(':', "");
        let put = self.parts.store.archive(&format!("{reason}-{at}")).await;
        let backup = put.map_err(NodeError::PutAside)?;
        turn.left_over = None;
        info!(backup = %backup.display(), "what it had is kept");
        Ok(backup)
    }

    /// Makes room in the store for another membership.
    async fn make_room(&self, turn: &mut Turn) -> Result<(), NodeError> {
        match turn.left_over {
            Some(reason) => self.put_aside(turn, reason).await.map(drop),
            None => Ok(()),
        }
    }

    async fn start(&self, replica: Replica) {
        let datacenter = replica.datacenter();
        let starting = Membership::start(Parts {
            key: self.parts.key.clone(),
            boot: self.parts.boot,
            instance: self.instance,
            machine: machine(datacenter).map(Vec::from),
            version: self.parts.version.clone(),
            addresses: self.parts.addresses.clone(),
            clock: self.parts.clock,
            look: self.parts.look,
            network: self.parts.network,
            replica,
            disk: Arc::new(self.disk(datacenter)),
            mesh: self.parts.mesh.clone(),
            inbound: self.parts.inbound.clone(),
            changes: self.changes.clone(),
            happenings: self.happenings.clone(),
            notices: self.notices.clone(),
            ended: self.ended.clone(),
        });
        let (membership, opening) = starting.await;
        self.parts.membership.send_replace(Some(membership.clone()));
        membership.open(opening);
    }

    /// Shows how the last membership ended. Each end is told as an event of its own.
    fn show_notices(&self) {
        let state = |notice: &watch::Sender<Option<Notice>>| {
            notice.borrow().as_ref().map(|n| State::new(n.message.clone(), n.hint.clone()))
        };
        self.notices.show(NoticeKind::Copy, state(&self.twin));
        self.notices.show(NoticeKind::Ended, state(&self.notice));
        self.look_at_name();
    }

    /// Finds out whether a node that belongs nowhere has a name to take, which its host may be given
    /// at any time. A member's name is looked at by its membership.
    pub fn look_at_name(&self) {
        if self.membership().is_none() {
            let nameless = self.own_name().err();
            let nameless = nameless.map(|error| State::new(error.to_string(), NAMELESS_HINT));
            self.notices.set(NoticeKind::Name, nameless);
        }
    }

    fn disk(&self, datacenter: DataCenterId) -> StoreDisk {
        StoreDisk {
            store: self.parts.store.clone(),
            datacenter,
            key: self.parts.key.clone(),
            limits: self.limits.clone(),
            clock: self.parts.clock,
        }
    }

    fn tell(&self, kind: &'static str, message: String) {
        let happening = Happening::here(kind, &self.name(), message);
        self.happenings.tell(happening, self.now().wall_ms);
    }
}

impl Drop for Node {
    /// The mesh's gate sees the membership, and the membership holds the mesh: whoever lets go of
    /// the node lets go of both.
    fn drop(&mut self) {
        self.parts.membership.send_replace(None);
    }
}

async fn follow_ends(node: Arc<Node>, mut ends: mpsc::Receiver<End>) {
    while let Some(end) = ends.recv().await {
        match end {
            End::Standing(standing) => {
                if let Err(error) = node.park(&standing).await {
                    error!(%error, "this node could not put itself aside");
                }
            }
            End::Twin { by, cause } => node.keep_apart(&by, &cause).await,
            End::Disk(cause) => {
                let _ = node.parts.broken.send(cause).await;
                return;
            }
        }
    }
}

fn already_member(roster: &Roster, datacenter: DataCenterId) -> NodeError {
    NodeError::AlreadyMember { name: roster.datacenter_name.clone(), id: datacenter }
}

/// Says that the node becomes a member, for as long as it lives.
struct Entering<'a>(&'a watch::Sender<bool>);

impl<'a> Entering<'a> {
    fn begin(entering: &'a watch::Sender<bool>) -> Self {
        entering.send_replace(true);
        Self(entering)
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Dials seeds by the mesh.
struct JoinDialler(Mesh);

impl Dialler for JoinDialler {
    async fn dial(&self, node: NodeId, address: Address) -> Result<Connection, String> {
        self.0.dial_join(node, &[address]).await.map_err(|error| error.to_string())
    }
}
