//! Places, such as connections or bytes of memory, of which each user of the host gets some, and
//! none gets all.
//!
//! Root and the agent's own user have places of their own, so that whoever looks after a host
//! always gets in. Of the rest no user has more than a quarter of what the others leave. This
//! threshold moves as that of buffers which many queues share (Choudhury, Hahne: "Dynamic Queue
//! Length Thresholds in a Shared Memory ATM Switch", 1996): one user alone has a quarter, and
//! however many users conspire, each has less than the one before, so that something is left for
//! the next user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The part of what the others leave that one user may have.
const SHARE: usize = 4;

/// The number of root.
const ROOT: u32 = 0;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// The places of root alone, and as many for the agent's own user alone.
    pub(super) own: usize,
    /// The places for all users, root and the agent's user included.
    pub(super) rest: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many places the user has.
    pub(super) held: usize,
}

/// Which user has how many places. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: Size,
    /// The user that the agent runs as.
    agent: u32,
    held: Mutex<Held>,
    /// Tells waiting tasks that places were given back.
    freed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Held {
    by_user: HashMap<u32, usize>,
    /// How many places of the rest are taken. Invariant: the sum, over the users, of the places
    /// that they have beyond their own.
    of_rest: usize,
}

impl Places {
    /// Places of this number, with places of its own for the user that the agent runs as.
    pub(super) fn new(size: Size, agent: u32) -> Self {
        let freed = watch::Sender::new(());
        Self(Arc::new(Shared { size, agent, held: Mutex::default(), freed }))
    }

    /// Takes `count` places for a user; they are given back when they are dropped.
    ///
    /// # Errors
    /// [`Taken`]; the user has as many as it may have now.
    pub(super) fn take(&self, uid: u32, count: usize) -> Result<Place, Taken> {
        let mut place = Place { places: self.clone(), uid, count: 0 };
        place.grow(count)?;
        Ok(place)
    }

    /// As [`take`](Self::take), but waits until there are so many places.
    ///
    /// # Errors
    /// [`Taken`], after `patience`.
    pub(super) async fn take_within(
        &self,
        patience: Duration,
        uid: u32,
        count: usize,
    ) -> Result<Place, Taken> {
        let deadline = Instant::now() + patience;
        let mut freed = self.0.freed.subscribe();
        loop {
            match self.take(uid, count) {
                Ok(place) => return Ok(place),
                Err(taken) => {
                    if timeout_at(deadline, freed.changed()).await.is_err() {
                        return Err(taken);
                    }
                }
            }
        }
    }

    fn own(&self, uid: u32) -> usize {
        let times = usize::from(uid == ROOT) + usize::from(uid == self.0.agent);
        times * self.0.size.own
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how many places a user has, and counts those beyond its own in `of_rest`.
    fn set(&self, held: &mut Held, uid: u32, count: usize) {
        let own = self.own(uid);
        let before = match count {
            0 => held.by_user.remove(&uid),
            _ => held.by_user.insert(uid, count),
        };
        held.of_rest += count.saturating_sub(own);
        held.of_rest -= before.unwrap_or(0).saturating_sub(own);
    }
}

/// Places that a user holds.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    uid: u32,
    count: usize,
}

