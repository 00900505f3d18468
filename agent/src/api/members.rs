//! The members: what the roster says of them, what the failure detector believes, and what they say
//! of themselves, side by side.

use std::sync::Arc;

use peerage_proto::access::Caller;
use peerage_proto::api::members::{Lag, ListLag, ListMembers, Member, MemberState};
use peerage_proto::id::NodeId;
use peerage_proto::isolation::Sight;
use peerage_proto::liveness::{self, State};
use peerage_proto::notice::{NoticeKind, Told};
use peerage_proto::roster::{self, Roster, Standing};
use peerage_proto::vitals::Vitals;

use super::{Agent, Answer, List, Serve, reach};
use crate::feed::reason;
use crate::host::clock::rfc3339;
use crate::membership::liveness::Standings;
use crate::membership::timekeeping::member_warning;
use crate::membership::vitals::AllVitals;
use crate::membership::{Objections, name_clash, stalled};
use crate::mesh::{Path, PeerStatus};
use crate::node::Node;

impl Serve<ListMembers> for Agent {
    async fn serve(&self, _: &Caller, _: ListMembers) -> Answer<List<Member>> {
        Ok(List::made(members(&self.node)))
    }
}

pub(super) fn members(node: &Node) -> Vec<Member> {
    let Some(view) = View::now(node) else { return Vec::new() };
    let mut members: Vec<Member> = view.roster.all().map(|member| view.member(member)).collect();
    // Members that belong stand first; both groups are sorted by name.
    members.sort_by(|a, b| {
        (a.state.is_gone(), &a.name, &a.id).cmp(&(b.state.is_gone(), &b.name, &b.id))
    });
    members
}

/// What is known of all members at one moment.
struct View<'a> {
    node: &'a Node,
    roster: Arc<Roster>,
    standings: Standings,
    /// What the others say of themselves.
    vitals: AllVitals,
    /// What this node says of itself.
    own: Vitals,
    /// The digest of what is on this node's disk.
    digest: String,
    objections: Objections,
    sight: Sight,
}

impl<'a> View<'a> {
    /// The view as of now; none where this node is in no Data Center.
    fn now(node: &'a Node) -> Option<Self> {
        let membership = node.membership()?;
        Some(Self {
            node,
            roster: membership.roster(),
            standings: membership.members.standings(),
            vitals: membership.vitals.all().borrow().clone(),
            own: membership.vitals.own(),
            digest: membership.replica.progress().borrow().digest.clone(),
            objections: membership.objections.clone(),
            sight: membership.horizon.sight(),
        })
    }

    fn member(&self, member: &roster::Member) -> Member {
        let blank = Member {
            name: member.name.clone(),
            id: member.id.to_string(),
            state: MemberState::Suspect,
            is_self: false,
            addresses: member.addresses.iter().map(ToString::to_string).collect(),
            seen_at: member.seen.iter().map(ToString::to_string).collect(),
            version: None,
            rtt_ms: None,
            path: "-".into(),
            link: None,
            seen_s: None,
            message: None,
            joined: Some(rfc3339(member.admitted.at.wall_ms())),
            boot: None,
            uptime_s: None,
            load: None,
            digest: None,
            clock_ahead_ms: None,
            stalled_s: None,
            notices: Vec::new(),
            accepted: true,
            unaccepted: None,
        };
        let unaccepted = self.roster.why_unaccepted(member);
        let blank = Member { accepted: unaccepted.is_none(), unaccepted, ..blank };
        match &member.standing {
            Standing::Left(ending) => Member {
                state: MemberState::Left,
                message: Some(format!("left at {}", rfc3339(ending.at_ms))),
                ..blank
            },
            Standing::Removed(ending) => Member {
                state: MemberState::Removed,
                message: joined(
                    [
                        Some(format!(
                            "removed by {} on {} at {}",
                            ending.who,
                            self.roster.name_of(&ending.by),
                            rfc3339(ending.at_ms)
                        )),
                        self.objections.of(&member.id).map(str::to_owned),
                    ]
                    .into_iter()
                    .flatten(),
                ),
                ..blank
            },
            Standing::Member if member.id == self.node.id() => self.own(member, blank),
            Standing::Member => self.other(member, blank),
        }
    }

