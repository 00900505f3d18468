//! Joining a Data Center, on the side of the joiner.
//!
//! The seeds of the Join Information are asked in turn until one answers. What it sends is kept in
//! memory until the admission has come; then all of it goes to disk in one commit. If joining fails
//! before that commit, this node is as it was before; after it, this node is a member.

use std::fmt;
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::admission::exchange::{JoinerFrame, MemberFrame};
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::{JoinRequest, prove};
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::invitation::{Invitation, JoinInformation, Secret, Seed};
use peerage_proto::links::canonical;
use peerage_proto::replica::sync::{FRAME_BYTES_MAX, verified};
use peerage_proto::replica::{Limits, Outputs, Replica};
use peerage_proto::roster::Roster;
use peerage_proto::time::HowLong;
use peerage_proto::wire::WIRE_VERSION;
use quinn::{Connection, RecvStream, SendStream};
use rand::RngExt;
use serde_bytes::ByteBuf;
use tokio::time::{Instant, timeout};

use crate::admission::binding;
use crate::host::clock::Clock;
use crate::mesh::{read_frame, too_narrow, write_frame};
use crate::store::{Store, StoreError};

/// How long one address of a seed is tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the seed may take for its next frame; in between the seed asks other members and dials
/// this node back.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);

/// For how long seeds that are busy, or that hang up in the middle, are asked again: many hosts may
/// be joining at once.
const BUSY_FOR: Duration = Duration::from_secs(30);

/// The waits in between, in milliseconds, drawn anew each time so that many joiners do not ask in
/// step.
const BUSY_WAIT_MS: std::ops::Range<u64> = 50..500;

/// How often a seed is dialled again that has no room for one more caller, before the next seed.
const FULL_TRIES: usize = 8;

/// How many bytes the admission and what the agent keeps of its own may take at most.
const ROOM_FOR_THE_ADMISSION: usize = 64 * 1024;

/// Why joining failed. This node is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No seed answers.
    #[error("no seed of the Join Information can be reached; tried for {}: {}", HowLong(*.after), .tried.join("; "))]
    Unreachable {
        /// Each address with what came of it.
        tried: Vec<String>,
        /// How long it took.
        after: Duration,
    },
    /// A seed answered and said no.
    #[error("{member} refused: {refusal}")]
    Refused {
        /// The seed.
        member: String,
        /// Its cause.
        refusal: Refusal,
    },
    /// A seed answered, and then fell silent or said what makes no sense.
    #[error("joining broke off: {0}")]
    BrokeOff(String),
    /// The disk does not take what a seed sent. The seed has not admitted this node, since this
    /// node did not say that it is ready.
    #[error("this node cannot keep what {seed} sent: {error}")]
    Disk {
        /// The seed.
        seed: String,
        /// What came of it.
        error: StoreError,
    },
}

impl JoinError {
    /// Whether another seed may let this node in although this one did not.
    fn is_of_one_seed(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_of_this_member(),
            Self::BrokeOff(_) => true,
            Self::Unreachable { .. } | Self::Disk { .. } => false,
        }
    }

    /// Whether the same seed may let this node in a moment later.
    fn is_busy(&self) -> bool {
        matches!(self, Self::BrokeOff(_) | Self::Refused { refusal: Refusal::Busy(_), .. })
    }

    /// How much this error tells, compared with the errors of other seeds.
    fn weight(&self) -> u8 {
        match self {
            Self::Refused { refusal, .. } => refusal.weight(),
            Self::BrokeOff(_) | Self::Unreachable { .. } | Self::Disk { .. } => {
                Refusal::Busy(String::new()).weight()
            }
        }
    }
}

/// A round of the seeds in which none let this node in.
struct Declined {
    /// The error that tells the most.
    error: JoinError,
    /// Whether one of the seeds may let this node in a moment later.
    may_pass: bool,
}

impl Declined {
    fn and(self, next: Self) -> Self {
        let may_pass = self.may_pass || next.may_pass;
        let error = if next.error.weight() >= self.error.weight() { next } else { self }.error;
        Self { error, may_pass }
    }
}

