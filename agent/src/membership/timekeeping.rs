//! Compares this node's wall clock with those of its peers, tells how it stands, and keeps a node
//! whose clock is far off from writing.
//!
//! Every hello carries a clock, and a few peers are asked for theirs once a minute. When this
//! host's clock is set, which the monotonic clock shows, all measurements are void and the peers
//! are asked at once: so writes that were refused are possible again within a round trip after the
//! clock was put right.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_proto::id::NodeId;
use peerage_proto::notice::{NoticeKind, State};
use peerage_proto::skew::{ClockOff, Estimate, Level, Off, Skew};
use peerage_proto::time::{HowLong, Now};
use peerage_proto::wire::{ClockReading, StreamKind};
use rand::RngExt;
use rand::seq::IndexedRandom;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{debug, info};

use super::inbound::Lent;
use super::tasks::Tasks;
use super::vitals::VitalsHandle;
use crate::host::clock::Clock;
use crate::mesh::{self, Mesh, PeerStatus, Session, read_frame, write_answer};
use crate::notices::Notices;
use crate::replica::ReplicaHandle;

/// How often a few peers are asked for their clock.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// How many peers are asked at once.
const ASKED_MAX: usize = 5;

/// How long a peer may take to answer; a slow answer tells little of the time.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How often this node looks whether its own clock was set, and the smallest step that counts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SET_BY_MS: u64 = 300;

/// How many measurements may wait to be taken in; more are lost, and made again.
const MEASUREMENTS_MAX: usize = 64;

/// What to do about a clock that is off.
pub const CLOCK_HINT: &str = "set the clock of this host: `timedatectl set-ntp true`, or \
                              `chronyc makestep`; nothing else needs to be done";

/// How this node's clock stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockStanding {
    /// Against its peers; `None` where none was measured.
    pub estimate: Option<Estimate>,
    /// Whether this node warns, or refuses writes, because of that.
    pub level: Level,
}

impl ClockStanding {
    /// How far the clock is off, where it is so far off that nothing is written by it.
    pub fn refused(&self) -> Option<ClockOff> {
        let estimate = self.estimate.filter(|_| self.level == Level::Refusing)?;
        Some(ClockOff { estimate })
    }

    /// What the operator should know; `None` where all is well.
    pub fn warning(&self) -> Option<String> {
        let off = self.estimate.map(|estimate| ClockOff { estimate })?;
        match self.level {
            Level::Good => None,
            Level::Warned if off.estimate.peers == 1 => {
                Some(format!("{off}: one of the two is wrong"))
            }
            Level::Warned => Some(off.to_string()),
            Level::Refusing => Some(format!("{off}: nothing is written here until it is right")),
        }
    }
}

/// Some peers' clocks, as they were measured.
#[derive(Debug)]
struct Measurements {
    /// How far each peer's clock is ahead of this node's.
    ahead_ms: Vec<(NodeId, i64)>,
    /// How often this node's own clock had been set when the clocks were compared.
    era: u64,
    /// Whether these are all the answers to a question of this node, to be judged at once.
    is_round: bool,
}

/// What is told how this node's clock stands: the watchers of `standing`, the other members by the
/// vitals, the replica, which writes by no clock that is far off, and the operator.
pub(super) struct Listeners {
    pub(super) standing: watch::Sender<ClockStanding>,
    pub(super) vitals: VitalsHandle,
    pub(super) replica: ReplicaHandle,
    pub(super) notices: Notices,
}

impl Listeners {
    /// Tells all of them how the clock stands now.
    fn tell(&self, now: ClockStanding) {
        self.standing.send_replace(now);
        self.vitals.tell(|own| {
            own.clock_ahead_ms = now.estimate.map(|estimate| estimate.ahead_ms);
        });
        self.replica.refuse_writes(now.refused());
        let state = now.warning().map(|warning| State::new(warning, CLOCK_HINT));
        let is_refusing = u8::from(now.level == Level::Refusing);
        self.notices.set(NoticeKind::Clock, state.map(|state| state.grade(is_refusing)));
    }
}

