//! Listening: which datagrams are heard, and what is learnt from one beside what foca reads in it.

use foca::{Header, Member, Message};

use super::codec::Opened;
use super::outside::OUT_OF_TURN;
use super::settling::Cause;
use super::{Liveness, Outputs, Refused, pace};
use crate::id::NodeId;
use crate::time::Now;

impl Liveness {
    /// A datagram came from the authenticated peer `from`.
    ///
    /// # Errors
    /// [`Refused`], for bytes of any content and length; nothing changed.
    pub fn heard(&mut self, now: Now, from: NodeId, datagram: &[u8]) -> Result<Outputs, Refused> {
        self.wake(now);
        let opened = Opened::parse(datagram).map_err(|_| Refused::Malformed)?;
        let Header { src, src_incarnation, dst, message } = &opened.header;
        if src.node != from || dst.node != self.me {
            return Err(Refused::Misattributed);
        }
        let about = match message {
            Message::PingReq { target: life, .. }
            | Message::IndirectPing { origin: life, .. }
            | Message::IndirectAck { target: life, .. }
            | Message::ForwardedAck { origin: life, .. } => Some(life.node),
            _ => None,
        };
        let known = |node: NodeId| self.members.contains_key(&node);
        if !src.is_credible() || !known(from) || !about.is_none_or(known) {
            return Err(Refused::Stranger);
        }
        if self.gone {
            return Ok(self.outputs());
        }

        self.outlive(&opened);
        let me = *self.foca.identity();
        let bytes = opened.filtered(|member| {
            let life = member.id();
            *life == me || (self.members.contains_key(&life.node) && life.is_credible())
        });
        let now = self.outside.now;
        if let Message::Ack(number) = message {
            self.outside.answered(from, *number);
            if *number == OUT_OF_TURN {
                self.vindicate(from);
            }
        }
        if let (Message::ForwardedAck { probe_number, .. }, Some(origin)) = (message, about) {
            self.outside.answered_through(origin, *probe_number);
            if *probe_number == OUT_OF_TURN {
                self.vindicate(origin);
            }
            if let Some(entry) = self.members.get_mut(&origin)
                && entry.standing.heard.is_none_or(|heard| heard + pace::PROBE_TIMEOUT < now)
            {
                entry.standing.through = Some(from);
            }
        }
        self.outside.heard_of(from);
        let entry = self.members.get_mut(&from).expect("it is known, as checked above");
        entry.standing.heard = Some(now);
        entry.standing.through = None;
        // A peer that believed us down sends Announce or TurnUndead. A freshly started one
        // announces too; its new `Life` tells it apart.
        entry.missed_us |=
            entry.is_away() && matches!(message, Message::Announce | Message::TurnUndead);
        self.touch(&Member::new(*src, *src_incarnation, foca::State::Alive));
        for (member, _) in &opened.members {
            self.touch(member);
        }
        // foca's errors here are a peer's mistakes that do no harm, such as a probe that comes
        // back to where it began.
        let _ = self.foca.handle_data(&bytes, &mut self.outside);
        self.settle(Cause::Told(from));
        Ok(self.outputs())
    }

    /// Takes up a later life if a peer speaks of a life of this node that is later than the present
    /// one: this node's disk and boot number were rolled back, and nobody would listen to it.
    fn outlive(&mut self, opened: &Opened<'_>) {
        let told = opened.members.iter().map(|(member, _)| *member.id());
        let latest = told.filter(|life| life.node == self.me).chain([opened.header.dst]).max();
        if let Some(life) = latest.and_then(|latest| self.foca.identity().beyond(&latest)) {
            let _ = self.foca.change_identity(life, &mut self.outside);
            self.outside.renewed = true;
        }
    }
}
