//! One anti-entropy session, the same on both sides: each side sends the vector of what it holds,
//! then the changes that the other side lacks, and then the vector of what the other side holds
//! once it has stored them.

use peerage_proto::id::NodeId;
use peerage_proto::replica::Vector;
use peerage_proto::time::Now;

use super::{Effect, Process, Then};
use crate::sim::flaw::Flaw;
use crate::sim::network::{Body, Part};

/// How many changes one part of a session carries.
const CHANGES_PER_PART: usize = 4;

/// The state of one session. It is kept after the session's end, so that a late part opens no new
/// session.
#[derive(Debug)]
pub(super) struct Stream {
    peer: NodeId,
    /// The run of the peer's process; none until it answers.
    peer_run: Option<u64>,
    /// The number of the part that must come next.
    next: usize,
    ended: bool,
}

/// Where a part belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) from: NodeId,
    pub(super) session: u64,
    pub(super) from_run: u64,
    pub(super) to_run: Option<u64>,
    pub(super) index: usize,
}

impl Process {
    /// Opens an anti-entropy session.
    pub fn open_session(&mut self, peer: NodeId, session: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.begin(peer, session, &mut effects);
        effects
    }

    pub(super) fn begin(&mut self, peer: NodeId, session: u64, effects: &mut Vec<Effect>) {
        self.sessions.insert(session, Stream { peer, peer_run: None, next: 0, ended: false });
        self.send_part(session, 0, self.opening(), effects);
    }

    fn opening(&self) -> Part {
        Part::Open(self.replica().durable_vector().clone())
    }

    pub(super) fn take_part(
        &mut self,
        place: Place,
        part: Part,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Place { from, session, from_run, to_run, index } = place;
        let answers = to_run.is_none() && index == 0 && !self.sessions.contains_key(&session);
        if answers {
            let peer_run = Some(from_run);
            self.sessions.insert(session, Stream { peer: from, peer_run, next: 0, ended: false });
        }
        let Some(stream) = self.sessions.get_mut(&session) else { return };
        let is_its = stream.peer == from
            && *stream.peer_run.get_or_insert(from_run) == from_run
            && to_run.is_none_or(|run| run == self.run);
        if !is_its || stream.ended || index < stream.next {
            return;
        }
        if index > stream.next && self.flaw != Some(Flaw::AbsorbsCutSessions) {
            stream.ended = true;
            return;
        }
        stream.next = index + 1;
        match part {
            Part::Open(vector) => {
                if answers {
                    self.send_part(session, 0, self.opening(), effects);
                }
                self.send_delta(session, &vector, effects);
            }
            Part::Changes(changes) => {
                self.merge(changes, now);
                self.desk.answer_after_commit(Then::Merged { session });
            }
            Part::End(vector) => {
                stream.ended = true;
                self.desk.answer_after_commit(Then::Absorb { session, vector });
            }
        }
    }

    /// Ends a session of which changes were lost here.
    pub(super) fn end_session(&mut self, session: u64) {
        if let Some(stream) = self.sessions.get_mut(&session) {
            stream.ended = true;
        }
    }

    fn send_delta(&self, session: u64, since: &Vector, effects: &mut Vec<Effect>) {
        let (changes, vector) = self.replica().delta(since);
        let parts = changes.chunks(CHANGES_PER_PART).map(|chunk| Part::Changes(chunk.to_vec()));
        for (index, part) in parts.chain([Part::End(vector)]).enumerate() {
            self.send_part(session, index + 1, part, effects);
        }
    }

    fn send_part(&self, session: u64, index: usize, part: Part, effects: &mut Vec<Effect>) {
        if let Some(Stream { peer, peer_run, .. }) = self.sessions.get(&session) {
            let (from_run, to_run) = (self.run, *peer_run);
            let body = Body::Part { session, from_run, to_run, index, part };
            self.send(*peer, body, effects);
        }
    }
}
