//! Invitations: made, listed, called back, and read.

use std::net::IpAddr;

use peerage_proto::access::Caller;
use peerage_proto::address::Address;
use peerage_proto::api::invites::{
    CreateInvite, CreatedInvite, Inspect, Inspection, Invite, ListInvites, RevokeInvite,
};
use peerage_proto::api::{ApiError, ErrorCode, Named, Span, invites as api};
use peerage_proto::invitation::{Invitation, JoinInformation, SEEDS_MAX, Secret, Seed, Terms};
use peerage_proto::links::{best_of, promoted};
use peerage_proto::replica::Replica;
use peerage_proto::roster::{InviteRecord, Roster, invite_path};
use peerage_proto::time::HowLong;

use super::failure::{member, not_transacted, not_written};
use super::{Agent, Answer, List, Serve, members};
use crate::host::clock::rfc3339;
use crate::host::links::{Origin, OwnLinks, default_route_addresses};
use crate::membership::Members;
use crate::node::Node;
use crate::replica::Views;

/// For how long an invitation admits nodes if the caller does not say.
const TTL_DEFAULT_S: u64 = 24 * 3600;

/// How many addresses of a seed Join Information holds: it is pasted by hand, and read aloud.
const SEED_ADDRESSES_MAX: usize = 4;

/// How long the pattern for names may be.
const PATTERN_BYTES_MAX: usize = 128;

impl Serve<CreateInvite> for Agent {
    async fn serve(&self, caller: &Caller, request: CreateInvite) -> Answer<CreatedInvite> {
        create(&self.node, &self.links.own(), caller, request).await
    }
}

async fn create(
    node: &Node,
    links: &OwnLinks,
    caller: &Caller,
    request: CreateInvite,
) -> Answer<CreatedInvite> {
    let membership = member(node)?;
    let CreateInvite { ttl, uses, node_name, strict, no_secret } = request;
    let bad = |message: &str| ApiError::new(ErrorCode::BadRequest, message);
    if node_name.as_ref().is_some_and(|p| p.is_empty() || p.len() > PATTERN_BYTES_MAX) {
        return Err(bad("the pattern for names has 1 to 128 characters, such as pve-*"));
    }
    let ttl = ttl.unwrap_or(Span::seconds(TTL_DEFAULT_S)).duration();
    if ttl.is_zero() {
        return Err(bad("an invitation of no duration admits nobody"));
    }
    let roster = membership.roster();
    if let Some(why) = members::own_unaccepted(&membership.me, &roster) {
        let message = format!("this node may not let others in yet: {why}");
        return Err(ApiError::new(ErrorCode::Refused, message).hint(format!(
            "make the Join Information on another member, or have this one accepted there: `peerage \
             members accept {}`",
            node.name()
        )));
    }
    let now_ms = node.now().wall_ms;
    let secret = Secret::new(rand::random());
    let seeds = seeds(node, links, &membership.members, &roster, strict);
    let warnings = warnings(links, &seeds);
    let terms = Terms {
        datacenter: membership.datacenter,
        datacenter_name: roster.datacenter_name.clone(),
        issuer: membership.me,
        issuer_name: node.name(),
        invite: secret.key().invite_id(),
        seeds,
        issued_ms: now_ms,
        expires_ms: now_ms + ttl.as_millis() as u64,
        uses: uses.at_most(),
        node_name,
        strict,
    };
    let terms = within_bounds(terms);
    let Terms { invite, expires_ms, .. } = terms;
    let invitation = Invitation::issue(terms, node.key());
    let actor = caller.actor();
    let edit = Roster::inviting(&invitation);
    let written = membership.replica.write(invite_path(&invite), edit, actor, false).await;
    written.map_err(not_written)?;
    let password = no_secret.then(|| secret.password());
    let secret = (!no_secret).then_some(secret);
    let token = JoinInformation { invitation, secret }.to_string();
    Ok(CreatedInvite {
        id: invite.to_string(),
        expires: rfc3339(expires_ms),
        password,
        command: match uses.outlives_one() {
            false => format!("peerage join {token}"),
            true => "peerage join".to_owned(),
        },
        uses: uses.at_most(),
        warnings,
        token,
    })
}

