//! Becoming a member: of a Data Center that this node founds, or of one that it joins.

use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::invitation::{JoinInformation, Secret, TokenError};
use peerage_proto::notice::NoticeKind;
use peerage_proto::replica::{Actor, Outputs, Replica};
use peerage_proto::roster::{NodeName, Roster, datacenter_name, datacenter_path, member_path};
use quinn::Connection;
use tokio::sync::watch;

use super::disk::{META_DATACENTER, META_NOTICE, META_PAST};
use super::{Node, NodeError};
use crate::admission::join::{Dialler, Joiner, NotDialled};
use crate::membership::Membership;
use crate::mesh::{DialError, Mesh};
use crate::replica::WriteFailure;
use crate::store::Write;

impl Node {
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

    /// Joins the Data Center that Join Information is for; returns which seed let this node in.
    /// With `replace` this node takes its name over from a member that is down, and that member is
    /// removed.
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
}

/// The error that a member gets when it tries to found or join a Data Center.
pub(super) fn already_member(roster: &Roster, datacenter: DataCenterId) -> NodeError {
    NodeError::AlreadyMember { name: roster.datacenter_name.clone(), id: datacenter }
}

/// Tells the mesh's gate that the node is becoming a member, for as long as this value lives.
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
    async fn dial(&self, node: NodeId, address: Address) -> Result<Connection, NotDialled> {
        self.0.dial_join(node, &[address]).await.map_err(|error| match error {
            DialError::Full => NotDialled::Full,
            error => NotDialled::Failed(error.to_string()),
        })
    }
}
