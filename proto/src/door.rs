//! Bounds for callers that have not yet shown who they are, and what members and newcomers keep
//! although other callers use these bounds up.
//!
//! A caller costs a node about half a millisecond of CPU for the handshake, and a place until it
//! has shown who it is. Handshakes and places are bounded for each source first, and only then for
//! all sources together, so that no source keeps others out. Where many sources use up the common
//! bound, a source that has hardly called yet goes before those that call again and again. A
//! [`Source`] is an IPv4 address or an IPv6 /64, the smallest part that one host may have for
//! itself (RFC 6177).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::allowance::{Allowance, Bucket};

/// Handshakes that one source may begin in one second, and at once after a pause.
pub const PER_SOURCE: Allowance = Allowance { per_second: 100.0, burst: 300.0 };

/// Handshakes that all sources may begin together in one second, and at once after a pause. Sources
/// where members are reached have an allowance of the same size in addition.
pub const IN_ALL: Allowance = Allowance { per_second: 400.0, burst: 1000.0 };

/// Handshakes that each source may begin although strangers have used up [`IN_ALL`], so that a
/// source that has hardly called yet is let in as long as [`FIRST_IN_ALL`] lasts.
pub const FIRST_PER_SOURCE: Allowance = Allowance { per_second: 0.1, burst: 4.0 };

/// Such handshakes of all sources together.
pub const FIRST_IN_ALL: Allowance = Allowance { per_second: 100.0, burst: 1000.0 };

/// How many connections may be open at once of callers that have not shown who they are. A
/// connection that was closed counts until QUIC has forgotten it. That takes three probe timeouts
/// (RFC 9000, section 10.2), so the caller decides how long, by how slowly it answers. Each connection
/// costs some 65 kB of memory.
pub const OPEN_MAX: usize = 384;

/// How many of these connections are kept for sources that have hardly called yet.
pub const OPEN_FOR_FIRST: usize = 96;

/// The same bound for callers from sources where members are reached. It is higher, since all members
/// may start at once.
pub const OPEN_OF_MEMBERS_MAX: usize = 1024;

/// While this many connections are open, one network may have no more than [`OPEN_EACH_MAX`]: a few
/// networks cannot use up what is left. A network is an IPv4 address or an IPv6 /48, the largest part
/// that one site usually has (RFC 6177).
pub const OPEN_CROWDED: usize = 256;

/// See [`OPEN_CROWDED`].
pub const OPEN_EACH_MAX: usize = 8;

/// How many sources are remembered with an allowance of their own. Where there are more, the
/// sources that have most of their allowance left are forgotten first, since they lose nothing when
/// they get a new one.
pub const SOURCES_MAX: usize = 4096;

/// Where a caller comes from: the smallest part of the address space that one host may have for
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl Source {
    /// What one site has for itself: an IPv4 address, or the first 48 bits of an IPv6 address.
    fn network(self) -> Self {
        match self {
            Self::V4(_) => self,
            Self::V6([a, b, c, d, e, f, ..]) => Self::V6([a, b, c, d, e, f, 0, 0]),
        }
    }
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

    /// How much of both allowances is left, as the sum of the two shares.
    fn share(&self) -> f64 {
        self.all.share(PER_SOURCE) + self.first.share(FIRST_PER_SOURCE)
    }
}

/// Bounds how many handshakes begin: of each source, of all sources together, and of sources where
/// members are reached; and how many connections are open of callers that have not shown who they are.
#[derive(Debug)]
pub struct Handshakes {
    sources: BTreeMap<Source, Own>,
    strangers: Bucket,
    first: Bucket,
    members: Bucket,
    open_of_strangers: Open,
    open_of_members: Open,
}

/// The connections that are open of callers that have not shown who they are, by their networks.
#[derive(Debug, Default)]
struct Open {
    /// Invariant: the sum of `of_network`.
    all: usize,
    of_network: BTreeMap<Source, usize>,
}

impl Open {
    /// Whether one more connection of this source may be open, where there may be so many.
    fn has_room(&self, source: Source, most: usize) -> bool {
        let own = self.of_network.get(&source.network()).copied().unwrap_or(0);
        self.all < most && (self.all < OPEN_CROWDED || own < OPEN_EACH_MAX)
    }

    fn enter(&mut self, source: Source) {
        self.all += 1;
        *self.of_network.entry(source.network()).or_default() += 1;
    }

    fn leave(&mut self, source: Source) {
        if let Some(own) = self.of_network.get_mut(&source.network()) {
            self.all -= 1;
            *own -= 1;
            if *own == 0 {
                self.of_network.remove(&source.network());
            }
        }
    }
}

/// Which callers a connection counts to, until its caller has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Callers from anywhere.
    Strangers,
    /// Callers from where members are reached.
    Members,
}

impl Handshakes {
    /// The bounds when no caller has come yet.
    pub fn new(now: Duration) -> Self {
        let full = Bucket::full(IN_ALL, now);
        let first = Bucket::full(FIRST_IN_ALL, now);
        Self {
            sources: BTreeMap::new(),
            strangers: full,
            first,
            members: full,
            open_of_strangers: Open::default(),
            open_of_members: Open::default(),
        }
    }