/// The seeds that a joiner asks: this node, then others that are alive. If the invitation is
/// strict, only this node can admit.
fn seeds(
    node: &Node,
    links: &OwnLinks,
    members: &Members,
    roster: &Roster,
    strict: bool,
) -> Vec<Seed> {
    let best = |addresses: &[Address]| best_of(addresses, SEED_ADDRESSES_MAX);
    let mut own = own_addresses(node, links);
    let seen = roster.member(&members.me).map(|me| me.seen.as_slice()).unwrap_or_default();
    let seen = seen.iter().copied().map(Address::Ip).filter(|seen| !own.contains(seen));
    let seen: Vec<Address> = seen.collect();
    own.extend(seen);
    let own = Seed { node: members.me, addresses: best(&own) };
    let others = members.alive().into_iter().filter_map(|id| {
        let met = node.mesh().peer(id).and_then(|peer| peer.path.address());
        let met: Vec<IpAddr> = met.map(|address| address.ip()).into_iter().collect();
        let addresses = best(&promoted(&roster.member(&id)?.places(), &met));
        Some(Seed { node: id, addresses })
    });
    let count = if strict { 0 } else { SEEDS_MAX - 1 };
    std::iter::once(own).chain(others.take(count)).collect()
}

/// Shortens terms until they are short enough to be read: names may be long, and then there is room
/// for fewer other seeds.
fn within_bounds(mut terms: Terms) -> Terms {
    while !terms.fit() && terms.seeds.len() > 1 {
        terms.seeds.pop();
    }
    terms
}

/// This node's addresses. Those at which a stranger finds it most likely come first: the one where
/// its default route begins, then those that members dialled. If an operator put the addresses in
/// order, that order stays.
fn own_addresses(node: &Node, links: &OwnLinks) -> Vec<Address> {
    match links.origin {
        Origin::Interfaces => {
            let peers = node.mesh().peers().into_iter();
            let met = peers.filter(|peer| !peer.dialled).filter_map(|peer| peer.local);
            let first: Vec<IpAddr> = default_route_addresses().into_iter().chain(met).collect();
            promoted(&links.addresses(), &first)
        }
        _ => links.addresses(),
    }
}

/// What may keep a host from joining by these seeds, of which this node is the first.
fn warnings(links: &OwnLinks, seeds: &[Seed]) -> Vec<String> {
    let alone = |seed: &Seed| seed.addresses.iter().all(Address::is_loopback);
    if seeds.iter().all(alone) {
        let why = match links.origin {
            Origin::Listen => "the agent listens there and nowhere else (--listen)",
            Origin::Interfaces => "this host has no other address (yet)",
            Origin::Set | Origin::Configured(_) => "that is what its links say",
        };
        let at: Vec<_> = links.addresses().iter().map(Address::to_string).collect();
        return vec![format!(
            "this Join Information is good on this host alone: it names {}, since {why}; once other \
             hosts reach this one, or you told where (`peerage links set ADDRESS`), make it anew",
            at.join(", ")
        )];
    }
    let own = seeds.first().map(|seed| seed.addresses.as_slice()).unwrap_or_default();
    let left: Vec<_> = links.addresses().into_iter().filter(|at| !own.contains(at)).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let left: Vec<_> = left.iter().map(Address::to_string).collect();
    vec![format!(
        "Join Information names {SEED_ADDRESSES_MAX} addresses of this node at most, and left out {}; \
         where these are the ones that matter, `peerage links set ADDRESS...` puts them first",
        left.join(", ")
    )]
}

impl Serve<ListInvites> for Agent {
    async fn serve(&self, _: &Caller, _: ListInvites) -> Answer<List<Invite>> {
        Ok(List::made(list(&self.node)))
    }
}

fn list(node: &Node) -> Vec<Invite> {
    let Some(membership) = node.membership() else { return Vec::new() };
    let roster = membership.roster();
    let mut records: Vec<_> = roster.invites().collect();
    let issued_ms = |record: &InviteRecord| record.terms.as_ref().map(|terms| terms.issued_ms);
    records.sort_by_key(|record| std::cmp::Reverse((issued_ms(record), record.id)));
    records.into_iter().map(|record| shown(record, &roster, node.now().wall_ms)).collect()
}