/// The task that compares the clocks, with all it needs.
pub(super) struct Timekeeper {
    mesh: Mesh,
    members: watch::Receiver<BTreeSet<NodeId>>,
    clock: Clock,
    skew: Skew,
    era: u64,
    listeners: Listeners,
    tasks: Tasks,
    measured: mpsc::Sender<Measurements>,
    measurements: mpsc::Receiver<Measurements>,
}

impl Timekeeper {
    /// A timekeeper that compares `clock` with those of the other `members`.
    pub(super) fn new(
        mesh: Mesh,
        members: watch::Receiver<BTreeSet<NodeId>>,
        clock: Clock,
        listeners: Listeners,
        tasks: Tasks,
    ) -> Self {
        let (measured, measurements) = mpsc::channel(MEASUREMENTS_MAX);
        let (skew, era) = (Skew::default(), 0);
        Self { mesh, members, clock, skew, era, listeners, tasks, measured, measurements }
    }

    /// Keeps time, and answers peers that ask for this node's clock, until the membership ends.
    pub(super) async fn run(mut self, questions: Lent<Session>) {
        let mut questions = questions.lock().await;
        let mut events = self.mesh.events();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut offset_ms = offset_ms(self.clock.now());
        let mut ask_at = Instant::now() + ASK_EVERY;
        for status in self.mesh.peers() {
            self.learn(&status);
        }
        loop {
            tokio::select! {
                Some(Measurements { ahead_ms, era, is_round }) = self.measurements.recv() => {
                    if era == self.era {
                        ahead_ms.into_iter().for_each(|(peer, ahead_ms)| self.take(peer, ahead_ms));
                        if is_round {
                            self.judge();
                        }
                    }
                }
                event = events.recv() => match event {
                    Ok(mesh::Event::Connected { peer, .. }) => {
                        let status = self.mesh.peer(peer);
                        status.iter().for_each(|status| self.learn(status));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                question = questions.recv() => match question {
                    Some(question) => self.answer(question),
                    None => return,
                },
                _ = looks.tick() => {
                    let before = std::mem::replace(&mut offset_ms, self::offset_ms(self.clock.now()));
                    let was_set = before.abs_diff(offset_ms) >= SET_BY_MS;
                    if was_set {
                        let by_ms = offset_ms - before;
                        let way = if by_ms < 0 { "back" } else { "forward" };
                        let by = HowLong::ms(by_ms.unsigned_abs());
                        info!("the clock of this host was set {way} by {by}");
                        self.era += 1;
                        self.skew.was_set();
                    }
                    if was_set || Instant::now() >= ask_at {
                        ask_at = Instant::now() + ASK_EVERY.mul_f64(rand::rng().random_range(0.8..1.2));
                        let peers = self.mesh.peers();
                        let asked = peers.sample(&mut rand::rng(), ASKED_MAX);
                        self.ask(asked.map(|status| status.peer).collect());
                    }
                    // Measurements from questions of peers come in one by one, so they are judged
                    // once per tick.
                    self.judge();
                }
            }
        }
    }

    /// Takes in the peer's clock as the hellos at the start of the connection told it. Where the
    /// hellos had to wait and so tell nothing, the peer is asked instead.
    fn learn(&mut self, status: &PeerStatus) {
        match status.clock_ahead_ms {
            Some(ahead_ms) => self.take(status.peer, ahead_ms),
            None => self.ask(vec![status.peer]),
        }
    }

    fn take(&mut self, peer: NodeId, ahead_ms: i64) {
        self.skew.measured(peer, ahead_ms, self.clock.now().mono);
    }

    /// Tells what follows from the measurements, where that has changed.
    fn judge(&mut self) {
        let level = self.skew.judge(&self.members.borrow(), self.clock.now().mono);
        let before = *self.listeners.standing.borrow();
        // While there is no new estimate, the one that led to the level stands.
        let stale = before.estimate.filter(|_| level != Level::Good);
        let now = ClockStanding { estimate: self.skew.estimate().or(stale), level };
        if now != before {
            self.listeners.tell(now);
        }
    }

    /// Asks these peers for their clocks, each once.
    fn ask(&self, asked: Vec<NodeId>) {
        let (mesh, clock) = (self.mesh.clone(), self.clock);
        let (measured, era) = (self.measured.clone(), self.era);
        self.tasks.spawn(async move {
            let asking = asked.into_iter().map(|peer| {
                let mesh = mesh.clone();
                async move { Some((peer, look_at(&mesh, peer, clock).await?)) }
            });
            let answers = futures_util::future::join_all(asking).await;
            let ahead_ms = answers.into_iter().flatten().collect();
            // If the queue is full, these answers are lost, and the next round brings new ones.
            let _ = measured.try_send(Measurements { ahead_ms, era, is_round: true });
        });
    }

    /// Answers a peer that asks for this node's clock, and measures the peer's clock by its
    /// question.
    fn answer(&self, question: Session) {
        let Session { from, mut send, mut recv } = question;
        let way = self.mesh.peer(from).map_or(Duration::ZERO, |peer| peer.rtt / 2);
        let (clock, measured, era) = (self.clock, self.measured.clone(), self.era);
        self.tasks.spawn(async move {
            let kind = StreamKind::Clock;
            let exchange = async {
                let question = read_frame(&mut recv, kind.frame_bytes_max()).await?;
                let now = clock.now();
                let answer = ClockReading { wall_ms: now.wall_ms };
                write_answer(&mut send, kind, &answer.encode()).await?;
                // An empty question carries no clock: it only asks whether this node is alive.
                let theirs = question.and_then(|q| ClockReading::decode(&q).ok());
                Ok::<_, mesh::FrameError>(
                    theirs.map(|t| ahead_ms(answer, t.wall_ms, way).saturating_neg()),
                )
            };
            match timeout(ANSWER_MAX, exchange).await {
                Ok(Ok(Some(ahead_ms))) => {
                    let ahead_ms = vec![(from, ahead_ms)];
                    let _ = measured.try_send(Measurements { ahead_ms, era, is_round: false });
                }
                Ok(Ok(None)) => {}
                other => debug!(peer = %from.short(), ?other, "a look at the clock broke off"),
            }
        });
    }
}

/// How far the clock of a peer is ahead; `None` where it does not tell.
async fn look_at(mesh: &Mesh, peer: NodeId, clock: Clock) -> Option<i64> {
    let asked = clock.now();
    let question = ClockReading { wall_ms: asked.wall_ms }.encode();
    let answer = mesh.ask(peer, StreamKind::Clock, &question, ANSWER_MAX).await;
    let (answer, took) = answer.ok()?;
    let theirs = ClockReading::decode(&answer).ok()?;
    Some(ahead_ms(theirs, asked.wall_ms, took / 2))
}

/// How far a clock that was read `later` than ours is ahead of it.
fn ahead_ms(theirs: ClockReading, ours_ms: u64, later: Duration) -> i64 {
    let ahead = i128::from(theirs.wall_ms) - i128::from(ours_ms) - later.as_millis() as i128;
    ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// What the wall clock shows beyond the monotonic one: it changes when the clock is set.
fn offset_ms(now: Now) -> i64 {
    now.wall_ms as i64 - now.mono.as_millis() as i64
}

/// A member's clock in words; `None` where it is near enough.
pub fn member_warning(ahead_ms: i64) -> Option<String> {
    let is_off = ahead_ms.unsigned_abs() >= peerage_proto::skew::WARN_AT.as_millis() as u64;
    is_off.then(|| format!("its clock is {} the others'; set it there (NTP)", Off(ahead_ms)))
}
