//! Tells of members that are reached, but to which nothing large gets through.

use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::time::HowLong;

use super::members::Members;
use crate::mesh::{Mesh, PeerStatus, narrowness};
use crate::notices::Notices;

/// What the operator can do about it.
const SEE_TO_IT: &str = "see to the MTU of the way there: packets of 1,228 bytes must pass (IPv6: \
                         1,248)";

/// For how long nothing large has got through to a member, and what to do; `None` where all gets
/// through.
pub fn stalled(peer: &PeerStatus) -> Option<String> {
    let lasts = HowLong(peer.stalled?);
    let width = of_width(peer);
    Some(format!(
        "reached, but nothing larger than a small packet arrives there, for {lasts}{width}: \
         {SEE_TO_IT}"
    ))
}

/// What the kernel knows of the packet size on the way to a peer, in brackets.
fn of_width(peer: &PeerStatus) -> String {
    let narrow = peer.path.address().and_then(narrowness);
    narrow.map(|narrow| format!(" ({narrow})")).unwrap_or_default()
}

/// Updates the notice that names the members to which nothing large gets through.
pub(super) fn review(members: &Members, mesh: &Mesh, notices: &Notices) {
    let roster = members.roster();
    let mut stalled: Vec<String> = mesh
        .peers()
        .iter()
        .filter(|peer| peer.stalled.is_some() && roster.is_current(&peer.peer))
        .map(|peer| format!("{}{}", roster.name_of(&peer.peer), of_width(peer)))
        .collect();
    stalled.sort();
    let state = (!stalled.is_empty()).then(|| {
        let members = stalled.join(", ");
        let message = format!(
            "nothing larger than a small packet gets through from this node to {members}, which \
             answers: what is set here does not arrive there"
        );
        State::new(message, SEE_TO_IT)
    });
    notices.set(NoticeKind::Bulk, state);
}
