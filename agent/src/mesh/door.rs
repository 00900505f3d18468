//! The door gives places to callers that have not shown who they are. The rule is
//! `peerage_proto::door`.
//!
//! Until a caller has shown who it is, by its hello or by an invitation, its place may be given to
//! another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use peerage_proto::door::{Among, Handshakes, Places, Source};

/// Places for handshakes and hellos under way.
const UNPROVEN_MAX: usize = 256;

/// When this many places are taken, a caller must first show that it receives at the address it
/// claims.
const UNPROVEN_TRUSTED_MAX: usize = 64;

/// Places on the join protocol for callers that have not shown a valid invitation.
pub(super) const SILENT_JOINS_MAX: usize = 192;

/// Places of joiners that have shown a valid invitation, and how many of them are served at once.
/// Each of them is sent the whole replica.
const JOINS_MAX: usize = 128;
const SERVED_MAX: usize = 16;

/// How long a joiner may wait for its turn. It waits no longer, since it expects an answer in time,
/// and asks again after a refusal.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// The callers at the door.
#[derive(Debug)]
pub(super) struct Door {
    start: Instant,
    handshakes: Arc<Mutex<Handshakes>>,
    unproven: Arc<Waiting>,
    /// For callers from addresses where members are reached. Strangers take none of these places.
    of_members: Arc<Waiting>,
    silent: Arc<Waiting>,
    joins: Arc<Joins>,
}

/// The places and turns of joiners that have shown a valid invitation.
#[derive(Debug)]
struct Joins {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            handshakes: Arc::new(Mutex::new(Handshakes::new(Duration::ZERO))),
            unproven: Waiting::new(UNPROVEN_MAX),
            of_members: Waiting::new(UNPROVEN_MAX),
            silent: Waiting::new(SILENT_JOINS_MAX),
            joins: Arc::new(Joins {
                places: Arc::new(Semaphore::new(JOINS_MAX)),
                turns: Arc::new(Semaphore::new(SERVED_MAX)),
            }),
        }
    }

    /// Lets one more handshake begin; `None` where it is one too many.
    pub(super) fn enter(
        &self,
        address: IpAddr,
        is_members: impl Fn() -> bool,
    ) -> Option<(Place, Arc<Open>)> {
        let source = Source::from(address);
        let among = lock(&self.handshakes).begin(source, &is_members, self.start.elapsed())?;
        let open = Open { handshakes: self.handshakes.clone(), source, among: Some(among).into() };
        // While there are many strangers, a place among them is soon given to another caller. So a
        // caller from the address of a member first tries the places of members.
        let alone = if is_members() { self.of_members.take(source) } else { None };
        let place = alone.or_else(|| self.unproven.take(source))?;
        Some((place, Arc::new(open)))
    }

    /// Whether a caller from this address must first show that it receives there.
    pub(super) fn is_crowded(&self, address: IpAddr) -> bool {
        let taken = |waiting: &Waiting| waiting.lock().places.taken();
        taken(&self.unproven) + taken(&self.of_members) >= UNPROVEN_TRUSTED_MAX
            || lock(&self.handshakes).is_crowded(address.into())
    }

    /// A place for a caller that asks to join; `None` if there are too many.
    pub(super) fn enter_to_join(&self, address: IpAddr, open: Arc<Open>) -> Option<JoinDoor> {
        let place = self.silent.take(Source::from(address))?;
        Some(JoinDoor { place, joins: self.joins.clone(), open })
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection of a caller that has not shown who it is. It counts as open until the caller has
/// shown that, or until QUIC has forgotten the connection and drops this with its settings.
#[derive(Debug)]
pub(super) struct Open {
    handshakes: Arc<Mutex<Handshakes>>,
    source: Source,
    among: Mutex<Option<Among>>,
}

impl Open {
    /// The caller has shown who it is: its connection counts no longer.
    pub(super) fn prove(&self) {
        if let Some(among) = lock(&self.among).take() {
            lock(&self.handshakes).end(self.source, among);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.prove();
    }
}

/// The callers that have a place. Each has a token that is cancelled when its place is given to
/// another caller.
#[derive(Debug)]
struct Waiting(Mutex<Seats>);

#[derive(Debug)]
struct Seats {
    places: Places,
    ends: HashMap<u64, CancellationToken>,
}

impl Waiting {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Seats { places: Places::new(most), ends: HashMap::new() })))
    }

    fn take(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut seats = self.lock();
        let taken = seats.places.take(source)?;
        if let Some(end) = taken.instead_of.and_then(|place| seats.ends.remove(&place)) {
            end.cancel();
        }
        let given_up = CancellationToken::new();
        seats.ends.insert(taken.place, given_up.clone());
        Some(Place { waiting: self.clone(), place: taken.place, given_up })
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        lock(&self.0)
    }
}

/// The place of a caller that has not shown who it is. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Arc<Waiting>,
    place: u64,
    given_up: CancellationToken,
}

impl Place {
    /// Runs `step` for the caller that holds the place. Answers `None` if the place is given to
    /// another caller meanwhile.
    pub(super) async fn hold<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        self.given_up.run_until_cancelled(step).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.waiting.lock();
        seats.places.leave(self.place);
        seats.ends.remove(&self.place);
    }
}

/// The place of a joiner that has not shown a valid invitation yet. [`JoinDoor::proven`] takes it
/// back and gives the joiner another place.
#[derive(Debug)]
pub struct JoinDoor {
    place: Place,
    joins: Arc<Joins>,
    open: Arc<Open>,
}

