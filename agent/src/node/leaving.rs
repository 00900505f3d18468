//! Leaving a Data Center in good order: the node checks that another member holds what it holds,
//! tells the others, and puts aside what it had.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use peerage_proto::departure::Loss;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::replica::Actor;
use peerage_proto::roster::{Roster, member_path};
use peerage_proto::wire::CloseCode;
use rand::seq::SliceRandom;
use tokio::time::{Instant, timeout};

use super::notice::LEFT_HINT;
use super::{Node, NodeError, Notice};
use crate::host::clock::rfc3339;
use crate::membership::{Members, Sessions};
use crate::replica::ReplicaHandle;

/// How long a node that leaves waits for the members that are alive to confirm that they heard.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the members that are reached may take, all together, until one of them confirms that it
/// holds what this node holds.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);

/// How many members are asked at once: a member that hangs takes one place.
const ASKED_AT_ONCE: usize = 4;

/// How a node left.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// The Data Center's name.
    pub datacenter_name: String,
    /// Its id.
    pub datacenter: DataCenterId,
    /// The names of the members that confirmed that they heard.
    pub told: Vec<String>,
    /// Where what the node had is kept.
    pub backup: PathBuf,
    /// What the operator has to do where there were other members, and none confirmed.
    pub unheard: Option<Notice>,
}

impl Node {
    /// Leaves the Data Center: tells the others, puts aside what the node had, and makes it
    /// standalone. Without `force`, another member has to hold all that this node holds.
    ///
    /// # Errors
    /// [`NodeError`]; after [`NodeError::Loss`] it is a member as before.
    pub async fn leave(&self, actor: Actor, force: bool) -> Result<Farewell, NodeError> {
        let mut turn = self.turning.lock().await;
        if let Some(notice) = &*self.twin.borrow() {
            return Err(NodeError::Twin(notice.message.clone()));
        }
        let membership = self.membership().ok_or(NodeError::Standalone)?;
        // From here on this node acknowledges no write, since the write might be lost with the
        // node.
        let _closed = membership.replica.close();
        // Writes that were decided before are on disk once this returns, so the sessions below
        // confirm them, too.
        membership.replica.read(|_| ()).await?;
        if !force
            && let Some(loss) =
                loss(&membership.members, &membership.sessions, &membership.replica).await?
        {
            return Err(NodeError::Loss(loss));
        }
        let (me, roster, alive) = (self.id(), membership.roster(), membership.members.alive());
        let who = actor.who.clone();
        let edit = Roster::leaving(me, &who, self.now().wall_ms);
        let replica = &membership.replica;
        let acknowledged = replica.write_by_any_clock(member_path(&me), edit, actor, true).await?;
        let told = match &acknowledged.receipts {
            Some(receipts) => {
                let deadline = Instant::now() + FAREWELL_TIMEOUT;
                receipts.until(deadline, |nodes| nodes.is_superset(&alive)).await
            }
            None => Default::default(),
        };
        let datacenter = &roster.datacenter_name;
        let past = self
            .past_of(
                &membership.replica,
                membership.datacenter,
                format!("left {datacenter}: {who}"),
            )
            .await;
        membership.stop(true).await;
        self.parts.mesh.disconnect_all(CloseCode::Leaving, "the node leaves the Data Center");
        let is_heard = !told.is_empty() || roster.others(me).next().is_none();
        let unheard = (!is_heard).then(|| nobody_heard(&roster.name_of(&me)));
        // Kept over restarts, so that Join Information that stays in the configuration does not
        // bring the node back against the operator's word.
        let notice = Notice {
            message: format!(
                "{who} took this node out of {datacenter} at {}{}",
                rfc3339(self.now().wall_ms),
                unheard.as_ref().map_or_else(String::new, |u| format!("; {}", u.message))
            ),
            hint: match &unheard {
                Some(unheard) => format!("{}; {LEFT_HINT}", unheard.hint),
                None => LEFT_HINT.into(),
            },
            removed: false,
        };
        let backup = self.step_out(&mut turn, notice, past, "left").await?;
        let heard = if is_heard { "" } else { ", and nobody heard" };
        self.tell("left", format!("{who} left {datacenter}{heard}"));
        Ok(Farewell {
            datacenter_name: roster.datacenter_name.clone(),
            datacenter: membership.datacenter,
            told: told.iter().map(|id| roster.name_of(id)).collect(),
            backup,
            unheard,
        })
    }
}

/// What would be lost if the node left now. A member holds what this one holds once a session with
/// it has come to its end: the two have given each other what was missing, and have it on disk. A
/// member that is about to leave runs no session, so two that leave at once do not count on each
/// other.
async fn loss(
    members: &Members,
    sessions: &Sessions,
    replica: &ReplicaHandle,
) -> Result<Option<Loss>, NodeError> {
    let mut reached: Vec<NodeId> = members.reached().into_iter().collect();
    reached.shuffle(&mut rand::rng());
    let confirmed = {
        let asked = stream::iter(reached.clone()).map(|member| sessions.synchronise(member));
        let confirmed = asked.buffer_unordered(ASKED_AT_ONCE).any(|held| async move { held });
        timeout(CONFIRMED_WITHIN, confirmed).await.unwrap_or(false)
    };
    let seen = sessions.seen_elsewhere();
    let loss = replica.read(move |r| Loss::of(r, &reached, confirmed, &seen)).await;
    Ok(loss?)
}

/// What to do where no other member has heard that this node leaves.
fn nobody_heard(name: &str) -> Notice {
    Notice {
        message: "no other member confirmed that it heard, so they show this node as down".into(),
        hint: format!(
            "this agent tells those who look for it, for as long as it runs; if it goes first, \
             `peerage remove {name}` on one of them"
        ),
        removed: false,
    }
}
