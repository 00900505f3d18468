//! Finds out whether a peer answers on its connection. QUIC confirms within milliseconds what
//! arrives. So a connection on which something was sent and nothing was confirmed for a while is in
//! doubt, long before QUIC itself would give it up, and even if the path fails in one direction
//! only.
//!
//! A task looks for answers from the moment when something is sent until it is answered, so an idle
//! connection costs nothing. `patience` tells how long an answer may take.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use peerage_proto::wire::CloseCode;

use super::peer::Peer;
use super::pool::Pool;

/// Into how many steps the time for an answer is divided; the task looks once in each.
const STEPS: u32 = 4;

impl Pool {
    /// Something was handed to the connection: makes sure that a task looks for an answer.
    pub(super) fn expect_answer(self: &Arc<Self>, peer: &Arc<Peer>) {
        peer.watch.hand_over();
        if peer.watch.begin_look() {
            tokio::spawn(look(self.clone(), peer.clone()));
        }
    }
}

/// Looks until the peer has answered all that was sent. If it does not answer, the connection falls
/// into doubt.
async fn look(pool: Arc<Pool>, peer: Arc<Peer>) {
    let watch = &peer.watch;
    loop {
        let seen = match until_answered(&pool, &peer).await {
            Some(seen) => seen,
            None => return,
        };
        watch.end_look();
        // If something was handed over just before `end_look`, no task looks for its answer yet, so
        // this one looks again.
        if watch.handed_over() == seen || !watch.begin_look() {
            return;
        }
    }
}

/// Waits until the peer has answered what was handed to the connection, or until QUIC has sent
/// nothing for a while that asks for an answer. Returns how often something was handed over by
/// then. `None` if no answer came, so that the connection is in doubt or closed, or if the
/// connection ended.
async fn until_answered(pool: &Arc<Pool>, peer: &Arc<Peer>) -> Option<u64> {
    let watch = &peer.watch;
    let mut sends = watch.handed_over();
    let (mut answers, mut questions) = watch.answers_and_questions();
    // Since when nothing was answered though something was asked.
    let mut unanswered: Option<Instant> = None;
    // Whether an answer came after the last thing that was handed over.
    let mut answered = false;
    // For how many steps nothing happened.
    let mut quiet = 0;
    loop {
        let patience = pool.patience_with(peer.connection.rtt());
        let (step, start) = (patience / STEPS, Instant::now());
        tokio::select! {
            () = sleep(step) => {}
            _ = peer.connection.closed() => return None,
        }
        let stood_still = start.elapsed() > step * 2;
        pool.look_at_bulk(peer);
        let before = (sends, answers, questions);
        sends = watch.handed_over();
        (answers, questions) = watch.answers_and_questions();
        let handed_over = sends != before.0;
        quiet =
            if handed_over || (answers, questions) != (before.1, before.2) { 0 } else { quiet + 1 };
        if answers != before.1 {
            unanswered = None;
            answered = !handed_over;
            pool.patience.narrow();
        } else if stood_still {
            // This host stood still, so answers that came meanwhile may not have been read yet.
            (unanswered, answered) = (None, false);
        } else if questions != before.2 {
            unanswered.get_or_insert(start + step);
            answered = false;
        } else if handed_over {
            answered = false;
        }
        if unanswered.is_some_and(|since| since.elapsed() >= patience - step) {
            watch.doubt(answers);
            if watch.is_abandoned() {
                peer.close(CloseCode::Done, "no answer");
                return None;
            }
            // The next thing that is sent begins a new look.
            watch.end_look();
            pool.counters.doubts.add(1);
            tracing::debug!(peer = %peer.id.short(), path = %peer.path(), "not answered");
            pool.tend(peer.id);
            return None;
        }
        if unanswered.is_none() && quiet >= if answered { 1 } else { STEPS } {
            return Some(sends);
        }
    }
}