/// The place of a joiner that is let in, until this is dropped.
#[derive(Debug)]
pub struct JoinTurn {
    _place: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl JoinDoor {
    /// Is cancelled when the place is given to another before the invitation proves good.
    pub(super) fn given_up(&self) -> CancellationToken {
        self.place.given_up.clone()
    }

    /// The joiner has shown a valid invitation. It gets a place that no stranger takes, and waits
    /// for its turn. `None` if all such places are taken, or if its turn does not come in time.
    pub async fn proven(self) -> Option<JoinTurn> {
        let Self { place, joins, open } = self;
        open.prove();
        let held = joins.places.clone().try_acquire_owned().ok()?;
        drop(place);
        let turn = timeout(TURN_WITHIN, joins.turns.clone().acquire_owned()).await.ok()?.ok()?;
        Some(JoinTurn { _place: held, _turn: turn })
    }
}

#[cfg(test)]
mod tests {
    use peerage_proto::door::OPEN_CROWDED;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// Before this rule, one address could take half of all places, and two addresses could take
    /// all, so that nobody else came in.
    #[tokio::test]
    async fn a_source_that_holds_all_places_gives_way_to_another() {
        let door = Door::new();
        let enter = |n| door.enter(address(n), || false).map(|(place, _)| place);
        let mut inside: Vec<_> = (0..UNPROVEN_MAX).map(|_| enter(1).unwrap()).collect();
        assert!(enter(1).is_none());
        let other = enter(2).unwrap();
        let oldest = inside.remove(0);
        assert!(oldest.hold(std::future::pending::<()>()).await.is_none(), "it is told");
        drop(oldest);
        assert_eq!(door.unproven.lock().places.taken(), UNPROVEN_MAX);
        assert!(other.hold(async {}).await.is_some());
        assert!(door.is_crowded(address(3)));
        drop((inside, other));
        assert_eq!(door.unproven.lock().places.taken(), 0);
        assert!(door.unproven.lock().ends.is_empty());
    }

    /// An agent had grown by 58 MB, because connections that were closed, but not yet forgotten by
    /// QUIC, did not count.
    #[tokio::test]
    async fn a_connection_counts_until_its_caller_is_proven_or_quic_has_forgotten_it() {
        let door = Door::new();
        let enter = || door.enter(address(1), || false).map(|(_, open)| open);
        let mut open: Vec<_> = (0..OPEN_CROWDED).map(|_| enter().unwrap()).collect();
        assert!(enter().is_none(), "their places are given up, and their connections are there");
        open[0].prove();
        let in_quic = open[1].clone();
        open.drain(..2);
        let one_more = enter();
        assert!(one_more.is_some() && enter().is_none(), "one is proven, one is in QUIC");
        drop(in_quic);
        assert!(enter().is_some());
    }

    /// A /56 of IPv6 has as many networks of 64 bits as there are places.
    #[tokio::test]
    async fn where_strangers_of_many_sources_hold_all_places_others_come_in() {
        let door = Door::new();
        let enter = |n: usize, is_member| {
            let address = IpAddr::from([10, 1, (n / 256) as u8, (n % 256) as u8]);
            door.enter(address, || is_member).map(|(place, _)| place)
        };
        let strangers: Vec<_> = (0..UNPROVEN_MAX).map(|n| enter(n, false).unwrap()).collect();
        assert!(enter(0, false).is_none(), "it has as many as anybody");
        assert!(enter(1, true).is_some(), "there are places for where members are reached");
        let newcomer = enter(300, false).unwrap();
        assert!(strangers[0].hold(std::future::pending::<()>()).await.is_none(), "it is told");
        drop((strangers, newcomer));
        assert_eq!(door.unproven.lock().places.taken(), 0);
    }

    /// The place of a member was among those that newcomers take away. At 500 handshakes a second,
    /// each place was given to another caller within half a second, and a member that had just
    /// started was sent away.
    #[tokio::test]
    async fn strangers_of_many_sources_take_no_place_of_a_member() {
        let door = Door::new();
        let enter = |n: usize, is_member| {
            let address = IpAddr::from([10, 1, (n / 256) as u8, (n % 256) as u8]);
            door.enter(address, || is_member).map(|(place, _)| place)
        };
        let mut strangers: Vec<_> = (0..UNPROVEN_MAX / 2).map(|n| enter(n, false)).collect();
        let early = enter(2_000, true).unwrap();
        strangers.extend((UNPROVEN_MAX / 2..UNPROVEN_MAX).map(|n| enter(n, false)));
        let late = enter(2_001, true).unwrap();
        strangers.extend((UNPROVEN_MAX..3 * UNPROVEN_MAX).map(|n| enter(n, false)));
        assert!(strangers.iter().all(Option::is_some), "each stranger comes for the first time");
        assert!(early.hold(async {}).await.is_some() && late.hold(async {}).await.is_some());
        drop((early, late));
        assert_eq!(door.of_members.lock().places.taken(), 0);
    }

    #[tokio::test]
    async fn who_has_shown_an_invitation_takes_no_place_of_the_silent() {
        let door = Door::new();
        let silent = |n| {
            let (_, open) = door.enter(address(n), || false)?;
            door.enter_to_join(address(n), open)
        };
        let waiting: Vec<_> =
            (0..JOINS_MAX).map(|_| tokio::spawn(silent(1).unwrap().proven())).collect();
        while door.joins.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.silent.lock().places.taken(), 0);
        assert_eq!(door.joins.turns.available_permits(), 0);
        assert!(silent(2).unwrap().proven().await.is_none());
        // Those who had to wait get their turn, one after the other.
        for one in waiting {
            assert!(one.await.unwrap().is_some());
        }
        assert!(silent(2).unwrap().proven().await.is_some());
    }
}