/// What a joiner holds once it is admitted, to be put on disk in one commit.
#[derive(Debug)]
pub struct Admission {
    /// The replica, with everything merged.
    pub replica: Replica,
    /// What to commit.
    pub outputs: Outputs,
    /// The name of the seed that admitted.
    pub seed: String,
}

/// The node that asks to be let in.
#[derive(Debug, Clone)]
pub struct Joiner {
    /// Its key.
    pub key: Keypair,
    /// The name that it asks for.
    pub name: String,
    /// Where it is reached.
    pub addresses: Vec<Address>,
    /// Its version.
    pub version: String,
    /// Whether it takes its name over from a member that is gone.
    pub replace: bool,
    /// What its replica keeps.
    pub limits: Limits,
    /// Where the replica is to be kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
}

/// Dials on the join protocol.
pub trait Dialler: Send + Sync {
    /// Connects with a node at an address, or where a name leads; whoever answers there must hold the
    /// node's key.
    fn dial(
        &self,
        node: NodeId,
        address: Address,
    ) -> impl Future<Output = Result<Connection, NotDialled>> + Send;
}

/// Why a dial led to no connection.
#[derive(Debug)]
pub enum NotDialled {
    /// A host answered that it has no room for one more caller just now.
    Full,
    /// Anything else, in words.
    Failed(String),
}

impl fmt::Display for NotDialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("it has no room for more callers just now, try again"),
            Self::Failed(cause) => f.write_str(cause),
        }
    }
}

