//! Who is let in under a name or a key that a member has: only where that member is not there.

use peerage_proto::address::Address;
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::Judged;
use peerage_proto::id::NodeId;

use super::admit::Admitter;
use super::surroundings::{Presence, Surroundings};

impl<S: Surroundings> Admitter<S> {
    /// Who is a member already may ask again after a crash; but if an agent with its key is alive as
    /// that member, this is another host, with a copy of its key.
    pub(super) async fn check_copy(&self, joiner: NodeId) -> Result<(), Refusal> {
        let place = match joiner == self.me {
            true => Some("on the host that was asked".to_owned()),
            false => self.surroundings.lives(joiner).await,
        };
        let name = self.roster().name_of(&joiner);
        place.map_or(Ok(()), |place| Err(Refusal::Copy { name, place }))
    }

    /// A member is replaced only where it is gone: looked at, and called, by a node that is not
    /// itself the one that is cut off.
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
                // Of two halves that do not see each other, neither replaces anybody.
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
