//! Sets the notices of a member that follow from the roster, the circle of vitals and the room for
//! settings, and tells the other members of all notices that stand on this node.

use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::roster::{self, Roster};

use super::members::Members;
use super::vitals::VitalsHandle;
use super::vitals::circle::CIRCLE_MAX;
use crate::notices::Notices;
use crate::replica::ReplicaHandle;

/// What to do where the settings are short of room.
const MAKE_ROOM: &str = "take away what is not needed: `peerage settings unset PATH`; `peerage \
                         status` shows how much lives, and a write that is refused what takes most";

/// The kinds that end with the membership.
pub(super) const OF_A_MEMBER: [NoticeKind; 8] = [
    NoticeKind::Peers,
    NoticeKind::Store,
    NoticeKind::Bulk,
    NoticeKind::Clock,
    NoticeKind::Contested,
    NoticeKind::Invitation,
    NoticeKind::Name,
    NoticeKind::Vitals,
];

/// Updates these notices as the members change, and tells the others of all notices that stand on
/// this node.
pub(super) async fn follow_notices(members: Members, vitals: VitalsHandle, notices: Notices) {
    let mut views = members.views();
    let mut circles = vitals.circle_changes();
    let mut board = notices.board();
    loop {
        let roster = views.borrow_and_update().roster.clone();
        let circle = *circles.borrow_and_update();
        let me = roster.member(&members.me);
        let clash = me.and_then(|me| name_clash(me, &roster));
        notices.set(NoticeKind::Name, clash.map(|clash| State::new(clash.0, clash.1)));
        let held_back = me.and_then(|me| held_back(me, &roster));
        notices.set(NoticeKind::Invitation, held_back);
        let others = roster.others(members.me).count();
        notices.set(NoticeKind::Vitals, incomplete_vitals(others, circle));
        let told = board.borrow_and_update().told();
        vitals.tell(|own| own.notices = told);
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            changed = circles.changed() => if changed.is_err() { return },
            changed = board.changed() => if changed.is_err() { return },
        }
    }
}

/// Says whether the settings are short of room, as they change.
pub(super) async fn follow_room(replica: ReplicaHandle, notices: Notices) {
    let mut progress = replica.progress();
    let mut stands = false;
    loop {
        let shortage = progress.borrow_and_update().room.shortage(stands);
        stands = shortage.is_some();
        notices.set(NoticeKind::Store, shortage.map(|message| State::new(message, MAKE_ROOM)));
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// Why a member shows with a suffix, and what to do.
pub fn name_clash(member: &roster::Member, roster: &Roster) -> Option<(String, String)> {
    let holder = roster.holder_above(member)?;
    Some((
        format!(
            "the name {} went to {} too, which was given it earlier",
            member.given_name,
            holder.id.short()
        ),
        format!("give this one another: `peerage rename {} NEW`", member.name),
    ))
}

/// Why this node may let nobody in, and what to do.
fn held_back(me: &roster::Member, roster: &Roster) -> Option<State> {
    let why = roster.why_unaccepted(me)?;
    let hint = format!("if it is to stay: `peerage members accept {}` on another member", me.name);
    Some(State::new(format!("this node may not let others in: {why}"), hint))
}

/// The state to show where there are so many members that this node does not exchange vitals with
/// all.
fn incomplete_vitals(others: usize, circle: usize) -> Option<State> {
    (others > CIRCLE_MAX && circle < others).then(|| {
        let message = format!(
            "of {others} other members {circle} tell this node their version, load and digest; \
             who is alive is known of all"
        );
        State::new(message, "ask another node for those that are not told here")
    })
}