    /// Lets one more handshake of this source begin now, and counts its connection as open until
    /// [`Handshakes::end`] is called for it; `None` where it is one too many. `is_members` tells
    /// whether a member is reached at this source; it is called only where that matters.
    pub fn begin(
        &mut self,
        source: Source,
        is_members: impl FnOnce() -> bool,
        now: Duration,
    ) -> Option<Among> {
        self.strangers.refill(IN_ALL, now);
        self.first.refill(FIRST_IN_ALL, now);
        self.members.refill(IN_ALL, now);
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            self.forget_the_calm(now);
        }
        let own = self.sources.entry(source).or_insert(Own::full(now));
        own.refill(now);
        if !own.all.has_one() {
            return None;
        }
        let room = |most| self.open_of_strangers.has_room(source, most);
        let (shared, among) = if self.strangers.has_one() && room(OPEN_MAX - OPEN_FOR_FIRST) {
            (&mut self.strangers, Among::Strangers)
        } else if self.members.has_one()
            && self.open_of_members.has_room(source, OPEN_OF_MEMBERS_MAX)
            && is_members()
        {
            (&mut self.members, Among::Members)
        } else if self.first.has_one() && own.first.has_one() && room(OPEN_MAX) {
            (&mut self.first, Among::Strangers)
        } else {
            return None;
        };
        shared.take();
        own.all.take();
        own.first.take_at_most_one();
        self.open(among).enter(source);
        Some(among)
    }

    /// QUIC has forgotten a connection that began here, or its caller has shown who it is.
    pub fn end(&mut self, source: Source, among: Among) {
        self.open(among).leave(source);
    }

    fn open(&mut self, among: Among) -> &mut Open {
        match among {
            Among::Strangers => &mut self.open_of_strangers,
            Among::Members => &mut self.open_of_members,
        }
    }

    /// Whether half of a burst is used up, by all sources or by this one, or a quarter of the
    /// connections that may be open. Then a caller should first show that it receives packets at the address that it claims (RFC 9000, section 8.1.2),
    /// so that a caller that forges the address of another host uses up no more than that half.
    pub fn is_crowded(&self, source: Source) -> bool {
        let own = self.sources.get(&source);
        self.strangers.share(IN_ALL) < 0.5
            || own.is_some_and(|own| own.all.share(PER_SOURCE) < 0.5)
            || self.open_of_strangers.all + self.open_of_members.all >= OPEN_MAX / 4
    }

    /// Makes room for new sources: forgets the half of them that has most of its allowance left.
    fn forget_the_calm(&mut self, now: Duration) {
        self.sources.values_mut().for_each(|own| own.refill(now));
        let mut left: Vec<f64> = self.sources.values().map(Own::share).collect();
        left.sort_by(f64::total_cmp);
        let median = left[left.len() / 2];
        self.sources.retain(|_, own| own.share() < median);
    }
}

/// Places for callers that have not shown who they are. Where all are taken, a newcomer is given
/// the oldest place of the sources that hold most places, unless its own source holds as many. So
/// many sources that hold one place each do not keep others out: each keeps its place for the time
/// in which all places are filled anew. In one second [`IN_ALL`] and [`FIRST_IN_ALL`] let 500
/// handshakes of strangers begin, and after a pause their bursts at once. That could take all
/// places again and again, so members have places of their own.
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
    /// The number of the place; a place that was taken later has a larger one.
    pub place: u64,
    /// The place that was given up for it.
    pub instead_of: Option<u64>,
}

