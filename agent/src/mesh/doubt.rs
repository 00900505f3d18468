//! Whether a connection is answered. QUIC confirms within milliseconds whatever arrives, so one on
//! which something was sent and nothing was confirmed for a while is in doubt, long before QUIC
//! itself would give it up, and even if it fails in one direction only.
//!
//! A look is begun by something that is sent, and ends with an answer: an idle connection costs
//! nothing. How long an answer may take `patience` tells.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use peerage_proto::wire::CloseCode;

use super::peer::Peer;
use super::pool::Pool;

/// In how many steps the time for an answer is looked at.
const STEPS: u32 = 4;

impl Pool {
    /// Something was handed to the connection: sees to it that somebody looks for an answer.
    pub(super) fn expect_answer(self: &Arc<Self>, peer: &Arc<Peer>) {
        peer.watch.hand_over();
        if peer.watch.begin_look() {
            tokio::spawn(look(self.clone(), peer.clone()));
        }
    }
}

/// Looks until all that was sent is answered; what is not is told to the pool.
async fn look(pool: Arc<Pool>, peer: Arc<Peer>) {
    let watch = &peer.watch;
    loop {
        let seen = match until_answered(&pool, &peer).await {
            Some(seen) => seen,
            None => return,
        };
        watch.end_look();
        // What was handed over in between had no look begun for it.
        if watch.handed_over() == seen || !watch.begin_look() {
            return;
        }
    }
}

/// Waits until what was handed to the connection is answered and nothing more is asked, or until
/// there is nothing that asks for an answer. Returns how much was handed over by then; `None` where
/// no answer came, which the pool was told, or where the connection ended.
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
            // What came while this host stood still has not been read yet.
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
            // Whatever is sent next is looked at anew.
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
