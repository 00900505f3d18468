//! Who may come in before it is known who it is: what bounds strangers, and whom that spares.
//!
//! A caller costs a node about half a millisecond of CPU for the handshake, and a place until it has
//! shown who it is. Both are bounded for each source first, and only then for all, so that nobody
//! keeps others out; and where many sources use up what there is for all, one that has hardly come
//! yet goes before those that come again and again. A [`Source`] is an IPv4 address or an IPv6 /64, the least that one host may
//! have for itself (RFC 6177).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::allowance::{Allowance, Bucket};

/// Handshakes that one source may begin in one second, and at once after a calm.
pub const PER_SOURCE: Allowance = Allowance { per_second: 100.0, burst: 300.0 };

/// Handshakes that all sources may begin in one second, and at once after a calm. Where members are
/// reached has an allowance of the same size for itself.
pub const IN_ALL: Allowance = Allowance { per_second: 400.0, burst: 1000.0 };

/// Handshakes that each source may begin though strangers have used up what there is for all: a
/// source that has hardly come yet comes in, as long as [`FIRST_IN_ALL`] lasts.
pub const FIRST_PER_SOURCE: Allowance = Allowance { per_second: 0.1, burst: 4.0 };

/// How many of these there may be of all sources together.
pub const FIRST_IN_ALL: Allowance = Allowance { per_second: 100.0, burst: 1000.0 };

/// How many sources have an allowance of their own. Beyond, those that have most of theirs left are
/// forgotten first: they would be given it anew.
pub const SOURCES_MAX: usize = 4096;

/// Where a caller comes from, as far as one host has it for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                Self::V6(*address.octets().first_chunk().expect("an address has 16 bytes"))
            }
        }
    }
}

/// What one source has left.
#[derive(Debug, Clone, Copy)]
struct Own {
    all: Bucket,
    first: Bucket,
}

impl Own {
    fn full(now: Duration) -> Self {
        Self { all: Bucket::full(PER_SOURCE, now), first: Bucket::full(FIRST_PER_SOURCE, now) }
    }

    fn refill(&mut self, now: Duration) {
        self.all.refill(PER_SOURCE, now);
        self.first.refill(FIRST_PER_SOURCE, now);
    }

    /// How much of both is left, as a share.
    fn share(&self) -> f64 {
        self.all.share(PER_SOURCE) + self.first.share(FIRST_PER_SOURCE)
    }
}

/// How many handshakes begin: of each source, of all, and of where members are reached.
#[derive(Debug)]
pub struct Handshakes {
    sources: BTreeMap<Source, Own>,
    strangers: Bucket,
    first: Bucket,
    members: Bucket,
}

impl Handshakes {
    /// Nobody has come yet.
    pub fn new(now: Duration) -> Self {
        let full = Bucket::full(IN_ALL, now);
        let first = Bucket::full(FIRST_IN_ALL, now);
        Self { sources: BTreeMap::new(), strangers: full, first, members: full }
    }

    /// Whether one more of that source may begin now. `is_members` tells whether a member is reached
    /// there; it is asked only where that matters.
    pub fn begin(
        &mut self,
        source: Source,
        is_members: impl FnOnce() -> bool,
        now: Duration,
    ) -> bool {
        self.strangers.refill(IN_ALL, now);
        self.first.refill(FIRST_IN_ALL, now);
        self.members.refill(IN_ALL, now);
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            self.forget_the_calm(now);
        }
        let own = self.sources.entry(source).or_insert(Own::full(now));
        own.refill(now);
        if !own.all.has_one() {
            return false;
        }
        let shared = if self.strangers.has_one() {
            &mut self.strangers
        } else if self.members.has_one() && is_members() {
            &mut self.members
        } else if self.first.has_one() && own.first.has_one() {
            &mut self.first
        } else {
            return false;
        };
        own.first.take_at_most_one();
        shared.take() && own.all.take()
    }

    /// Whether so many come, in all or from one source, that a caller should first show that it
    /// receives at the address that it claims (RFC 9000, section 8.1.2): half of a burst is used up.
    /// Who forges another's address uses up no more than that.
    pub fn is_crowded(&self, source: Source) -> bool {
        let own = self.sources.get(&source);
        self.strangers.share(IN_ALL) < 0.5 || own.is_some_and(|own| own.all.share(PER_SOURCE) < 0.5)
    }

    /// Makes room for sources: of those that have most left, half go.
    fn forget_the_calm(&mut self, now: Duration) {
        self.sources.values_mut().for_each(|own| own.refill(now));
        let mut left: Vec<f64> = self.sources.values().map(Own::share).collect();
        left.sort_by(f64::total_cmp);
        let median = left[left.len() / 2];
        self.sources.retain(|_, own| own.share() < median);
    }
}

