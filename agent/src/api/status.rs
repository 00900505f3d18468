//! This node: how it is doing, and its ways into a Data Center and out of one.

use peerage_proto::api::node::{
    Create, Created, Departure, Join, Joined, MemberCounts, Notice, SettingsSummary, Status,
    Traffic,
};
use peerage_proto::api::{Named, node as api};

use super::failure::{not_turned, not_written};
use super::{Answer, members};
use crate::node::Node;

pub(super) async fn status(node: &Node) -> Answer<Status> {
    let membership = node.membership();
    let mut settings = SettingsSummary::default();
    if let Some(membership) = &membership {
        let summary = membership.replica.read(|replica| SettingsSummary {
            documents: replica.documents("").count() as u64,
            digest: replica.digest(),
            bytes: replica.bytes() as u64,
            conflicts: replica.conflicts().count() as u64,
        });
        settings = summary.await.map_err(not_written)?;
    }
    let mut counts = MemberCounts::default();
    for member in members::members(node) {
        match member.state.as_str() {
            "alive" => counts.alive += 1,
            "suspect" => counts.suspect += 1,
            "down" => counts.down += 1,
            "left" => counts.left += 1,
            "removed" => counts.removed += 1,
            _ => {}
        }
    }
    let notice = node.notice();
    let state = match (&membership, &notice) {
        (Some(_), _) => "member",
        (None, Some(notice)) if notice.removed => "removed",
        (None, _) => "standalone",
    };
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
        traffic: Traffic { bytes_in: totals.bytes_in, bytes_out: totals.bytes_out },
        notice: notice.map(|n| Notice { message: n.message, hint: Some(n.hint) }),
    })
}

pub(super) async fn create(node: &Node, who: &str, request: Create) -> Answer<Created> {
    let membership = node.create(&request.name, who).await.map_err(not_turned)?;
    Ok(Created {
        datacenter: Named {
            name: membership.roster().datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        },
        node: Named { name: node.name(), id: node.id().to_string() },
    })
}

pub(super) async fn join(node: &Node, request: Join) -> Answer<Joined> {
    let Join { token, name, password } = request;
    let joined = node.join(&token, password.as_deref(), name.as_deref()).await;
    let (membership, seed) = joined.map_err(not_turned)?;
    let roster = membership.roster();
    Ok(Joined {
        datacenter: Named {
            name: roster.datacenter_name.clone(),
            id: membership.datacenter.to_string(),
        },
        node: Named { name: node.name(), id: node.id().to_string() },
        seed,
        members: u32::try_from(roster.current().count()).unwrap_or(u32::MAX),
    })
}

pub(super) async fn leave(node: &Node, who: &str) -> Answer<Departure> {
    let farewell = node.leave(who).await.map_err(not_turned)?;
    Ok(Departure {
        datacenter: Named { name: farewell.datacenter_name, id: farewell.datacenter.to_string() },
        told: farewell.told,
        backup: farewell.backup.display().to_string(),
    })
}