impl Place {
    /// Takes more places.
    ///
    /// # Errors
    /// [`Taken`]; the user has as many as before.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Taken> {
        let places = &self.places;
        let mut held = places.held();
        let has = held.by_user.get(&self.uid).copied().unwrap_or(0);
        let (before, after) = (
            has.saturating_sub(places.own(self.uid)),
            (has + more).saturating_sub(places.own(self.uid)),
        );
        let left_by_others = places.0.size.rest.saturating_sub(held.of_rest - before);
        if after > before && after.saturating_mul(SHARE) > left_by_others {
            return Err(Taken { held: has });
        }
        places.set(&mut held, self.uid, has + more);
        self.count += more;
        Ok(())
    }

    /// Sets the number of places to what was needed in the end, even beyond the bounds: the number
    /// that was taken was an estimate.
    pub(super) fn becomes(&mut self, count: usize) {
        let mut held = self.places.held();
        let has = held.by_user.get(&self.uid).copied().unwrap_or(0);
        self.places.set(&mut held, self.uid, (has + count).saturating_sub(self.count));
        drop(held);
        let is_less = count < std::mem::replace(&mut self.count, count);
        if is_less {
            self.places.0.freed.send_replace(());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut held = self.places.held();
        let has = held.by_user.get(&self.uid).copied().unwrap_or(0);
        self.places.set(&mut held, self.uid, has.saturating_sub(self.count));
        drop(held);
        self.places.0.freed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGENT: u32 = 990;
    const SIZE: Size = Size { own: 8, rest: 64 };

    /// Takes places until there are no more.
    fn all(places: &Places, uid: u32) -> Vec<Place> {
        std::iter::from_fn(|| places.take(uid, 1).ok()).collect()
    }

    #[test]
    fn one_user_has_a_quarter_and_each_further_one_a_quarter_of_what_is_left() {
        let places = Places::new(SIZE, AGENT);
        let held: Vec<_> = (1000..1005).map(|uid| all(&places, uid)).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [16, 12, 9, 6, 5]);
        assert_eq!(places.take(1000, 1).unwrap_err(), Taken { held: 16 });
        assert!(places.take(1005, 1).is_ok(), "and there is one for who comes next");
    }

    #[test]
    fn root_and_the_agents_user_have_their_own_whoever_has_the_rest() {
        let places = Places::new(SIZE, AGENT);
        let _others: Vec<_> = (1000..1100).map(|uid| all(&places, uid)).collect();
        for uid in [ROOT, AGENT] {
            assert_eq!(all(&places, uid).len(), SIZE.own);
        }
        let alone = Places::new(SIZE, AGENT);
        assert_eq!(all(&alone, ROOT).len(), SIZE.own + SIZE.rest / SHARE);
        let one_user = Places::new(SIZE, ROOT);
        assert_eq!(all(&one_user, ROOT).len(), 2 * SIZE.own + SIZE.rest / SHARE);
    }

    #[test]
    fn a_place_that_cannot_grow_stays_as_it_is() {
        let places = Places::new(SIZE, AGENT);
        let mut place = places.take(1000, 1).unwrap();
        assert_eq!(place.grow(16), Err(Taken { held: 1 }));
        assert_eq!(place.grow(15), Ok(()));
        assert_eq!(place.grow(1), Err(Taken { held: 16 }));
        drop(place);
        assert_eq!(all(&places, 1000).len(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_a_place_once_one_is_given_back_and_not_for_ever() {
        let places = Places::new(SIZE, AGENT);
        let mut held = all(&places, 1000);
        let patience = Duration::from_secs(5);
        let began = Instant::now();
        assert!(places.take_within(patience, 1000, 1).await.is_err());
        assert_eq!(began.elapsed(), patience);
        let waiting = places.clone();
        let waiting = tokio::spawn(async move { waiting.take_within(patience, 1000, 2).await });
        tokio::task::yield_now().await;
        held.truncate(14);
        assert!(waiting.await.unwrap().is_ok());
    }

    proptest! {
        /// The law holds for all sequences of taking and giving back.
        #[test]
        fn nobody_gets_beyond_the_bounds_and_all_is_given_back(
            steps in prop::collection::vec((0..6_u32, 1..20_usize, any::<bool>()), 1..200),
        ) {
            let places = Places::new(SIZE, AGENT);
            let mut open: Vec<Place> = Vec::new();
            for (user, count, takes) in steps {
                let uid = [ROOT, AGENT, 1, 2, 3, 4][user as usize];
                if takes {
                    let mut place = Place { places: places.clone(), uid, count: 0 };
                    if place.grow(count).is_ok() {
                        open.push(place);
                    }
                } else if !open.is_empty() {
                    open.swap_remove(count % open.len());
                }
                if let Some(place) = open.first_mut() {
                    place.becomes(place.count.min(count));
                }
                let held = places.held();
                let of_rest: usize =
                    held.by_user.iter().map(|(uid, has)| has.saturating_sub(places.own(*uid))).sum();
                prop_assert_eq!(held.of_rest, of_rest);
                prop_assert!(of_rest <= SIZE.rest);
                for (uid, has) in &held.by_user {
                    prop_assert!(has.saturating_sub(places.own(*uid)) <= SIZE.rest / SHARE);
                }
            }
            open.clear();
            prop_assert!(places.held().by_user.is_empty() && places.held().of_rest == 0);
        }
    }
}
