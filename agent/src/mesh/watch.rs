//! What is known of one connection's answers: what was handed to it, what was confirmed, and whether
//! it is in doubt. Who looks, and when it falls into doubt, `doubt` tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quinn::Connection;
use tokio::time::sleep;

/// How often it is looked whether a connection in doubt is answered again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often it must be, each time at another look, until it is no longer in doubt.
const ANSWERS_AGAIN: u32 = 2;

/// What is known of one connection's soundness.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Connection,
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

impl Watch {
    /// Of a connection to which nothing was handed yet.
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            looked_at: AtomicBool::new(false),
            sends: AtomicU64::new(0),
            in_doubt: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            answers_then: AtomicU64::new(0),
        }
    }

    /// Notes that something was handed to the connection.
    pub(super) fn hand_over(&self) {
        self.sends.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was handed to the connection.
    pub(super) fn handed_over(&self) -> u64 {
        self.sends.load(Ordering::Acquire)
    }

    /// Whether the caller is to look for an answer: `false` where somebody does already.
    pub(super) fn begin_look(&self) -> bool {
        !self.looked_at.swap(true, Ordering::AcqRel)
    }

    /// Nobody looks any more.
    pub(super) fn end_look(&self) {
        self.looked_at.swap(false, Ordering::AcqRel);
    }

    /// Whether somebody waits for an answer.
    #[cfg(test)]
    pub(super) fn is_looked_at(&self) -> bool {
        self.looked_at.load(Ordering::Acquire)
    }

    /// How often something was confirmed by the other end, and how much was sent that it confirms
    /// if it arrives. What else comes from there says nothing of the direction from here.
    pub(super) fn answers_and_questions(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        let sent = stats.frame_tx;
        (stats.frame_rx.acks, sent.datagram + sent.stream + sent.ping)
    }

    /// How often something was confirmed by the other end.
    pub(super) fn answers(&self) -> u64 {
        self.answers_and_questions().0
    }

    /// Whether it was not answered, and still is not.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
            && self.answers() == self.answers_then.load(Ordering::Acquire)
    }

    /// It falls into doubt, when so many answers have come.
    pub(super) fn doubt(&self, answers: u64) {
        self.answers_then.store(answers, Ordering::Release);
        self.in_doubt.store(true, Ordering::Release);
    }

    /// Notes whether the peer is held to be dead.
    pub(super) fn abandon(&self, dead: bool) {
        self.abandoned.store(dead, Ordering::Release);
    }

    /// Whether the peer is held to be dead.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
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
