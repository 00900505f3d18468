//! Writes into the roster on request: a member is renamed, accepted or removed.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::access::Caller;
use peerage_proto::api::members::{
    AcceptMember, Accepted, MemberState, RemoveMember, Removed, RenameMember, Renamed,
};
use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::id::NodeId;
use peerage_proto::replica::Replica;
use peerage_proto::roster::{self, NodeName, Roster, Standing, member_path};
use tokio::time::Instant;

use super::agent::to_the_end;
use super::failure::{member, not_transacted, unresolved};
use super::{Agent, Answer, Serve, reach};
use crate::node::Node;
use crate::replica::Views;

/// How long a removal waits for the members that are alive, the removed node among them, to hear of
/// it.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

impl Serve<RenameMember> for Agent {
    async fn serve(&self, caller: &Caller, request: RenameMember) -> Answer<Renamed> {
        let membership = member(&self.node)?;
        let name: NodeName = request
            .name
            .parse()
            .map_err(|e: roster::NameError| ApiError::new(ErrorCode::BadRequest, e.to_string()))?;
        let actor = caller.actor();
        // The name is checked and written in one transaction, so no name is given twice on this
        // node in between.
        let decide = move |_: &Replica, views: &Views| {
            let roster = &views.roster;
            let member = current(roster, &request.node)?;
            let holder = roster.holder_of(name.as_str()).filter(|holder| holder.id != member.id);
            if let Some(holder) = holder {
                let message = format!("the name {name} is taken by {}", holder.id.short());
                return Err(ApiError::new(ErrorCode::Refused, message).hint("choose another"));
            }
            // A member that has the name already keeps its claim to it.
            let is_news = member.given_name != name.as_str();
            let edits = is_news.then(|| (member_path(&member.id), Roster::renaming(&name)));
            Ok(((member.id, member.name.clone()), edits.into_iter().collect()))
        };
        let renamed = membership.replica.transact(actor, false, decide).await;
        let ((id, was), _) = renamed.map_err(not_transacted)?;
        Ok(Renamed { name: membership.roster().name_of(&id), id: id.to_string(), was })
    }
}

impl Serve<AcceptMember> for Agent {
    async fn serve(&self, caller: &Caller, request: AcceptMember) -> Answer<Accepted> {
        let membership = member(&self.node)?;
        let actor = caller.actor();
        let (me, who, at_ms) = (membership.me, actor.who.clone(), self.node.now().wall_ms);
        let decide = move |_: &Replica, views: &Views| {
            let roster = &views.roster;
            let member = current(roster, &request.node)?;
            let was = roster.why_unaccepted(member);
            if was.is_some() && !roster.may_accept(&me) {
                let message = "this node is not accepted itself, so it can accept nobody";
                return Err(ApiError::new(ErrorCode::Refused, message).hint(format!(
                    "`peerage members accept {}` on a member that is; if all of those are gone for \
                 good, `peerage remove` them, then this node may",
                    member.name
                )));
            }
            let accepting =
                || (member_path(&member.id), Roster::accepting(member, me, &who, at_ms));
            let edits = was.is_some().then(accepting).into_iter().collect();
            Ok((Accepted { name: member.name.clone(), id: member.id.to_string(), was }, edits))
        };
        let accepted = membership.replica.transact(actor, false, decide).await;
        Ok(accepted.map_err(not_transacted)?.0)
    }
}

impl Serve<RemoveMember> for Agent {
    async fn serve(&self, caller: &Caller, request: RemoveMember) -> Answer<Removed> {
        let (node, caller) = (self.node.clone(), caller.clone());
        to_the_end(async move { remove(&node, &caller, request).await }).await
    }
}

async fn remove(node: &Node, caller: &Caller, request: RemoveMember) -> Answer<Removed> {
    let membership = member(node)?;
    let me = membership.me;
    let roster = membership.roster();
    let member = removable(&roster, me, &request.node)?;
    if !request.force {
        reach::check_removal(&membership.horizon, &roster.datacenter_name, &member.name).await?;
    }
    let id = member.id;
    let mut expected = membership.members.alive();
    expected.remove(&id);
    let actor = caller.actor();
    let (who, at_ms) = (actor.who.clone(), node.now().wall_ms);
    let decide = move |_: &Replica, views: &Views| {
        // Another caller may have put the member out meanwhile.
        let member = removable(&views.roster, me, &id.to_string())?;
        let edits = vec![(member_path(&id), Roster::removal(me, &who, at_ms))];
        Ok::<_, ApiError>((member.name.clone(), edits))
    };
    let removed = membership.replica.transact(actor, true, decide).await;
    let (name, acknowledged) = removed.map_err(not_transacted)?;
    let told: BTreeSet<NodeId> = match &acknowledged.receipts {
        Some(receipts) => {
            let deadline = Instant::now() + TELL_TIMEOUT;
            receipts.until(deadline, |nodes| nodes.is_superset(&expected)).await
        }
        None => BTreeSet::new(),
    };
    Ok(Removed {
        name,
        id: id.to_string(),
        state: MemberState::Removed,
        told: told.iter().map(|id| roster.name_of(id)).collect(),
    })
}

/// The member that the caller means, if this node may put it out.
fn removable<'a>(roster: &'a Roster, me: NodeId, text: &str) -> Answer<&'a roster::Member> {
    let member = roster.resolve(text).map_err(|e| unresolved(&e))?;
    if member.id == me {
        let message = format!("{} is this very node", member.name);
        return Err(ApiError::new(ErrorCode::Refused, message)
            .hint("`peerage leave` takes this node out; another node can remove it"));
    }
    if let Standing::Removed(ending) = &member.standing {
        let message = format!("{} was removed already, by {}", member.name, ending.who);
        return Err(ApiError::new(ErrorCode::Refused, message));
    }
    Ok(member)
}

fn current<'a>(roster: &'a Roster, text: &str) -> Answer<&'a roster::Member> {
    let member = roster.resolve(text).map_err(|e| unresolved(&e))?;
    if member.is_current() {
        return Ok(member);
    }
    let message = format!("{} no longer belongs to the Data Center", member.name);
    Err(ApiError::new(ErrorCode::Refused, message))
}
