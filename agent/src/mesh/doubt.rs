//! Whether a connection is answered. QUIC confirms within milliseconds whatever arrives, so one on
//! which something was sent and nothing was confirmed for a while is in doubt, long before QUIC
//! itself would give it up, and even if it fails in one direction only.
//!
//! A look is begun by something that is sent, and ends with an answer: an idle connection costs
//! nothing. How long an answer may take grows with the round trip; and where doubts turn out to be
//! unfounded, because hosts are overloaded or packets get lost, all further looks take longer, as
//! Lifeguard does for a failure detector (Dadgar, Phillips, Currey: "Lifeguard: Local Health
//! Awareness for More Accurate Failure Detection", 2018).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use peerage_proto::wire::CloseCode;

use super::peer::Peer;
use super::pool::Pool;

/// How long nothing may be confirmed on a path that is near, while this host and its peers keep up.
pub(super) const PATIENCE_MIN: Duration = Duration::from_millis(600);

/// How long at most it is made by unfounded doubts.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// How many round trips nothing may be confirmed.
const ROUND_TRIPS: u32 = 4;

/// In how many steps the time for an answer is looked at.
const STEPS: u32 = 4;

/// How often it is looked whether a connection in doubt is answered again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often it must be, each time at another look, until it is no longer in doubt.
const ANSWERS_AGAIN: u32 = 2;

/// What is known of one connection's soundness.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Whether somebody looks already.
    looked_at: AtomicBool,
    /// What was handed to the connection.
    sends: AtomicU64,
    in_doubt: AtomicBool,
    /// Whether the peer is held to be dead: then a doubt ends the connection.
    abandoned: AtomicBool,
    /// The answers that had come when it fell into doubt.
    answers_then: AtomicU64,
}

#[cfg(test)]
impl Watch {
    /// Whether somebody waits for an answer.
    pub(super) fn is_looked_at(&self) -> bool {
        self.looked_at.load(Ordering::Acquire)
    }
}

impl Peer {
    /// How often something was confirmed by the other end, and how much was sent that it confirms
    /// if it arrives. What else comes from there says nothing of the direction from here.
    fn answers_and_questions(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        let sent = stats.frame_tx;
        (stats.frame_rx.acks, sent.datagram + sent.stream + sent.ping)
    }

    /// How often something was confirmed by the other end.
    pub(super) fn answers(&self) -> u64 {
        self.answers_and_questions().0
    }

    /// Whether it was not answered, and still is not.
    pub(super) fn is_doubted(&self) -> bool {
        self.watch.in_doubt.load(Ordering::Acquire)
            && self.answers() == self.watch.answers_then.load(Ordering::Acquire)
    }

    /// Notes whether the peer is held to be dead.
    pub(super) fn abandon(&self, dead: bool) {
        self.watch.abandoned.store(dead, Ordering::Release);
    }

    pub(super) fn doubt(&self, answers: u64) {
        self.watch.answers_then.store(answers, Ordering::Release);
        self.watch.in_doubt.store(true, Ordering::Release);
    }

    /// Returns when answers come again, or the connection ends; whether they came. One is not
    /// enough: what the peer repeats because it hears nothing, either, looks like an answer.
    pub(super) async fn answers_again(&self) -> bool {
        let (mut answers, mut times) = (self.answers(), 0);
        while self.connection.close_reason().is_none() {
            sleep(LOOK_EVERY).await;
            let now = self.answers();
            if now != answers {
                answers = now;
                times += 1;
            }
            if times == ANSWERS_AGAIN {
                return true;
            }
        }
        false
    }
}

/// How long an answer may take, learnt from doubts that were unfounded.
#[derive(Debug)]
pub(super) struct Patience {
    millis: AtomicU64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { millis: AtomicU64::new(PATIENCE_MIN.as_millis() as u64) }
    }
}

impl Patience {
    /// How long an answer over this round trip may take, at a host that is late by this factor.
    pub(super) fn with(&self, rtt: Duration, lateness: u32) -> Duration {
        let learnt = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        (learnt * lateness).min(PATIENCE_MAX).max(rtt * ROUND_TRIPS)
    }

    /// A doubt was unfounded.
    pub(super) fn widen(&self) {
        self.change(|millis| (millis * 3 / 2).min(PATIENCE_MAX.as_millis() as u64));
    }

    /// An answer came in time.
    fn narrow(&self) {
        self.change(|millis| (millis - millis / 64).max(PATIENCE_MIN.as_millis() as u64));
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        // A change that another one overtook is no loss.
        self.millis.store(change(self.millis.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

impl Pool {
    /// Something was handed to the connection: sees to it that somebody looks for an answer.
    pub(super) fn expect_answer(self: &Arc<Self>, peer: &Arc<Peer>) {
        peer.watch.sends.fetch_add(1, Ordering::Relaxed);
        if !peer.watch.looked_at.swap(true, Ordering::AcqRel) {
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
        watch.looked_at.swap(false, Ordering::AcqRel);
        // What was handed over in between had no look begun for it.
        if watch.sends.load(Ordering::Acquire) == seen
            || watch.looked_at.swap(true, Ordering::AcqRel)
        {
            return;
        }
    }
}

/// Waits until what was handed to the connection is answered and nothing more is asked, or until
/// there is nothing that asks for an answer. Returns how much was handed over by then; `None` where
/// no answer came, which the pool was told, or where the connection ended.
async fn until_answered(pool: &Arc<Pool>, peer: &Arc<Peer>) -> Option<u64> {
    let mut sends = peer.watch.sends.load(Ordering::Acquire);
    let (mut answers, mut questions) = peer.answers_and_questions();
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
        sends = peer.watch.sends.load(Ordering::Acquire);
        (answers, questions) = peer.answers_and_questions();
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
            peer.doubt(answers);
            if peer.watch.abandoned.load(Ordering::Acquire) {
                peer.close(CloseCode::Done, "no answer");
                return None;
            }
            // Whatever is sent next is looked at anew.
            peer.watch.looked_at.store(false, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_the_round_trip_and_with_unfounded_doubts_within_bounds() {
        let patience = Patience::default();
        assert_eq!(patience.with(Duration::from_millis(1), 1), PATIENCE_MIN);
        assert_eq!(patience.with(Duration::from_millis(1), 3), 3 * PATIENCE_MIN);
        assert_eq!(patience.with(Duration::from_secs(1), 1), Duration::from_secs(4));
        for _ in 0..20 {
            patience.widen();
        }
        assert_eq!(patience.with(Duration::ZERO, 1), PATIENCE_MAX);
        assert_eq!(patience.with(Duration::ZERO, 7), PATIENCE_MAX);
        for _ in 0..200 {
            patience.narrow();
        }
        assert_eq!(patience.with(Duration::ZERO, 1), PATIENCE_MIN);
    }
}