fn shown(record: &InviteRecord, roster: &Roster, now_ms: u64) -> Invite {
    let used = u32::try_from(roster.admitted_with(&record.id).count()).unwrap_or(u32::MAX);
    let terms = record.terms.as_ref();
    let state = match terms {
        _ if record.revoked => "revoked",
        Some(terms) if terms.expires_ms <= now_ms => "expired",
        Some(Terms { uses: Some(uses), .. }) if used >= *uses => "used up",
        Some(_) => "open",
        None => "unknown",
    };
    Invite {
        id: record.id.to_string(),
        issuer: terms.map_or_else(String::new, |terms| roster.name_of(&terms.issuer)),
        created: terms.map(|terms| rfc3339(terms.issued_ms)),
        expires: terms.map(|terms| rfc3339(terms.expires_ms)),
        uses: record.uses(),
        used,
        node_name: terms.and_then(|terms| terms.node_name.clone()),
        state: state.into(),
    }
}

impl Serve<RevokeInvite> for Agent {
    async fn serve(&self, caller: &Caller, request: RevokeInvite) -> Answer<Invite> {
        let membership = member(&self.node)?;
        let actor = caller.actor();
        let (me, who, now_ms) = (membership.me, actor.who.clone(), self.node.now().wall_ms);
        let decide = move |_: &Replica, views: &Views| {
            let record = meant(&views.roster, &request.id)?;
            let revoking = || (invite_path(&record.id), Roster::revoking(me, &who, now_ms));
            let edits = (!record.revoked).then(revoking).into_iter().collect();
            Ok::<_, ApiError>((InviteRecord { revoked: true, ..record.clone() }, edits))
        };
        let revoked = membership.replica.transact(actor, false, decide).await;
        let (revoked, _) = revoked.map_err(not_transacted)?;
        Ok(shown(&revoked, &membership.roster(), now_ms))
    }
}

/// The one invitation whose id begins with this text, of at least four characters.
fn meant<'a>(roster: &'a Roster, id: &str) -> Answer<&'a InviteRecord> {
    let begins = |record: &&InviteRecord| id.len() >= 4 && record.id.to_string().starts_with(id);
    let found: Vec<_> = roster.invites().filter(begins).collect();
    match found[..] {
        [record] => Ok(record),
        [] => {
            let message = format!("there is no invitation {:?}", cut(id));
            Err(ApiError::new(ErrorCode::NotFound, message)
                .hint("`peerage invite list` shows them; four digits of the id are enough"))
        }
        _ => {
            let message = format!("{:?} is the beginning of several ids", cut(id));
            Err(ApiError::new(ErrorCode::BadRequest, message).hint("give more digits"))
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Serve<Inspect> for Agent {
    async fn serve(&self, _: &Caller, request: Inspect) -> Answer<Inspection> {
        inspect(&self.node, &request)
    }
}

fn inspect(node: &Node, request: &Inspect) -> Answer<Inspection> {
    let read = JoinInformation::parse(&request.token);
    let information = read.map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, error.to_string())
            .hint("`peerage invite` on any member prints a string to paste")
    })?;
    let terms = information.invitation.terms();
    let now_ms = node.now().wall_ms;
    let membership = node.membership();
    let member_of_it = membership.as_ref().filter(|m| m.datacenter == terms.datacenter);
    let record = member_of_it.map(|m| m.roster()).and_then(|r| r.invite(&terms.invite).cloned());
    let message = if terms.expires_ms <= now_ms {
        Some(format!("expired {} ago", HowLong::ms(now_ms - terms.expires_ms)))
    } else if record.is_some_and(|record| record.revoked) {
        Some("revoked".into())
    } else if member_of_it.is_some() {
        Some("this node is a member of that Data Center already".into())
    } else if let Some(membership) = &membership {
        let name = &membership.roster().datacenter_name;
        Some(format!("this node is a member of {name}; it would have to leave first"))
    } else {
        None
    };
    let seeds = terms.seeds.iter().map(|seed| api::Seed {
        id: seed.node.to_string(),
        addresses: seed.addresses.iter().map(|at| at.clone().canonical().to_string()).collect(),
    });
    Ok(Inspection {
        datacenter: Named { name: terms.datacenter_name.clone(), id: terms.datacenter.to_string() },
        issuer: terms.issuer_name.clone(),
        seeds: seeds.collect(),
        expires: rfc3339(terms.expires_ms),
        uses: terms.uses,
        node_name: terms.node_name.clone(),
        strict: terms.strict,
        secret: information.secret.is_some(),
        valid: message.is_none(),
        message,
        already: member_of_it.is_some(),
    })
}