    fn own(&self, member: &roster::Member, blank: Member) -> Member {
        let board = self.node.notices().board();
        let board = board.borrow();
        Member {
            state: MemberState::Alive,
            is_self: true,
            version: Some(self.node.version().to_owned()),
            path: "self".into(),
            seen_s: Some(0.0),
            message: joined(
                board
                    .standing()
                    .filter(|(kind, _)| !IN_ROSTER.contains(kind))
                    .map(|(_, notice)| notice.message.clone())
                    .chain(self.name_clash(member))
                    .chain(held_back(member, &self.roster)),
            ),
            notices: board.told(),
            clock_ahead_ms: self.own.clock_ahead_ms,
            boot: Some(self.node.boot()),
            uptime_s: Some(self.node.now().mono.as_secs()),
            load: self.own.load1,
            digest: Some(self.digest.clone()),
            ..blank
        }
    }

    fn other(&self, member: &roster::Member, blank: Member) -> Member {
        let now = self.node.now();
        let vital = self.vitals.get(&member.id);
        let vitals = vital.map(|vital| vital.vitals.as_ref());
        let peer = self.node.mesh().peer(member.id);
        let standing = self.standings.get(&member.id);
        let state = standing.map_or(State::Unknown, |standing| standing.state);
        let alive = matches!(state, State::Alive | State::Suspect);
        let heard = standing.and_then(|standing| standing.heard);
        let heard = heard.map(|at| now.mono.saturating_sub(at));
        let through = self.through(standing, peer.as_ref());
        let path = peer.as_ref().map(|peer| peer.path);
        let clock_ahead_ms = vitals.filter(|_| alive).and_then(|v| v.clock_ahead_ms);
        // What a node said of itself before it was gone tells nothing of it now.
        let told = vitals.filter(|_| alive).map_or(&[][..], |v| &v.notices);
        let rtt = standing.and_then(|standing| standing.rtt);
        let rtt = rtt.or_else(|| peer.as_ref().map(|peer| peer.rtt));
        Member {
            state: shown(state),
            // The hello tells the version at once, the vitals later; what the vitals tell counts.
            version: vitals
                .and_then(|v| v.version.clone())
                .or_else(|| peer.as_ref().and_then(|peer| peer.hello.version.clone())),
            rtt_ms: rtt.filter(|_| alive).map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3),
            path: match (alive, through) {
                (true, Some(other)) => format!("via {}", self.roster.name_of(&other)),
                (true, None) if peer.is_some() => "direct".into(),
                _ => "-".into(),
            },
            link: path
                .and_then(|path| path.address())
                .filter(|_| alive && through.is_none())
                .map(|address| address.to_string()),
            seen_s: heard.map(|age| (age.as_secs_f64() * 10.0).round() / 10.0),
            message: joined(
                [
                    self.objections.of(&member.id).map(str::to_owned),
                    standing.and_then(|s| message(s, through, &self.roster, &self.sight)),
                    peer.as_ref().filter(|_| alive).and_then(stalled),
                    self.name_clash(member),
                    held_back(member, &self.roster),
                    clock_ahead_ms.and_then(member_warning),
                ]
                .into_iter()
                .flatten()
                .chain(told.iter().filter(|told| !is_seen_here(told)).map(as_it_says)),
            ),
            notices: told.to_vec(),
            clock_ahead_ms,
            stalled_s: peer
                .as_ref()
                .filter(|_| alive)
                .and_then(|peer| peer.stalled)
                .map(|lasted| (lasted.as_secs_f64() * 10.0).round() / 10.0),
            boot: standing.and_then(|s| s.boot).or_else(|| vitals.and_then(|v| v.boot)),
            uptime_s: vitals.filter(|_| alive).and_then(|v| v.uptime_s(now.wall_ms)),
            load: vitals.filter(|_| alive).and_then(|v| v.load1),
            digest: vitals
                .and_then(|v| v.digest.as_ref())
                .map(|digest| data_encoding::HEXLOWER.encode(digest)),
            ..blank
        }
    }

    /// Why a member shows with a suffix, and what to do, in one line.
    fn name_clash(&self, member: &roster::Member) -> Option<String> {
        name_clash(member, &self.roster).map(|(what, to_do)| format!("{what}; {to_do}"))
    }

    /// Through which member another one is reached, if not directly: either messages go that way,
    /// or the failure detector heard of the member that way while its own connection gives no
    /// answer or does not exist.
    fn through(
        &self,
        standing: Option<&liveness::Standing>,
        peer: Option<&PeerStatus>,
    ) -> Option<NodeId> {
        match peer.map(|peer| (peer.path, peer.doubted)) {
            Some((Path::Through(other), _)) => Some(other),
            Some((Path::Direct(_), false)) => None,
            _ => standing.and_then(|standing| standing.through),
        }
    }
}

