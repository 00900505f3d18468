//! Links: this node's own, shown and set, and the ones in use with the other members.

use std::net::IpAddr;

use peerage_proto::access::Caller;
use peerage_proto::address::Address;
use peerage_proto::api::links::{
    GetLinks, GetNodeLinks, LinkWish, Links, OwnLink, PeerLinks, ResetLinks, SetLinks,
};
use peerage_proto::api::members::Member;
use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::id::NodeId;
use peerage_proto::links::{Link, LinkError, Priority, in_order};

use super::failure::{member, standalone, unresolved};
use super::{Agent, Answer, Serve, members};
use crate::host::links::{LinksError, LinksHandle, Origin};
use crate::mesh::PeerStatus;
use crate::node::Node;

impl Serve<GetLinks> for Agent {
    async fn serve(&self, _: &Caller, _: GetLinks) -> Answer<Links> {
        Ok(links(&self.node, &self.links))
    }
}

fn links(node: &Node, handle: &LinksHandle) -> Links {
    let own = handle.own();
    let peers = node.mesh().peers();
    // The mesh has one port, so the IP address alone tells which of this node's addresses a peer
    // dialled.
    let dialled_at = |address: &Address| {
        let ips: Vec<IpAddr> =
            node.mesh().known(std::slice::from_ref(address)).iter().map(|at| at.ip()).collect();
        let is_there = |p: &&PeerStatus| !p.dialled && p.local.is_some_and(|ip| ips.contains(&ip));
        peers.iter().filter(is_there).count()
    };
    let links = own.links.iter().enumerate().map(|(index, link)| OwnLink {
        address: link.address.to_string(),
        rank: u32::try_from(index + 1).unwrap_or(u32::MAX),
        priority: link.priority.into(),
        name: link.name.clone(),
        interface: link.interface.clone(),
        peers_in: u32::try_from(dialled_at(&link.address)).unwrap_or(u32::MAX),
    });
    let (source, layer) = match own.origin {
        Origin::Set => ("set", None),
        Origin::Configured(layer) => ("config", Some(layer)),
        Origin::Interfaces => ("interfaces", None),
        Origin::Listen => ("listen", None),
    };
    let others = members::members(node).into_iter();
    let others = others.filter(|m| !m.is_self && !m.state.is_gone());
    Links {
        source: source.into(),
        layer,
        overruled: own.overruled,
        links: links.collect(),
        peers: others.map(|member| peer_links(node, member)).collect(),
    }
}

impl Serve<GetNodeLinks> for Agent {
    async fn serve(&self, _: &Caller, request: GetNodeLinks) -> Answer<PeerLinks> {
        let membership = member(&self.node)?;
        let roster = membership.roster();
        let id = roster.resolve(&request.node).map_err(|e| unresolved(&e))?.id.to_string();
        let found = members::members(&self.node).into_iter().find(|member| member.id == id);
        // The roster never forgets a node; this one may have left its Data Center in between.
        found.map(|found| peer_links(&self.node, found)).ok_or_else(standalone)
    }
}

fn peer_links(node: &Node, member: Member) -> PeerLinks {
    let id: Option<NodeId> = member.id.parse().ok();
    let peer: Option<PeerStatus> = id.and_then(|id| node.mesh().peer(id));
    PeerLinks {
        name: member.name,
        id: member.id,
        state: member.state,
        address: peer.as_ref().and_then(|peer| peer.path.address()).map(|at| at.to_string()),
        dialled: peer.as_ref().map(|peer| peer.dialled),
        path: member.path,
        rtt_ms: member.rtt_ms,
        addresses: member.addresses,
        seen_at: member.seen_at,
    }
}

impl Serve<SetLinks> for Agent {
    async fn serve(&self, _: &Caller, request: SetLinks) -> Answer<Links> {
        let each: Result<Vec<Link>, LinkError> = request.links.into_iter().map(link).collect();
        let wanted = each.and_then(in_order).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, error.to_string()).hint(
                "such as `peerage links set 10.0.1.5 pve-1.example.org:4747@2`; 1 is the best \
                 priority",
            )
        })?;
        take(&self.node, &self.links, Some(wanted)).await
    }
}

impl Serve<ResetLinks> for Agent {
    async fn serve(&self, _: &Caller, _: ResetLinks) -> Answer<Links> {
        take(&self.node, &self.links, None).await
    }
}

async fn take(node: &Node, handle: &LinksHandle, wanted: Option<Vec<Link>>) -> Answer<Links> {
    handle.take(wanted).await.map_err(|error| match error {
        LinksError::Store(_) => ApiError::new(ErrorCode::Failed, error.to_string())
            .hint("look at the disk of the agent's data folder, and at its journal"),
        LinksError::Stopping => ApiError::new(ErrorCode::Busy, error.to_string()),
    })?;
    Ok(links(node, handle))
}

fn link(wish: LinkWish) -> Result<Link, LinkError> {
    let LinkWish { address, priority, name } = wish;
    let priority = priority.map(Priority::try_from).transpose()?.unwrap_or_default();
    Ok(Link { address: address.parse()?, priority, name })
}
