//! Who may come in before it is known who it is: what bounds strangers, and whom that spares.
//!
//! A caller costs a node about half a millisecond of CPU for the handshake, and a place until it has
//! shown who it is. Both are bounded for each source first, and only then for all, so that nobody
//! keeps others out. A [`Source`] is an IPv4 address or an IPv6 /64, the least that one host may
//! have for itself (RFC 6177).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Handshakes that one source may begin in one second, and at once after a calm.
pub const PER_SOURCE: Allowance = Allowance { per_second: 100, burst: 300 };

/// Handshakes that all sources may begin in one second, and at once after a calm. Where members are
/// reached has an allowance of the same size for itself.
pub const IN_ALL: Allowance = Allowance { per_second: 400, burst: 1000 };

/// How many sources have an allowance of their own. Beyond, those that have most of theirs left are
/// forgotten first: they would be given it anew.
pub const SOURCES_MAX: usize = 4096;

/// How many handshakes may begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In one second.
    pub per_second: u32,
    /// At once, after a calm.
    pub burst: u32,
}

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

/// What is left of an allowance.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Duration,
}

impl Bucket {
    fn full(of: Allowance, now: Duration) -> Self {
        Self { left: of.burst.into(), at: now }
    }

    fn refill(&mut self, of: Allowance, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * f64::from(of.per_second)).min(of.burst.into());
        self.at = now;
    }
}

/// How many handshakes begin: of each source, of all, and of where members are reached.
#[derive(Debug)]
pub struct Handshakes {
    sources: BTreeMap<Source, Bucket>,
    strangers: Bucket,
    members: Bucket,
}

impl Handshakes {
    /// Nobody has come yet.
    pub fn new(now: Duration) -> Self {
        let full = Bucket::full(IN_ALL, now);
        Self { sources: BTreeMap::new(), strangers: full, members: full }
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
        self.members.refill(IN_ALL, now);
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            self.forget_the_calm(now);
        }
        let fresh = Bucket::full(PER_SOURCE, now);
        let own = self.sources.entry(source).or_insert(fresh);
        own.refill(PER_SOURCE, now);
        if own.left < 1.0 {
            return false;
        }
        let shared = match self.strangers.left >= 1.0 {
            true => &mut self.strangers,
            false if self.members.left >= 1.0 && is_members() => &mut self.members,
            false => return false,
        };
        shared.left -= 1.0;
        own.left -= 1.0;
        true
    }

    /// Whether so many come, in all or from one source, that a caller should first show that it
    /// receives at the address that it claims (RFC 9000, section 8.1.2): half of a burst is used up.
    /// Who forges another's address uses up no more than that.
    pub fn is_crowded(&self, source: Source) -> bool {
        let own = self.sources.get(&source);
        self.strangers.left < f64::from(IN_ALL.burst) / 2.0
            || own.is_some_and(|own| own.left < f64::from(PER_SOURCE.burst) / 2.0)
    }

    /// Makes room for sources: of those that have most left, half go.
    fn forget_the_calm(&mut self, now: Duration) {
        self.sources.values_mut().for_each(|bucket| bucket.refill(PER_SOURCE, now));
        let mut left: Vec<f64> = self.sources.values().map(|bucket| bucket.left).collect();
        left.sort_by(f64::total_cmp);
        let median = left[left.len() / 2];
        self.sources.retain(|_, bucket| bucket.left < median);
    }
}

/// Places for callers that have not shown who they are. Where all are taken, a newcomer is given the
/// oldest place of the source that holds most, unless its own source holds as many.
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
    /// them than it would have.
    pub fn take(&mut self, source: Source) -> Option<Taken> {
        let mut instead_of = None;
        if self.taken.len() >= self.most {
            let own = self.of_source.get(&source).copied().unwrap_or(0);
            let (greedy, _) = self.of_source.iter().max_by_key(|(_, held)| **held)?;
            if self.of_source[greedy] <= own + 1 {
                return None;
            }
            let mut theirs = self.taken.iter().filter(|(_, source)| *source == greedy);
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
        assert_eq!(strangers, IN_ALL.burst as usize);
        assert!(handshakes.is_crowded(source(9999)));
        let members = (5000..9000).filter(|n| handshakes.begin(source(*n), || true, at(0))).count();
        assert_eq!(members, IN_ALL.burst as usize);
        assert!(handshakes.sources.len() <= SOURCES_MAX);
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
        assert_eq!(of(&mut places, 5), None, "nobody has more than it would have");
        places.leave(first[0]);
        assert_eq!(places.taken(), 4, "it was given up before");
        places.leave(first[3]);
        assert_eq!(of(&mut places, 5).unwrap().instead_of, None);
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