/// The state in the terms of the api's contract. A member whose agent said goodbye still belongs:
/// it is down.
fn shown(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        // The roster names an unknown member, but nothing was heard of it yet; that lasts a few
        // seconds after a start.
        State::Suspect | State::Unknown => MemberState::Suspect,
        State::Down | State::Left => MemberState::Down,
    }
}

fn message(
    standing: &liveness::Standing,
    through: Option<NodeId>,
    roster: &Roster,
    sight: &Sight,
) -> Option<String> {
    let why = reason(&standing.why, roster);
    match standing.state {
        State::Alive => through.map(|_| "its direct path is broken".into()),
        State::Unknown => Some("not heard from yet since this agent started".into()),
        State::Suspect => Some(reach::of_doubted(why, sight)),
        State::Left => Some("its agent was stopped; start it: systemctl start peerage".into()),
        State::Down => Some(reach::of_silent(&why, standing, sight)),
    }
}

/// The notices of a member that every node finds in its own roster.
const IN_ROSTER: [NoticeKind; 2] = [NoticeKind::Name, NoticeKind::Invitation];

/// Whether this node knows by itself what a member tells: from its roster, or from its own newer
/// measurement of the member's clock.
fn is_seen_here(told: &Told) -> bool {
    IN_ROSTER.iter().chain(&[NoticeKind::Clock]).any(|kind| told.kind == kind.word())
}

fn as_it_says(told: &Told) -> String {
    format!("{}: {}", told.kind, told.message)
}

/// Why a member may let nobody in, and what to do.
pub(super) fn held_back(member: &roster::Member, roster: &Roster) -> Option<String> {
    let why = roster.why_unaccepted(member)?;
    let name = &member.name;
    Some(format!(
        "{why}: it lets nobody in until it is accepted (`peerage members accept {name}` on another \
         member); if it does not belong here: `peerage remove {name}`"
    ))
}

/// Why this node may let nobody in; none where it may.
pub(super) fn own_unaccepted(me: &NodeId, roster: &Roster) -> Option<String> {
    roster.why_unaccepted(roster.member(me)?)
}

/// All messages in one line; none where there is no message.
fn joined(messages: impl IntoIterator<Item = String>) -> Option<String> {
    let said: Vec<String> = messages.into_iter().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

impl Serve<ListLag> for Agent {
    async fn serve(&self, _: &Caller, _: ListLag) -> Answer<List<Lag>> {
        Ok(List::made(lag(&self.node)))
    }
}

fn lag(node: &Node) -> Vec<Lag> {
    let Some(view) = View::now(node) else { return Vec::new() };
    let mut list: Vec<Lag> = view
        .roster
        .current()
        .map(|member| {
            let seen = view.member(member);
            let message = node.mesh().peer(member.id).as_ref().and_then(stalled);
            let age = view.vitals.get(&member.id).map(|vital| vital.age().as_secs_f64());
            Lag {
                name: seen.name,
                id: seen.id,
                in_sync: seen.digest.as_ref() == Some(&view.digest),
                digest: seen.digest,
                age_s: if seen.is_self { Some(0.0) } else { age },
                message,
            }
        })
        .collect();
    list.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    list
}
