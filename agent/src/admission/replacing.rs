//! Lets a joiner in under the name or key of a member only if that member is not there.

use peerage_proto::address::Address;
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::Judged;
use peerage_proto::id::NodeId;

use super::admit::Admitter;
use super::surroundings::{Presence, Surroundings};

impl<S: Surroundings> Admitter<S> {
    /// A member may ask to be let in again after a crash. But if an agent with its key is alive as
    /// that member, the joiner is another host, with a copy of the key.
    pub(super) async fn check_copy(&self, joiner: NodeId) -> Result<(), Refusal> {
        let place = match joiner == self.me {
            true => Some("on the host that was asked".to_owned()),
            false => self.surroundings.lives(joiner).await,
        };
        let name = self.roster().name_of(&joiner);
        place.map_or(Ok(()), |place| Err(Refusal::Copy { name, place }))
    }

    /// A member is replaced only if it is gone: it must not answer this node, and this node must
    /// not be the one that is cut off.
    pub(super) async fn check_gone(&self, judged: &Judged) -> Result<(), Refusal> {
        let Some(holder) = judged.replaces else { return Ok(()) };
        let presence = match holder == self.me {
            true => Presence::There("it is the node that was asked".to_owned()),
            false => self.surroundings.presence(holder).await,
        };
        let roster = self.roster();
        let (name, short) = (judged.name.to_string(), holder.short());
        let why = match presence {
            Presence::There(why) => {
                let addresses = roster.member(&holder).map(|member| member.addresses.as_slice());
                let addresses = addresses.unwrap_or_default().iter().map(Address::to_string);
                let addresses = addresses.collect();
                return Err(Refusal::NotGone { name, holder: short, why, addresses });
            }
            Presence::Lately(why) => why,
            Presence::Gone => {
                let others = roster.others(self.me).filter(|other| *other != holder).count();
                let alive = self.surroundings.alive().len();
                // If the members are in two halves that do not see each other, neither half
                // replaces anybody.
                if others == 0 || alive * 2 > others {
                    return Ok(());
                }
                format!(
                    "{} sees only {alive} of {others} other members, so it cannot tell; `peerage \
                     remove` takes out those that are gone",
                    roster.name_of(&self.me)
                )
            }
        };
        Err(Refusal::MaybeGone { name, holder: short, why })
    }
}
