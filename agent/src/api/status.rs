//! This node: how it is doing, and its ways into a Data Center and out of one.

use peerage_proto::access::Caller;
use peerage_proto::api::members::MemberState;
use peerage_proto::api::node::{
    ClockStatus, Create, Created, Departure, GetStatus, IdentityReset, Join, Joined, Leave, Meet,
    MemberCounts, Met, Missed, Notice, ResetIdentity, SettingsSummary, Status, Traffic,
};
use peerage_proto::api::{ApiError, ErrorCode, Named, node as api};
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::invitation::JoinInformation;
use peerage_proto::notice::{self, NoticeKind};
use peerage_proto::replica::Actor;
use peerage_proto::skew::{Estimate, Level};

use super::agent::to_the_end;
use super::failure::{member, not_turned, not_written};
use super::{Agent, Answer, Serve, members, room};
use crate::host::clock::rfc3339;
use crate::node::{Meeting, Node, NodeError};

impl Serve<GetStatus> for Agent {
    async fn serve(&self, _: &Caller, _: GetStatus) -> Answer<Status> {
        status(&self.node).await
    }
}

async fn status(node: &Node) -> Answer<Status> {
    let membership = node.membership();
    let mut settings = SettingsSummary::default();
    if let Some(membership) = &membership {
        let journal_bytes = node.journal_bytes();
        let summary = membership.replica.read(move |replica| SettingsSummary {
            documents: replica.documents("").count() as u64,
            digest: replica.digest(),
            bytes: replica.bytes() as u64,
            conflicts: replica.conflicts().count() as u64,
            room: room::room(replica, journal_bytes),
        });
        settings = summary.await.map_err(not_written)?;
    }
    let mut counts = MemberCounts::default();
    for member in members::members(node) {
        match member.state {
            MemberState::Alive => counts.alive += 1,
            MemberState::Suspect => counts.suspect += 1,
            MemberState::Down => counts.down += 1,
            MemberState::Left => counts.left += 1,
            MemberState::Removed => counts.removed += 1,
            MemberState::Other(_) => {}
        }
    }
    let notice = node.notice();
    let state = match (&membership, &notice) {
        (Some(_), _) => "member",
        (None, _) if node.has_twin() => "refused",
        (None, Some(notice)) if notice.removed => "removed",
        (None, _) => "standalone",
    };
    let clock = membership.as_ref().map(|membership| *membership.time.borrow());
    node.look_at_name();
    let notices: Vec<Notice> = node.notices().board().borrow().standing().map(standing).collect();
    let totals = node.mesh().totals();
    Ok(Status {
        datacenter: membership.map(|membership| Named {
            name: membership.roster().datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        }),
        node: api::Node { name: node.name(), id: node.id().to_string(), state: state.into() },
        members: counts,
        settings,
        version: node.version().to_owned(),
        uptime_s: node.now().mono.as_secs(),
        boot: node.boot(),
        addresses: node.addresses().iter().map(ToString::to_string).collect(),
        traffic: Traffic {
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            counters: totals.named().map(|(name, count)| (name.to_owned(), count)).collect(),
        },
        notice: notices.first().cloned(),
        notices,
        clock: clock.and_then(|clock| {
            clock.estimate.map(|Estimate { ahead_ms, peers }| ClockStatus {
                ahead_ms,
                peers: u32::try_from(peers).unwrap_or(u32::MAX),
                refusing: clock.level == Level::Refusing,
            })
        }),
    })
}

fn standing((kind, notice): (NoticeKind, &notice::Notice)) -> Notice {
    Notice {
        kind: Some(kind.word().to_owned()),
        message: notice.message.clone(),
        hint: Some(notice.hint.clone()),
        since: Some(rfc3339(notice.since_ms)),
        times: notice.times,
    }
}

impl Serve<Create> for Agent {
    async fn serve(&self, caller: &Caller, request: Create) -> Answer<Created> {
        let (node, actor) = (self.node.clone(), caller.actor());
        to_the_end(async move { create(&node, actor, request).await }).await
    }
}

async fn create(node: &Node, actor: Actor, request: Create) -> Answer<Created> {
    let membership = node.create(&request.name, actor).await.map_err(not_turned)?;
    Ok(Created {
        datacenter: Named {
            name: membership.roster().datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        },
        node: Named { name: node.name(), id: node.id().to_string() },
    })
}