impl Joiner {
    /// Asks the seeds of an invitation to be let in.
    ///
    /// # Errors
    /// [`JoinError`]; nothing has changed here, and the same string can be used again.
    pub async fn join(
        &self,
        information: &JoinInformation,
        secret: &Secret,
        dialler: &impl Dialler,
    ) -> Result<Admission, JoinError> {
        let until = Instant::now() + BUSY_FOR;
        loop {
            let declined = match self.ask_all(information, secret, dialler).await {
                Ok(admission) => return Ok(admission),
                Err(declined) => declined,
            };
            if !declined.may_pass || Instant::now() > until {
                return Err(declined.error);
            }
            let wait = rand::rng().random_range(BUSY_WAIT_MS);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    async fn ask_all(
        &self,
        information: &JoinInformation,
        secret: &Secret,
        dialler: &impl Dialler,
    ) -> Result<Admission, Declined> {
        let start = Instant::now();
        let mut tried = Vec::new();
        let mut declined: Option<Declined> = None;
        for seed in &information.invitation.terms().seeds {
            let Some(connection) = reach(seed, dialler, &mut tried).await else { continue };
            let outcome = self.ask(&information.invitation, secret, &connection).await;
            connection.close(0u32.into(), b"done");
            let error = match outcome {
                Ok(admission) => return Ok(admission),
                Err(error) => error,
            };
            // If only this seed, or only this moment, stands in the way, another seed may let this
            // node in. A seed that answers for another Data Center has left this one or was removed
            // from it.
            if !error.is_of_one_seed() {
                return Err(Declined { may_pass: false, error });
            }
            let next = Declined { may_pass: error.is_busy(), error };
            declined = Some(match declined {
                Some(before) => before.and(next),
                None => next,
            });
        }
        Err(declined.unwrap_or_else(|| Declined {
            may_pass: false,
            error: JoinError::Unreachable { tried, after: start.elapsed() },
        }))
    }

    async fn ask(
        &self,
        invitation: &Invitation,
        secret: &Secret,
        connection: &Connection,
    ) -> Result<Admission, JoinError> {
        let refused = |refusal| JoinError::Refused { member: "this node".into(), refusal };
        let binding = binding(connection).map_err(refused)?;
        let (terms, me) = (invitation.terms(), self.key.node_id());
        let request = JoinRequest {
            terms: invitation.body().to_vec(),
            terms_signature: invitation.signature().to_vec(),
            proof: prove(terms, &secret.key(), me, &self.name, &binding).to_vec(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            version: self.version.clone(),
            wire_version: WIRE_VERSION,
            wall_ms: self.clock.now().wall_ms,
            replace: self.replace,
        };
        let (mut send, mut recv) =
            connection.open_bi().await.map_err(|e| JoinError::BrokeOff(e.to_string()))?;
        write(&mut send, &JoinerFrame::Request(request)).await?;
        let name_of_seed = seed_name(connection);
        let seed = match read(&mut recv).await? {
            MemberFrame::Welcome { member } => member,
            other => return Err(unexpected(other, &name_of_seed)),
        };
        let mut replica = Replica::new(terms.datacenter, self.key.clone(), self.limits.clone());
        let mut outputs = Outputs::default();
        loop {
            match read(&mut recv).await? {
                MemberFrame::Changes(changes) => self.merge(&mut replica, &mut outputs, changes)?,
                MemberFrame::Done(vector) => {
                    outputs.extend(replica.absorb(&vector));
                    break;
                }
                other => return Err(unexpected(other, &seed)),
            }
        }
        // Once a seed has let this node in, it is a member, whatever becomes of it. So the disk is
        // tried before.
        let tried = self.store.try_out(replica.bytes() + ROOM_FOR_THE_ADMISSION).await;
        tried.map_err(|error| JoinError::Disk { seed: seed.clone(), error })?;
        write(&mut send, &JoinerFrame::Ready).await?;
        match read(&mut recv).await? {
            MemberFrame::Admitted(changes) => self.merge(&mut replica, &mut outputs, changes)?,
            other => return Err(unexpected(other, &seed)),
        }
        if !Roster::of(&replica).is_current(&me) {
            return Err(JoinError::BrokeOff(format!("{seed} sent no admission of this node")));
        }
        Ok(Admission { replica, outputs, seed })
    }

    fn merge(
        &self,
        replica: &mut Replica,
        outputs: &mut Outputs,
        changes: Vec<ByteBuf>,
    ) -> Result<(), JoinError> {
        let changes = verified(changes).map_err(|e| JoinError::BrokeOff(e.to_string()))?;
        for change in changes {
            outputs.extend(replica.merge(change, false, self.clock.now()));
        }
        match outputs.untaken {
            true => Err(JoinError::BrokeOff("the seed left out values that show".to_owned())),
            false => Ok(()),
        }
    }
}

/// Tries a seed's addresses, all at once.
async fn reach(seed: &Seed, dialler: &impl Dialler, tried: &mut Vec<String>) -> Option<Connection> {
    let dial = |address: Address| async move {
        // If no address of a name answers, the dialler itself ends first, and tells to which
        // addresses the name led. So a name gets more time.
        let patience = if address.ip().is_some() { DIAL_TIMEOUT } else { 2 * DIAL_TIMEOUT };
        let mut full = 0..FULL_TRIES;
        let dialling = async {
            loop {
                match dialler.dial(seed.node, address.clone()).await {
                    // Its room is used up by strangers, and becomes free all the time.
                    Err(NotDialled::Full) if full.next().is_some() => {
                        let wait = rand::rng().random_range(BUSY_WAIT_MS);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                    dialled => return dialled,
                }
            }
        };
        let dialled = timeout(patience, dialling).await;
        let silent = || format!("no answer within {}", HowLong(DIAL_TIMEOUT));
        let why = || address.ip().and_then(too_narrow).unwrap_or_else(silent);
        let dialled = dialled.unwrap_or_else(|_| Err(NotDialled::Failed(why())));
        (address.canonical(), dialled)
    };
    let mut dialling: futures_util::stream::FuturesUnordered<_> =
        seed.addresses.iter().cloned().map(dial).collect();
    while let Some((address, outcome)) = futures_util::StreamExt::next(&mut dialling).await {
        match outcome {
            Ok(connection) => return Some(connection),
            Err(cause) => tried.push(format!("{address}: {cause}")),
        }
    }
    None
}

fn seed_name(connection: &Connection) -> String {
    format!("the node at {}", canonical(connection.remote_address()))
}

fn unexpected(frame: MemberFrame, member: &str) -> JoinError {
    match frame {
        MemberFrame::Refused(refusal) => JoinError::Refused { member: member.to_owned(), refusal },
        _ => JoinError::BrokeOff(format!("{member} said something out of turn")),
    }
}

async fn write(send: &mut SendStream, frame: &JoinerFrame) -> Result<(), JoinError> {
    let bytes = frame.encode();
    let written = timeout(FRAME_TIMEOUT, write_frame(send, &bytes, FRAME_BYTES_MAX)).await;
    let written = written.map_err(|_| JoinError::BrokeOff("the seed takes nothing in".into()))?;
    written.map_err(|e| JoinError::BrokeOff(e.to_string()))
}

async fn read(recv: &mut RecvStream) -> Result<MemberFrame, JoinError> {
    let broke = |cause: String| JoinError::BrokeOff(cause);
    let frame = timeout(FRAME_TIMEOUT, read_frame(recv, FRAME_BYTES_MAX)).await;
    let frame = frame.map_err(|_| broke("the seed fell silent".into()))?;
    let frame = frame.map_err(|e| broke(e.to_string()))?;
    let frame = frame.ok_or_else(|| broke("the seed hung up".into()))?;
    MemberFrame::decode(&frame).map_err(|e| broke(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn declined(error: JoinError) -> Declined {
        Declined { may_pass: error.is_busy(), error }
    }

    fn refused(refusal: Refusal) -> JoinError {
        JoinError::Refused { member: "pve-1".into(), refusal }
    }

    /// The error of the last seed was shown, however little it told, and a busy seed was asked
    /// again only if it was the last one.
    #[test]
    fn of_what_several_seeds_said_the_most_telling_is_shown_and_the_busy_are_asked_again() {
        let clock_off = || refused(Refusal::ClockOff { ahead_ms: 1, member: "pve-1".into() });
        let elsewhere =
            || refused(Refusal::WrongDataCenter { wanted: "a".into(), found: None, ended: None });
        let broke_off = || JoinError::BrokeOff("the seed hung up".into());
        for [less, more] in [[broke_off(), clock_off()], [elsewhere(), broke_off()]] {
            let (less, more) = (declined(less), declined(more));
            let told = more.error.to_string();
            let both = less.and(more);
            assert_eq!((both.error.to_string(), both.may_pass), (told, true));
        }
        let both = declined(clock_off()).and(declined(broke_off()));
        assert!(both.error.to_string().contains("clock") && both.may_pass, "{}", both.error);
        assert!(!declined(clock_off()).and(declined(elsewhere())).may_pass);
    }

    /// Has no room for callers a few times, and then does not answer.
    struct FullFor(AtomicUsize);

    impl Dialler for FullFor {
        async fn dial(&self, _: NodeId, _: Address) -> Result<Connection, NotDialled> {
            let left = self.0.load(Ordering::Relaxed);
            self.0.store(left.wrapping_sub(1), Ordering::Relaxed);
            Err(if left > 0 { NotDialled::Full } else { NotDialled::Failed("silent".into()) })
        }
    }

    /// Strangers used up the room of the only seed for a moment, and the joiner said that it could not
    /// be reached.
    #[tokio::test(start_paused = true)]
    async fn a_seed_without_room_is_dialled_again_a_few_times() {
        let seed =
            Seed { node: NodeId([1; 32]), addresses: vec!["10.0.0.1:4747".parse().unwrap()] };
        for (full, told) in [(3, "silent"), (FULL_TRIES, "silent"), (FULL_TRIES + 1, "no room")] {
            let (dialler, mut tried) = (FullFor(full.into()), Vec::new());
            assert!(reach(&seed, &dialler, &mut tried).await.is_none());
            assert!(tried[0].contains(told), "{full}: {tried:?}");
        }
    }
}