impl Places {
    /// No place of `most` is taken.
    pub fn new(most: usize) -> Self {
        Self { most, next: 0, taken: BTreeMap::new(), of_source: BTreeMap::new() }
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Takes a place for a caller of this source; `None` where all are taken and no source holds
    /// more of them than this one.
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

    /// Gives a place up. Nothing happens if it was given up already.
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

    /// Begins a handshake, and is gone at once.
    fn shakes(
        handshakes: &mut Handshakes,
        source: Source,
        is_members: bool,
        now: Duration,
    ) -> bool {
        let begun = handshakes.begin(source, || is_members, now);
        if let Some(among) = begun {
            handshakes.end(source, among);
        }
        begun.is_some()
    }

    /// A caller chooses how long QUIC remembers a connection that was closed: 2,000 that came at once,
    /// or 400 a second, were all remembered, and an agent grew by 58 MB.
    #[test]
    fn connections_of_strangers_are_bounded_until_quic_has_forgotten_them() {
        let mut handshakes = Handshakes::new(at(0));
        let mut begin = |n, is_member| handshakes.begin(source(n), || is_member, at(0));
        let of_one = (0..290).filter(|_| begin(1, false).is_some()).count();
        assert_eq!(of_one, OPEN_CROWDED);
        let of_two = (0..290).filter(|_| begin(2, false).is_some()).count();
        assert_eq!(of_two, OPEN_EACH_MAX, "a few networks cannot use up what is left");
        let of_many = (0..2_000).filter(|n| begin(10 + n % 320, false).is_some()).count();
        assert_eq!(of_one + of_two + of_many, OPEN_MAX);
        assert_eq!(begin(5_000, true), Some(Among::Members));
        handshakes.end(source(1), Among::Strangers);
        assert!(handshakes.begin(source(5_001), || false, at(0)).is_some());
        assert!(handshakes.begin(source(5_002), || false, at(0)).is_none());
    }

    /// Forged addresses hold their connections open for as long as they make a round trip seem, and
    /// give their places up at once: nobody was asked to show that it receives at its address.
    #[test]
    fn where_a_quarter_of_the_connections_is_open_a_caller_shows_its_address_first() {
        let mut handshakes = Handshakes::new(at(0));
        for n in 0..OPEN_MAX / 4 {
            assert!(!handshakes.is_crowded(source(9_000)), "{n}");
            let ms = at(n as u64 * 1_000);
            assert!(handshakes.begin(source(n as u32), || false, ms).is_some());
        }
        assert!(handshakes.is_crowded(source(9_000)));
    }

    #[test]
    fn connections_of_one_ipv6_site_count_together() {
        let mut handshakes = Handshakes::new(at(0));
        let host =
            |site: u16, n: u16| Source::from(IpAddr::from([0x2001, 0xdb8, site, n, 0, 0, 0, 1]));
        let of_one = (0..300).filter(|n| handshakes.begin(host(1, *n), || false, at(0)).is_some());
        assert_eq!(of_one.count(), OPEN_CROWDED);
        assert!(handshakes.begin(host(2, 0), || false, at(0)).is_some());
        handshakes.end(host(1, 9), Among::Strangers);
        assert_eq!(handshakes.open_of_strangers.all, OPEN_CROWDED);
    }

    #[test]
    fn a_source_that_comes_for_the_first_time_has_room_beside_many_that_come_again() {
        let mut handshakes = Handshakes::new(at(0));
        let mut held = Vec::new();
        for n in 0..1_000 {
            let among = handshakes.begin(source(n % 50), || false, at(0));
            held.extend(among.map(|among| (source(n % 50), among)));
        }
        assert_eq!(held.len(), OPEN_MAX - OPEN_FOR_FIRST);
        assert!(handshakes.begin(source(9_000), || false, at(0)).is_some());
        assert!(handshakes.begin(source(0), || false, at(0)).is_none());
        for (source, among) in held {
            handshakes.end(source, among);
        }
        assert_eq!(handshakes.open_of_strangers.all, 1);
        assert_eq!(handshakes.open_of_strangers.of_network.len(), 1);
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

    /// All sources shared one allowance of 400 handshakes a second, and one address used all of it
    /// up.
    #[test]
    fn one_source_cannot_use_up_what_all_have() {
        let mut handshakes = Handshakes::new(at(0));
        let mut begin = |n, ms| shakes(&mut handshakes, source(n), false, at(ms));
        let greedy = (0..60_000).filter(|ms| begin(1, *ms)).count();
        assert!((6200..=6400).contains(&greedy), "{greedy}");
        assert!((0..100).all(|n| begin(100 + n, 60_000)), "the others come in all the same");
    }

    #[test]
    fn members_are_let_in_when_strangers_have_used_up_their_allowance() {
        let mut handshakes = Handshakes::new(at(0));
        assert!(!handshakes.is_crowded(source(1)));
        let strangers =
            (0..5000).filter(|n| shakes(&mut handshakes, source(*n), false, at(0))).count();
        assert_eq!(strangers, (IN_ALL.burst + FIRST_IN_ALL.burst) as usize);
        assert!(handshakes.is_crowded(source(9999)));
        let members =
            (5000..9000).filter(|n| shakes(&mut handshakes, source(*n), true, at(0))).count();
        assert_eq!(members, IN_ALL.burst as usize);
        assert!(handshakes.sources.len() <= SOURCES_MAX);
    }

    /// 200 addresses used up the common allowance, and a joiner with an invitation was turned away.
    #[test]
    fn who_has_hardly_come_yet_goes_before_many_that_come_again_and_again() {
        let mut handshakes = Handshakes::new(at(0));
        let mut turned_away = 0;
        for ms in 0..60_000 {
            for n in 0..5 {
                let again = source(((ms * 5 + n) % 200) as u32);
                turned_away += u64::from(!shakes(&mut handshakes, again, false, at(ms)));
            }
            if ms % 100 == 99 {
                let newcomer = source(1_000 + ms as u32);
                assert!(shakes(&mut handshakes, newcomer, false, at(ms)), "at {ms} ms");
            }
        }
        assert!(turned_away > 200_000, "{turned_away}");
    }

    #[test]
    fn of_many_sources_those_are_remembered_that_come_often() {
        let mut handshakes = Handshakes::new(at(0));
        while shakes(&mut handshakes, source(0), true, at(0)) {}
        for n in 1..20_000 {
            shakes(&mut handshakes, source(n), true, at(1));
        }
        assert!(!shakes(&mut handshakes, source(0), true, at(1)));
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

    /// Where as many addresses as there are places held one place each, no other caller ever got
    /// one.
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