impl Serve<Join> for Agent {
    async fn serve(&self, _: &Caller, request: Join) -> Answer<Joined> {
        let node = self.node.clone();
        to_the_end(async move { join(&node, request).await }).await
    }
}

async fn join(node: &Node, request: Join) -> Answer<Joined> {
    let Join { token, name, password, replace } = request;
    let joined = node.join(&token, password.as_deref(), name.as_deref(), replace).await;
    let (membership, seed, already) = match joined {
        Ok((membership, seed)) => (membership, seed, false),
        // Join Information of the same Data Center is not refused: it tells where the other members
        // are now.
        Err(NodeError::AlreadyMember { id, .. }) if leads_to(&token, id) => {
            if let Some(name) = name.filter(|name| *name != node.name()) {
                let is = node.name();
                let message =
                    format!("this node is a member already, as {is}: it takes no name now");
                let hint = format!("`peerage rename {is} {name}` gives it that name");
                return Err(ApiError::new(ErrorCode::Refused, message).hint(hint));
            }
            let met = node.meet(&token).await.map_err(not_turned)?.met;
            let membership = member(node)?;
            let names: Vec<_> = met.iter().map(|id| membership.roster().name_of(id)).collect();
            (membership, names.join(", "), true)
        }
        Err(error) => return Err(not_turned(error)),
    };
    let roster = membership.roster();
    Ok(Joined {
        datacenter: Named {
            name: roster.datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        },
        node: Named { name: node.name(), id: node.id().to_string() },
        seed,
        members: u32::try_from(roster.current().count()).unwrap_or(u32::MAX),
        already,
    })
}

/// Whether Join Information is of this Data Center.
fn leads_to(token: &str, datacenter: DataCenterId) -> bool {
    let information = JoinInformation::parse(token);
    information.is_ok_and(|i| i.invitation.terms().datacenter == datacenter)
}

impl Serve<Meet> for Agent {
    async fn serve(&self, _: &Caller, request: Meet) -> Answer<Met> {
        let node = self.node.clone();
        to_the_end(async move { meet(&node, request).await }).await
    }
}

async fn meet(node: &Node, request: Meet) -> Answer<Met> {
    let Meeting { met, missed } = node.meet(&request.token).await.map_err(not_turned)?;
    let membership = member(node)?;
    let roster = membership.roster();
    let named = |id: &NodeId| Named { name: roster.name_of(id), id: id.to_string() };
    let missed = missed.iter().map(|(id, message)| {
        let Named { name, id } = named(id);
        Missed { name, id, message: message.clone() }
    });
    Ok(Met {
        datacenter: Named {
            name: roster.datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        },
        met: met.iter().map(named).collect(),
        missed: missed.collect(),
    })
}

impl Serve<ResetIdentity> for Agent {
    async fn serve(&self, _: &Caller, request: ResetIdentity) -> Answer<IdentityReset> {
        let node = self.node.clone();
        to_the_end(async move { reset_identity(&node, request).await }).await
    }
}

async fn reset_identity(node: &Node, request: ResetIdentity) -> Answer<IdentityReset> {
    if !request.identity {
        let message = "it is not said what to reset";
        return Err(ApiError::new(ErrorCode::BadRequest, message).hint("{\"identity\": true}"));
    }
    let renewed = node.reset_identity().await.map_err(not_turned)?;
    Ok(IdentityReset {
        node: Named { name: node.name(), id: renewed.is.to_string() },
        was: renewed.was.map(|was| was.to_string()),
        backup: renewed.backup.map(|backup| backup.display().to_string()),
        old_key: renewed.old_key.map(|key| key.display().to_string()),
    })
}

impl Serve<Leave> for Agent {
    async fn serve(&self, caller: &Caller, request: Leave) -> Answer<Departure> {
        let (node, actor) = (self.node.clone(), caller.actor());
        to_the_end(async move { leave(&node, actor, request).await }).await
    }
}

async fn leave(node: &Node, actor: Actor, request: Leave) -> Answer<Departure> {
    let farewell = node.leave(actor, request.force).await.map_err(not_turned)?;
    Ok(Departure {
        datacenter: Named { name: farewell.datacenter_name, id: farewell.datacenter.to_string() },
        told: farewell.told,
        backup: farewell.backup.display().to_string(),
        notice: farewell.unheard.map(|n| Notice {
            message: n.message,
            hint: Some(n.hint),
            ..Notice::default()
        }),
    })
}
