//! Members tell each other how often an invitation was used, so that it is not used twice at once.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::admission::exchange::{LISTED_MAX, UsesAnswer, UsesQuestion};
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::uses_left;
use peerage_proto::id::NodeId;
use peerage_proto::invitation::Terms;
use peerage_proto::roster::Roster;
use peerage_proto::wire::StreamKind;
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::admit::Admitter;
use super::exchange::{AdmissionError, within};
use super::pending::Pending;
use super::surroundings::Surroundings;
use crate::mesh::{read_frame, write_answer};

/// How long other members may take to say how often an invitation was used.
const USES_TIMEOUT: Duration = Duration::from_secs(1);

impl<S: Surroundings> Admitter<S> {
    /// Asks the members alive, so that an invitation is not used twice at once.
    pub(super) async fn check_uses(&self, terms: &Terms, joiner: NodeId) -> Result<(), Refusal> {
        let question = UsesQuestion { invite: terms.invite, joiner };
        let mut asked = self.surroundings.alive();
        if terms.strict && terms.issuer != self.me {
            asked.insert(terms.issuer);
        } else if terms.uses.is_none() {
            return Ok(());
        }
        let mut asking = tokio::task::JoinSet::new();
        for member in asked {
            let surroundings = self.surroundings.clone();
            asking.spawn(async move {
                let answer = timeout(USES_TIMEOUT, surroundings.ask_uses(member, question)).await;
                (member, answer.ok().flatten())
            });
        }
        let own = answer_uses(&self.roster(), &self.pending, question);
        let mut answers = vec![(self.me, Some(own))];
        while let Some(Ok(answer)) = asking.join_next().await {
            answers.push(answer);
        }
        let silent = |(member, answer): &(NodeId, Option<UsesAnswer>)| {
            *member == terms.issuer && answer.is_none()
        };
        if terms.strict && answers.iter().any(silent) {
            return Err(Refusal::IssuerSilent { issuer: terms.issuer_name.clone() });
        }
        let answers: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer).collect();
        if answers.iter().any(|answer| answer.revoked) {
            return Err(Refusal::Revoked);
        }
        let admitted = answers.iter().flat_map(|answer| &answer.admitted).copied();
        let mut used: BTreeSet<_> = admitted.filter(|id| *id != joiner).collect();
        uses_left(terms, used.len())?;
        // If two joiners are let in at once, the one with the lower id goes first, on every member.
        // Its admission may still fail, so the other joiner is told to come again, and not that the
        // invitation is used up.
        used.extend(answers.iter().flat_map(|a| &a.pending).filter(|id| **id < joiner));
        uses_left(terms, used.len()).map_err(|_| {
            Refusal::Busy("other nodes are just being let in by the same Join Information".into())
        })
    }
}

/// Answers another member's question, and notes that it is about to admit.
fn answer_uses(roster: &Roster, pending: &Pending, question: UsesQuestion) -> UsesAnswer {
    let admitted = roster.admitted_with(&question.invite).take(LISTED_MAX).collect();
    let revoked = roster.invite(&question.invite).is_some_and(|record| record.revoked);
    let pending = pending.note(question.invite, question.joiner);
    UsesAnswer { admitted, pending, revoked }
}

/// Answers the question that a member asks on a stream.
///
/// # Errors
/// [`AdmissionError`].
pub async fn answer(
    roster: &Roster,
    pending: &Pending,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), AdmissionError> {
    let bound = StreamKind::InviteUses.frame_bytes_max();
    let frame = within(read_frame(recv, bound)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("asked nothing"))?;
    let question = UsesQuestion::decode(&frame)
        .map_err(|_| AdmissionError::Joiner("asked what does not read"))?;
    let answer = answer_uses(roster, pending, question).encode();
    Ok(within(write_answer(send, StreamKind::InviteUses, &answer)).await??)
}
