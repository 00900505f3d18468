//! What happens on this node, told in one order to all who follow, each thing once.
//!
//! A ring keeps the latest things, so that a follower who lost its connection goes on where it
//! stopped. A place is `boot-number`. Where a follower's next thing is no longer in the ring, since
//! it was slow or its place is of another run of the agent, it is told of the gap and goes on with
//! what the ring has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use peerage_proto::api::events::Gap;
use tokio::sync::{mpsc, watch};

/// How many things the ring keeps.
const RING_MAX: usize = 4096;

/// How many bytes of things the ring keeps; one that is larger alone is kept alone.
const RING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many things wait in a follower's own queue. The bounds of the ring do not count them.
const FOLLOWER_QUEUE_MAX: usize = 1;

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

/// What a follower gets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<T> {
    /// The thing behind its place.
    Thing(Numbered<T>),
    /// The ring does not hold the next thing any more: the follower goes on behind another place.
    Gap(Gap),
}

/// What a follower gets from [`Feed::follow`].
#[derive(Debug)]
pub struct Following<T> {
    /// The place behind which it begins.
    pub from: String,
    /// What comes.
    pub next: mpsc::Receiver<Next<T>>,
}

/// A text that is no place in any feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a stream: it is told as the id of its events, such as 7-120")]
pub struct NoPlace(pub String);

struct Ring<T> {
    next: u64,
    things: VecDeque<(u64, u64, T)>,
    bytes: usize,
}

impl<T> Ring<T> {
    /// The number of the oldest thing that is held, or of the next one.
    fn oldest(&self) -> u64 {
        self.things.front().map_or(self.next, |(number, _, _)| *number)
    }
}

