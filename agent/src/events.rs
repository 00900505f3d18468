//! What happens on this node, told in one order to all who follow, each thing once.
//!
//! A ring keeps the latest things, so that a follower who lost its connection goes on where it
//! stopped. An id is `boot-number`: after a restart of the agent the ring is empty, and an id from
//! before is refused rather than answered with a gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

/// How many things the ring keeps.
const RING_MAX: usize = 4096;

/// How many bytes of things the ring keeps; one that is larger alone is kept alone.
const RING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many things wait for a follower before it is let go as too slow.
const FOLLOWER_QUEUE_MAX: usize = 256;

/// A thing with its place in this node's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered<T> {
    /// `boot-number`.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The thing.
    pub thing: T,
}

/// Why a stream cannot go on from an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "what came after {0:?} is no longer held here: the agent restarted, or too much happened since"
)]
pub struct Gone(pub String);

struct Ring<T> {
    next: u64,
    things: VecDeque<(u64, u64, T)>,
    bytes: usize,
}

/// A ring of things, and those who follow it. Cloning shares it.
pub struct Feed<T> {
    boot: u64,
    /// How many bytes a thing takes, about.
    weight: fn(&T) -> usize,
    ring: Arc<Mutex<Ring<T>>>,
    grown: watch::Sender<u64>,
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        let Self { boot, weight, ring, grown } = self;
        Self { boot: *boot, weight: *weight, ring: ring.clone(), grown: grown.clone() }
    }
}

impl<T: Clone + Send + 'static> Feed<T> {
    /// An empty feed of one run of the agent; `weight` tells how many bytes a thing takes, about.
    pub fn new(boot: u64, weight: fn(&T) -> usize) -> Self {
        let ring = Ring { next: 1, things: VecDeque::new(), bytes: 0 };
        Self { boot, weight, ring: Arc::new(Mutex::new(ring)), grown: watch::channel(0).0 }
    }

    /// Tells of a thing.
    pub fn tell(&self, thing: T, at_ms: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.next;
        ring.next += 1;
        ring.bytes += (self.weight)(&thing);
        ring.things.push_back((number, at_ms, thing));
        while ring.things.len() > RING_MAX || (ring.bytes > RING_BYTES_MAX && ring.things.len() > 1)
        {
            let Some((_, _, oldest)) = ring.things.pop_front() else { break };
            ring.bytes -= (self.weight)(&oldest);
        }
        drop(ring);
        self.grown.send_replace(number);
    }

    /// The place of the latest thing.
    pub fn latest(&self) -> String {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}-{}", self.boot, ring.next - 1)
    }

    /// Follows: what is held after `from` (all that is held, if none), and with `go_on` what comes.
    /// A follower that falls behind the ring or its queue is let go: its stream ends.
    ///
    /// # Errors
    /// [`Gone`], where something after `from` is no longer held.
    pub fn follow(
        &self,
        from: Option<&str>,
        go_on: bool,
    ) -> Result<mpsc::Receiver<Numbered<T>>, Gone> {
        let mut at = match from {
            None => self.oldest() - 1,
            Some(id) => self.place(id).ok_or_else(|| Gone(id.to_owned()))?,
        };
        let (sender, receiver) = mpsc::channel(FOLLOWER_QUEUE_MAX);
        let feed = self.clone();
        tokio::spawn(async move {
            let mut grown = feed.grown.subscribe();
            loop {
                grown.borrow_and_update();
                while let Some(next) = feed.after(at) {
                    let Some((number, thing)) = next else { return };
                    at = number;
                    if sender.send(thing).await.is_err() {
                        return;
                    }
                }
                if !go_on {
                    return;
                }
                tokio::select! {
                    changed = grown.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }

    fn place(&self, id: &str) -> Option<u64> {
        let (boot, number) = id.split_once('-')?;
        let number = number.parse::<u64>().ok()?;
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.things.front().map_or(ring.next, |(n, _, _)| *n);
        let held = boot == self.boot.to_string() && number < ring.next && number + 1 >= oldest;
        held.then_some(number)
    }

    fn oldest(&self) -> u64 {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.things.front().map_or(ring.next, |(number, _, _)| *number)
    }

    /// The thing after a place: none yet, or none any more.
    #[expect(clippy::option_option, reason = "nothing yet and nothing any more differ")]
    fn after(&self, at: u64) -> Option<Option<(u64, Numbered<T>)>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.things.front()?.0;
        if at + 1 >= ring.next {
            return None;
        }
        let Some(index) = (at + 1).checked_sub(oldest) else { return Some(None) };
        let (number, at_ms, thing) = &ring.things[usize::try_from(index).ok()?];
        let id = format!("{}-{number}", self.boot);
        Some(Some((*number, Numbered { id, at_ms: *at_ms, thing: thing.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn numbers(mut receiver: mpsc::Receiver<Numbered<u64>>) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(numbered) = receiver.recv().await {
            numbers.push(numbered.thing);
        }
        numbers
    }

    #[tokio::test]
    async fn a_follower_gets_each_thing_once_and_goes_on_where_it_stopped() {
        let feed = Feed::new(7, |_| 8);
        (1..=3).for_each(|n| feed.tell(n, 0));
        assert_eq!(numbers(feed.follow(None, false).unwrap()).await, [1, 2, 3]);
        let place = feed.latest();
        feed.tell(4, 0);
        assert_eq!(numbers(feed.follow(Some(&place), false).unwrap()).await, [4]);
        let mut live = feed.follow(Some(&feed.latest()), true).unwrap();
        feed.tell(5, 9);
        let five = live.recv().await.unwrap();
        assert_eq!((five.id.as_str(), five.at_ms, five.thing), ("7-5", 9, 5));
    }

    #[tokio::test]
    async fn large_things_push_out_more_of_the_old() {
        let feed = Feed::new(7, |_| RING_BYTES_MAX / 2);
        (1..=5).for_each(|n| feed.tell(n, 0));
        assert_eq!(numbers(feed.follow(None, false).unwrap()).await, [4, 5]);
    }

    #[tokio::test]
    async fn what_is_no_longer_held_is_refused_not_skipped() {
        let feed = Feed::new(7, |_| 8);
        let place = feed.latest();
        (0..=RING_MAX as u64).for_each(|n| feed.tell(n, 0));
        for id in [place.as_str(), "6-9", "7-99999", "x"] {
            assert_eq!(feed.follow(Some(id), false).unwrap_err(), Gone(id.to_owned()));
        }
        assert_eq!(numbers(feed.follow(None, false).unwrap()).await.len(), RING_MAX);
    }
}
