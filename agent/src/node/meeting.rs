//! Meeting members by Join Information, where neither side can find the other any more, as when all
//! had new addresses at once. A member keeps everything; the Join Information only tells it where
//! to look.
//!
//! So the invitation need not admit anybody any more: the hellos decide who may be met, since in
//! them both sides show that they are members.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use peerage_proto::invitation::{JoinInformation, Seed};
use tracing::info;

use super::entering::already_member;
use super::{MeetError, Node, NodeError};
use crate::mesh::DialError;

/// Whom a member met by Join Information.
#[derive(Debug)]
pub struct Meeting {
    /// The members that this node is connected with now; at least one.
    pub met: Vec<NodeId>,
    /// The members that this node is not connected with, each with the cause.
    pub missed: Vec<(NodeId, String)>,
}

impl Node {
    /// Connects with the seeds of Join Information of the Data Center that this node is a member of,
    /// and catches up with them.
    ///
    /// # Errors
    /// [`NodeError::Meet`], or that it is not a member of that Data Center.
    pub async fn meet(&self, token: &str) -> Result<Meeting, NodeError> {
        if let Some(notice) = &*self.twin.borrow() {
            return Err(NodeError::Twin(notice.message.clone()));
        }
        let membership = self.membership().ok_or(NodeError::Standalone)?;
        let information = JoinInformation::parse(token)?;
        let terms = information.invitation.terms();
        if terms.datacenter != membership.datacenter {
            return Err(already_member(&membership.roster(), membership.datacenter));
        }
        let me = self.id();
        let meeting = |seed: &Seed| {
            let (node, addresses, mesh) = (seed.node, seed.addresses.clone(), &membership.mesh);
            async move { (node, addresses.clone(), mesh.meet(node, &addresses).await) }
        };
        let others = terms.seeds.iter().filter(|seed| seed.node != me);
        let mut meetings: FuturesUnordered<_> = others.map(meeting).collect();
        if meetings.is_empty() {
            return Err(MeetError::OnlyItself.into());
        }
        let (mut met, mut missed, mut refused) = (Vec::new(), Vec::new(), None);
        while let Some((node, addresses, outcome)) = meetings.next().await {
            let name = || membership.roster().name_of(&node);
            match outcome {
                Ok(()) => {
                    info!(peer = name(), "met by Join Information");
                    // The seed tells where all the others are, as far as it has heard.
                    let _ = membership.sessions.synchronise(node).await;
                    met.push(node);
                }
                Err(error) => {
                    if let DialError::Refused(refusal) = &error {
                        let cause = refusal.to_string();
                        refused = Some(MeetError::Refused { by: name(), cause });
                    }
                    missed.push((node, format!("{} {}: {error}", name(), at(&addresses))));
                }
            }
        }
        if met.is_empty() {
            let causes = missed.into_iter().map(|(_, cause)| cause).collect();
            return Err(refused.unwrap_or(MeetError::Unreachable(causes)).into());
        }
        let names: Vec<_> = met.iter().map(|node| membership.roster().name_of(node)).collect();
        self.tell("met", format!("{} met {} by Join Information", self.name(), names.join(", ")));
        Ok(Meeting { met, missed })
    }
}

fn at(addresses: &[Address]) -> String {
    let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
    format!("at {}", addresses.join(", "))
}