/// Places for callers that have not shown who they are. Where all are taken, a newcomer is given the
/// oldest place of the sources that hold most, unless its own source holds as many. So many sources
/// that hold one place each keep nobody out: each is left the time that it takes to fill all places
/// anew. Of strangers, no more come in a second than [`IN_ALL`] and [`FIRST_IN_ALL`] let begin
/// together (500), and after a calm their bursts at once; so members have places of their own.
#[derive(Debug)]
pub struct Places {
    most: usize,
    next: u64,
    taken: BTreeMap<u64, Source>,
    of_source: BTreeMap<Source, usize>,
}

/// A place that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The place; later ones are larger.
    pub place: u64,
    /// Whose place was given up for it.
    pub instead_of: Option<u64>,
}

impl Places {
    /// So many places.
    pub fn new(most: usize) -> Self {
        Self { most, next: 0, taken: BTreeMap::new(), of_source: BTreeMap::new() }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes a place for a caller of that source; none where all are taken, and nobody has more of
    /// them than it has.
    pub fn take(&mut self, source: Source) -> Option<Taken> {
        let mut instead_of = None;
        if self.taken.len() >= self.most {
            let own = self.of_source.get(&source).copied().unwrap_or(0);
            let most = self.of_source.values().copied().max()?;
            if most <= own {
                return None;
            }
            let mut theirs =
                self.taken.iter().filter(|(_, source)| self.of_source[*source] == most);
            instead_of = theirs.next().map(|(place, _)| *place);
            self.leave(instead_of?);
        }
        let place = self.next;
        self.next += 1;
        self.taken.insert(place, source);
        *self.of_source.entry(source).or_default() += 1;
        Some(Taken { place, instead_of })
    }

    /// Gives a place up. One that was given up already stays so.
    pub fn leave(&mut self, place: u64) {
        let Some(source) = self.taken.remove(&place) else { return };
        if let Some(held) = self.of_source.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.of_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn source(n: u32) -> Source {
        Source::from(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)))
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8:0:1::5"), of("2001:db8:0:1:ffff::"));
        assert_ne!(of("2001:db8:0:1::5"), of("2001:db8:0:2::5"));
        assert_ne!(of("::"), Source::from(IpAddr::V6(Ipv6Addr::from([1; 16]))));
    }

    /// 400 handshakes a second were one allowance for all: one address used all of it up.
    #[test]
    fn one_source_cannot_use_up_what_all_have() {
        let mut handshakes = Handshakes::new(at(0));
        let mut begin = |n, ms| handshakes.begin(source(n), || false, at(ms));
        let greedy = (0..60_000).filter(|ms| begin(1, *ms)).count();
        assert!((6200..=6400).contains(&greedy), "{greedy}");
        assert!((0..100).all(|n| begin(100 + n, 60_000)), "the others come in all the same");
    }

