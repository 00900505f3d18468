//! Judges what a joiner asks for by the roster as it is at that moment, and tells what its
//! admission writes.

use std::net::SocketAddr;

use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::{Binding, JoinRequest, Judge, Judged, judge};
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::invitation::Invitation;
use peerage_proto::roster::{Roster, invite_path, member_path};
use peerage_proto::skew::ClockOff;
use peerage_proto::wire::WIRE_VERSION;

use crate::replica::Edits;

/// The name that the record of a replaced member gives for whoever removed it.
const REPLACED_BY: &str = "join --replace";

/// What a joiner asks for, and what its proof is tied to.
#[derive(Clone)]
pub(super) struct Asks {
    pub(super) request: JoinRequest,
    pub(super) joiner: NodeId,
    pub(super) binding: Binding,
    /// The address from which its packets come.
    pub(super) remote: SocketAddr,
}

/// What a verdict needs beside the roster.
pub(super) struct Bench {
    pub(super) me: NodeId,
    pub(super) datacenter: DataCenterId,
    pub(super) wall_ms: u64,
    pub(super) clock_off: Option<ClockOff>,
}

impl Bench {
    /// Whether this member lets the joiner in, and as whom.
    pub(super) fn judge(&self, roster: &Roster, asks: &Asks) -> Result<Judged, Refusal> {
        let member = Judge {
            me: self.me,
            name: &roster.name_of(&self.me),
            datacenter: self.datacenter,
            roster,
            wire_version: WIRE_VERSION,
            wall_ms: self.wall_ms,
            clock_off: self.clock_off,
        };
        judge(&member, &asks.request, asks.joiner, &asks.binding)
    }

    /// What an admission writes: the invitation where it is not on record, the end of the member that
    /// is replaced, and the admission.
    pub(super) fn admitting(
        &self,
        roster: &Roster,
        judged: &Judged,
        asks: &Asks,
        seen: &[SocketAddr],
    ) -> Edits {
        let Asks { request, joiner, .. } = asks;
        // A joiner that is a member already is admitted anew, too. It may have left without this
        // node having heard of it, and the later of the two records holds. Such a member used up
        // the invitation that it was first let in by, and no other.
        let member = roster.member(joiner).filter(|member| member.is_current());
        let invite = member.map_or(Some(judged.terms.invite), |member| member.invite);
        let (by, at_ms) = (self.me, self.wall_ms);
        let edit = roster.admission(joiner, &judged.name, &request.addresses, by, invite, at_ms);
        let edit = roster.seen_at(joiner, seen, edit);
        let mut edits = Edits::new();
        if let Some(invitation) = not_on_record(roster, request) {
            let path = invite_path(&invitation.terms().invite);
            edits.push((path, Roster::inviting(&invitation)));
        }
        let edit = match &judged.replaces {
            Some(replaced) => {
                edits.push((member_path(replaced), Roster::removal(by, REPLACED_BY, at_ms)));
                roster.in_place_of(replaced, edit)
            }
            None => edit,
        };
        edits.push((member_path(joiner), edit));
        edits
    }
}

/// The invitation of a request, if no record of it is known here. Its issuer may be gone with that
/// record, and all members have to know how many nodes the invitation admits.
fn not_on_record(roster: &Roster, request: &JoinRequest) -> Option<Invitation> {
    let signature = request.terms_signature.as_slice().try_into().ok()?;
    let invitation = Invitation::verify(&request.terms, signature).ok()?;
    let record = roster.invite(&invitation.terms().invite);
    record.is_none_or(|record| record.terms.is_none()).then_some(invitation)
}
