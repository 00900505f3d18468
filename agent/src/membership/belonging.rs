//! Acts on changes of the roster: it tells of each change, connects with new members, and closes
//! the connections with nodes that are no longer members.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::id::NodeId;
use peerage_proto::roster::{Roster, Standing};
use peerage_proto::wire::CloseCode;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::chronicle::Chronicle;
use super::end::End;
use super::greeting::Greeting;
use super::members::Members;
use super::openings::CONNECT_ALL_MAX;
use super::tasks::Tasks;
use crate::feed::Happening;
use crate::mesh::Mesh;

/// How long the connection with a peer that was put out stays open, so that the peer still hears of
/// it.
const PARTING_LINGER: Duration = Duration::from_secs(1);

/// The member with the higher id waits this long for the other member's dial before it dials
/// itself.
const DIALLED_WITHIN: Duration = Duration::from_millis(250);

/// The task that acts on every change of the roster.
pub(super) struct Belonging {
    pub(super) members: Members,
    /// Where the failure detector and the vitals find the other members.
    pub(super) others: watch::Sender<BTreeSet<NodeId>>,
    pub(super) greeting: Greeting,
    pub(super) mesh: Mesh,
    pub(super) chronicle: Chronicle,
    /// Receives the end of this membership once this node is no longer a member.
    pub(super) ended: mpsc::Sender<End>,
    pub(super) tasks: Tasks,
}

impl Belonging {
    /// Follows the roster until this node is no longer a member.
    pub(super) async fn follow(self) {
        let me = self.members.me;
        let mut views = self.members.views();
        let mut before = views.borrow_and_update().roster.clone();
        self.connect_with_new(&before, &Roster::default());
        loop {
            let roster = views.borrow_and_update().roster.clone();
            for event in roster.events_since(&before) {
                let happening = Happening::of_roster(&event, &roster);
                info!("{}", happening.message);
                self.chronicle.tell(happening);
            }
            self.others.send_if_modified(|current| {
                let now = roster.others(me).collect();
                let changed = *current != now;
                *current = now;
                changed
            });
            self.greeting.renew().await;
            self.mesh.review_paths();
            self.connect_with_new(&roster, &before);
            self.part_with_gone(&roster);
            match roster.member(&me).map(|me| &me.standing) {
                Some(Standing::Member) | None => {}
                Some(standing) => {
                    let _ = self.ended.send(End::Standing(standing.clone())).await;
                    return;
                }
            }
            before = roster;
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    /// Connects with members that are new, so that each is seen at once.
    fn connect_with_new(&self, roster: &Roster, before: &Roster) {
        if roster.current().count() > CONNECT_ALL_MAX {
            return;
        }
        let me = self.members.me;
        for peer in roster.others(me).filter(|id| !before.is_current(id)) {
            let mesh = self.mesh.clone();
            self.tasks.spawn(async move {
                if me > peer {
                    // The member with the lower id dials first. This node dials only if that member
                    // did not, perhaps because it is not up yet: of two dials at once one would be
                    // wasted.
                    tokio::time::sleep(DIALLED_WITHIN).await;
                }
                if let Err(error) = mesh.connect(peer).await {
                    debug!(peer = %peer.short(), %error, "not connected");
                }
            });
        }
    }

    /// Closes the connections with peers that are no longer members, once they had time to hear of
    /// it.
    fn part_with_gone(&self, roster: &Roster) {
        let gone = roster.all().filter(|m| !m.is_current() && self.mesh.is_connected(m.id));
        for peer in gone.map(|member| member.id) {
            let (members, mesh) = (self.members.clone(), self.mesh.clone());
            self.tasks.spawn(async move {
                tokio::time::sleep(PARTING_LINGER).await;
                if !members.roster().is_current(&peer) {
                    mesh.close(peer, CloseCode::Removed, "no longer a member");
                }
            });
        }
    }
}