    #[test]
    fn members_are_let_in_when_strangers_have_used_up_their_allowance() {
        let mut handshakes = Handshakes::new(at(0));
        assert!(!handshakes.is_crowded(source(1)));
        let strangers = (0..5000).filter(|n| handshakes.begin(source(*n), || false, at(0))).count();
        assert_eq!(strangers, (IN_ALL.burst + FIRST_IN_ALL.burst) as usize);
        assert!(handshakes.is_crowded(source(9999)));
        let members = (5000..9000).filter(|n| handshakes.begin(source(*n), || true, at(0))).count();
        assert_eq!(members, IN_ALL.burst as usize);
        assert!(handshakes.sources.len() <= SOURCES_MAX);
    }

    /// 200 addresses used up what there is for all, and who came with an invitation was turned away.
    #[test]
    fn who_has_hardly_come_yet_goes_before_many_that_come_again_and_again() {
        let mut handshakes = Handshakes::new(at(0));
        let mut turned_away = 0;
        for ms in 0..60_000 {
            for n in 0..5 {
                let again = source(((ms * 5 + n) % 200) as u32);
                turned_away += u64::from(!handshakes.begin(again, || false, at(ms)));
            }
            if ms % 100 == 99 {
                let newcomer = source(1_000 + ms as u32);
                assert!(handshakes.begin(newcomer, || false, at(ms)), "at {ms} ms");
            }
        }
        assert!(turned_away > 200_000, "{turned_away}");
    }

    #[test]
    fn of_many_sources_those_are_remembered_that_come_often() {
        let mut handshakes = Handshakes::new(at(0));
        while handshakes.begin(source(0), || true, at(0)) {}
        for n in 1..20_000 {
            handshakes.begin(source(n), || true, at(1));
        }
        assert!(!handshakes.begin(source(0), || true, at(1)));
        assert!(handshakes.sources.len() <= SOURCES_MAX);
    }

    #[test]
    fn where_all_places_are_taken_the_source_with_most_gives_up_its_oldest() {
        let mut places = Places::new(4);
        let of = |places: &mut Places, n| places.take(source(n));
        let first: Vec<u64> = (0..4).map(|_| of(&mut places, 1).unwrap().place).collect();
        assert_eq!(of(&mut places, 1), None, "it takes none from itself");
        assert_eq!(of(&mut places, 2).unwrap().instead_of, Some(first[0]));
        assert_eq!(of(&mut places, 3).unwrap().instead_of, Some(first[1]));
        assert_eq!(of(&mut places, 1), None);
        assert_eq!(of(&mut places, 4).unwrap().instead_of, Some(first[2]));
        places.leave(first[0]);
        assert_eq!(places.taken(), 4, "it was given up before");
        places.leave(first[3]);
        assert_eq!(of(&mut places, 5).unwrap().instead_of, None);
    }

    /// Where as many addresses as there are places held one each, nobody else ever got one.
    #[test]
    fn where_each_source_holds_one_place_the_oldest_is_given_to_a_newcomer() {
        let mut places = Places::new(4);
        let first: Vec<u64> = (0..4).map(|n| places.take(source(n)).unwrap().place).collect();
        assert_eq!(places.take(source(3)), None, "it has as many as anybody");
        for (n, oldest) in first.iter().enumerate() {
            let taken = places.take(source(10 + n as u32)).unwrap();
            assert_eq!(taken.instead_of, Some(*oldest));
        }
        assert_eq!(places.taken(), 4);
    }

    proptest! {
        #[test]
        fn places_are_never_more_than_there_are_and_counted_right(
            steps in prop::collection::vec((0u32..5, any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let mut places = Places::new(7);
            let mut held: Vec<u64> = Vec::new();
            for (n, leaves, which) in steps {
                if leaves && !held.is_empty() {
                    places.leave(held.swap_remove(which.index(held.len())));
                } else if let Some(taken) = places.take(source(n)) {
                    held.retain(|place| Some(*place) != taken.instead_of);
                    held.push(taken.place);
                }
                prop_assert_eq!(places.taken(), held.len());
                prop_assert!(held.len() <= 7);
                prop_assert_eq!(places.of_source.values().sum::<usize>(), held.len());
            }
        }
    }
}