/// A ring of things with its followers. Cloning shares it.
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
        self.tell_all([thing], at_ms);
    }

    /// Tells of things that happened at once. All of them are kept until the next are told, however
    /// many they are, so that no follower misses a part of them only since they came together.
    pub fn tell_all(&self, things: impl IntoIterator<Item = T>, at_ms: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.next;
        for thing in things {
            let number = ring.next;
            ring.next += 1;
            ring.bytes += (self.weight)(&thing);
            ring.things.push_back((number, at_ms, thing));
        }
        while ring.oldest() < first && (ring.things.len() > RING_MAX || ring.bytes > RING_BYTES_MAX)
        {
            let Some((_, _, oldest)) = ring.things.pop_front() else { break };
            ring.bytes -= (self.weight)(&oldest);
        }
        let latest = ring.next - 1;
        drop(ring);
        self.grown.send_replace(latest);
    }

    /// The place of the latest thing.
    pub fn latest(&self) -> String {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        self.place(ring.next - 1)
    }

    /// Follows the feed: tells the held things after `from` (all held things, if `from` is none),
    /// and with `go_on` also the things that come later. A follower that falls behind the ring is
    /// told how many things it missed, and goes on.
    ///
    /// # Errors
    /// [`NoPlace`], where `from` is not the text of a place.
    pub fn follow(&self, from: Option<&str>, go_on: bool) -> Result<Following<T>, NoPlace> {
        let (mut at, mut gap) = match from {
            None => (self.oldest() - 1, None),
            Some(id) => self.behind(id)?,
        };
        let from = gap.as_ref().map_or_else(|| self.place(at), |gap: &Gap| gap.from.clone());
        let (sender, next) = mpsc::channel(FOLLOWER_QUEUE_MAX);
        let feed = self.clone();
        tokio::spawn(async move {
            let mut grown = feed.grown.subscribe();
            loop {
                grown.borrow_and_update();
                while let Some(next) = gap.take().map(Next::Gap).or_else(|| feed.after(&mut at)) {
                    if sender.send(next).await.is_err() {
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
        Ok(Following { from, next })
    }

    /// How many follow it.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        self.grown.receiver_count()
    }

    fn place(&self, number: u64) -> String {
        format!("{}-{number}", self.boot)
    }

    /// The number behind which a follower with this place goes on. Where the ring does not hold the
    /// thing right after the place, also the gap that the follower is told of first.
    fn behind(&self, id: &str) -> Result<(u64, Option<Gap>), NoPlace> {
        let no_place = || NoPlace(id.chars().take(64).collect());
        let (boot, number) = id.split_once('-').ok_or_else(no_place)?;
        let boot: u64 = boot.parse().map_err(|_| no_place())?;
        let number: u64 = number.parse().map_err(|_| no_place())?;
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ring.oldest() - 1;
        let (from, to) = (id.to_owned(), self.place(before));
        Ok(match number {
            _ if boot != self.boot || number >= ring.next => {
                (before, Some(Gap::of_another_run(from, to)))
            }
            _ if number < before => (before, Some(Gap::of_slow_reader(before - number, from, to))),
            _ => (number, None),
        })
    }

    fn oldest(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).oldest()
    }

    /// Returns what comes next after `at`, and moves `at` on; `None` where nothing came yet.
    fn after(&self, at: &mut u64) -> Option<Next<T>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if *at + 1 >= ring.next {
            return None;
        }
        let before = ring.oldest() - 1;
        if *at < before {
            let (from, to) = (self.place(*at), self.place(before));
            let missed = before - *at;
            *at = before;
            return Some(Next::Gap(Gap::of_slow_reader(missed, from, to)));
        }
        let (number, at_ms, thing) = ring.things.get(usize::try_from(*at - before).ok()?)?;
        *at = *number;
        let id = self.place(*number);
        Some(Next::Thing(Numbered { id, at_ms: *at_ms, thing: thing.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(mut following: Following<u64>) -> Vec<Next<u64>> {
        let mut told = Vec::new();
        while let Some(next) = following.next.recv().await {
            told.push(next);
        }
        told
    }

    async fn numbers(following: Following<u64>) -> Vec<u64> {
        let number = |next| match next {
            Next::Thing(numbered) => numbered.thing,
            Next::Gap(gap) => panic!("{gap:?}"),
        };
        told(following).await.into_iter().map(number).collect()
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
        assert_eq!(live.from, "7-4");
        feed.tell(5, 9);
        let five = Numbered { id: "7-5".to_owned(), at_ms: 9, thing: 5 };
        assert_eq!(live.next.recv().await, Some(Next::Thing(five)));
    }

    #[tokio::test]
    async fn large_things_push_out_more_of_the_old() {
        let feed = Feed::new(7, |_| RING_BYTES_MAX / 2);
        (1..=5).for_each(|n| feed.tell(n, 0));
        assert_eq!(numbers(feed.follow(None, false).unwrap()).await, [4, 5]);
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_the_ring_is_told_by_how_much_and_goes_on() {
        let feed = Feed::new(7, |_| 8);
        let following = feed.follow(None, true).unwrap();
        let many = (RING_MAX + FOLLOWER_QUEUE_MAX + 1000) as u64;
        (1..=FOLLOWER_QUEUE_MAX as u64).for_each(|n| feed.tell(n, 0));
        // The follower's queue fills, and then the follower takes nothing while the ring moves on.
        while following.next.len() < FOLLOWER_QUEUE_MAX {
            tokio::task::yield_now().await;
        }
        (FOLLOWER_QUEUE_MAX as u64 + 1..=many).for_each(|n| feed.tell(n, 0));
        let mut following = following;
        let (mut told, mut missed) = (Vec::new(), 0);
        while told.last() != Some(&many) {
            match following.next.recv().await.unwrap() {
                Next::Thing(numbered) => told.push(numbered.thing),
                Next::Gap(gap) => {
                    assert_eq!(gap.from, format!("7-{}", told.last().unwrap()));
                    missed += gap.missed.unwrap();
                    assert_eq!(gap.to, format!("7-{}", told.last().unwrap() + missed));
                }
            }
        }
        assert_eq!((missed, told.len() as u64 + missed), (1000, many), "each is told or counted");
        assert!(told.is_sorted());
    }

    #[tokio::test]
    async fn what_is_no_longer_held_after_a_place_is_a_gap() {
        let feed = Feed::new(7, |_| 8);
        let place = feed.latest();
        (0..RING_MAX as u64 + 9).for_each(|n| feed.tell(n, 0));
        let told = told(feed.follow(Some(&place), false).unwrap()).await;
        let gap = Gap::of_slow_reader(9, "7-0".into(), "7-9".into());
        assert_eq!((told.len(), &told[0]), (RING_MAX + 1, &Next::Gap(gap)));
        assert_eq!(numbers(feed.follow(None, false).unwrap()).await.len(), RING_MAX);
    }

    #[tokio::test]
    async fn a_place_of_another_run_is_a_gap_of_unknown_length_and_no_text_does_harm() {
        let feed = Feed::new(7, |_| 8);
        feed.tell(1, 0);
        for id in ["6-9", "8-0", "7-99999"] {
            let told = told(feed.follow(Some(id), false).unwrap()).await;
            assert_eq!(told[0], Next::Gap(Gap::of_another_run(id.into(), "7-0".into())));
            assert!(matches!(&told[1..], [Next::Thing(one)] if one.thing == 1), "{told:?}");
        }
        for id in ["x", "", "7", "7-", "-1", "7--1"] {
            assert_eq!(feed.follow(Some(id), false).unwrap_err(), NoPlace(id.to_owned()));
        }
    }
}
