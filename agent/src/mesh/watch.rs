//! What is known of one connection's answers: what was handed to it, what was confirmed, and
//! whether it is in doubt. `doubt` looks for answers, and decides when the connection falls into
//! doubt.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quinn::Connection;
use tokio::time::sleep;

/// How often a connection in doubt is checked for new answers.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many of these checks must find a new answer until the connection is no longer in doubt.
const ANSWERS_AGAIN: u32 = 2;

/// What is known of one connection's soundness.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Connection,
    /// Whether a task looks for an answer already.
    looked_at: AtomicBool,
    /// How often something was handed to the connection.
    sends: AtomicU64,
    in_doubt: AtomicBool,
    /// Whether the peer is held to be dead: then a doubt ends the connection.
    abandoned: AtomicBool,
    /// How many answers had come when the connection fell into doubt.
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

    /// Whether the caller is to look for an answer; `false` if another task does already.
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

    /// How often the peer confirmed something, and how many frames were sent that the peer confirms
    /// if they arrive. Other packets from the peer tell nothing about the direction from here to
    /// there.
    pub(super) fn answers_and_questions(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        let sent = stats.frame_tx;
        (stats.frame_rx.acks, sent.datagram + sent.stream + sent.ping)
    }

    /// How often something was confirmed by the other end.
    pub(super) fn answers(&self) -> u64 {
        self.answers_and_questions().0
    }

    /// Whether the connection fell into doubt, and no answer has come since.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
            && self.answers() == self.answers_then.load(Ordering::Acquire)
    }

    /// The connection falls into doubt, after so many answers have come.
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

    /// Returns when answers come again, or when the connection ends. Answers whether they came. One
    /// answer is not enough: a peer that hears nothing either repeats what it sent, and that looks
    /// like an answer.
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
