//! Letting a node in, on the side of the member that is asked.
//!
//! The rules are in [`peerage_proto::admission`]; here is what they need to know of the world: how
//! often other members used an invitation, and whether the joiner can be dialled back. Nothing is
//! written before the joiner says that it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_proto::address::Address;
use peerage_proto::admission::exchange::{
    JoinerFrame, LISTED_MAX, MemberFrame, UsesAnswer, UsesQuestion,
};
use peerage_proto::admission::invitation::{Invitation, Terms};
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::{
    Binding, JoinRequest, Judge, Judged, REQUEST_BYTES_MAX, judge, uses_left,
};
use peerage_proto::door::Source;
use peerage_proto::id::{DataCenterId, InviteId, NodeId};
use peerage_proto::replica::sync::{FRAME_BYTES_MAX, chunks};
use peerage_proto::replica::{Actor, Replica, Vector};
use peerage_proto::roster::{Roster, invite_path, member_path};
use peerage_proto::skew::ClockOff;
use peerage_proto::wire::{StreamKind, WIRE_VERSION};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::admission::past::Past;
use crate::host::clock::Clock;
use crate::mesh::{FrameError, JoinDoor, joining_binding, read_frame, write_answer, write_frame};
use crate::repeats::Lines;
use crate::replica::{Edits, ReplicaHandle, Untransacted, Views, WriteFailure};
use crate::resolver::Resolver;

use super::dialling_back::reach;

/// How long a stranger may take to say what it wants, and to take in a refusal: few are served at
/// once.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the joiner may take for its next frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long other members may take to say how often an invitation was used.
const USES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an admission under way counts as a use of its invitation.
const PENDING_FOR: Duration = Duration::from_secs(30);

/// Who is told to have removed a member that was replaced.
const REPLACED_BY: &str = "join --replace";

/// What ties a proof to this connection.
///
/// # Errors
/// [`Refusal::Busy`] where the TLS session gives no keying material.
pub fn binding(connection: &Connection) -> Result<Binding, Refusal> {
    let none = || Refusal::Busy("the connection gives no keying material".into());
    joining_binding(connection).ok_or_else(none)
}

/// What admitting needs of the mesh.
pub trait Surroundings: Send + Sync + 'static {
    /// Dials a node at an address from a port that it has not seen, as a stranger would, and hangs
    /// up.
    fn dial_back(
        &self,
        node: NodeId,
        address: SocketAddr,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Asks a member how often an invitation was used; none where it does not answer.
    fn ask_uses(
        &self,
        member: NodeId,
        question: UsesQuestion,
    ) -> impl Future<Output = Option<UsesAnswer>> + Send;

    /// The members that are believed to be alive, without this node.
    fn alive(&self) -> BTreeSet<NodeId>;

    /// How far this node's own clock is off, where it is known to be wrong.
    fn clock_off(&self) -> Option<ClockOff>;

    /// Where an agent with this member's key is alive as that member; none where none shows itself.
    fn lives(&self, member: NodeId) -> impl Future<Output = Option<String>> + Send;

    /// Whether a member is there, as far as can be told: it is called if nothing speaks for it.
    fn presence(&self, member: NodeId) -> impl Future<Output = Presence> + Send;
}

/// Whether a member is there, of which a joiner says that it takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is down, and stays silent when it is called.
    Gone,
    /// It is not there, but may be back in a moment: what is known of it.
    Lately(String),
    /// It is there: what shows it.
    There(String),
}

/// The admissions that are under way, as uses of their invitations.
#[derive(Debug, Default)]
pub struct Pending {
    invites: Mutex<BTreeMap<InviteId, BTreeMap<NodeId, Instant>>>,
    /// Those that are being served here, from where, and how many times.
    served: Mutex<BTreeMap<NodeId, (SocketAddr, usize)>>,
}

impl Pending {
    /// Notes that a node is about to be admitted; tells which others are, of the same invitation.
    fn note(&self, invite: InviteId, joiner: NodeId) -> Vec<NodeId> {
        let now = Instant::now();
        let mut invites = self.invites.lock().unwrap_or_else(PoisonError::into_inner);
        for joiners in invites.values_mut() {
            joiners.retain(|_, until| *until > now);
        }
        invites.retain(|_, joiners| !joiners.is_empty());
        let joiners = invites.entry(invite).or_default();
        joiners.insert(joiner, now + PENDING_FOR);
        joiners.keys().filter(|node| **node != joiner).take(LISTED_MAX).copied().collect()
    }

    /// Begins to serve a joiner; `None` while another host with its key is being served, which may be
    /// a copy of it. One that asks again from where it did is the same.
    fn serve(&self, joiner: NodeId, remote: SocketAddr) -> Option<Served<'_>> {
        let mut served = self.served();
        let (first, times) = served.entry(joiner).or_insert((remote, 0));
        let is_the_same = *first == remote;
        *times += usize::from(is_the_same);
        is_the_same.then(|| Served { pending: self, joiner })
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<NodeId, (SocketAddr, usize)>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets one that is over.
    fn forget(&self, invite: InviteId, joiner: NodeId) {
        let mut invites = self.invites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joiners) = invites.get_mut(&invite) {
            joiners.remove(&joiner);
        }
    }
}

/// A joiner that is being served, until this is dropped.
struct Served<'a> {
    pending: &'a Pending,
    joiner: NodeId,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut served = self.pending.served();
        if let Some((_, times)) = served.get_mut(&self.joiner) {
            *times -= 1;
            if *times == 0 {
                served.remove(&self.joiner);
            }
        }
    }
}

/// Forgets an admission under way when it is over, however it ended.
struct Forgotten<'a> {
    pending: &'a Pending,
    invite: InviteId,
    joiner: NodeId,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.pending.forget(self.invite, self.joiner);
    }
}

/// The member that admits.
pub struct Admitter<S> {
    /// This node.
    pub me: NodeId,
    /// Its Data Center.
    pub datacenter: DataCenterId,
    /// Its replica.
    pub replica: ReplicaHandle,
    /// The mesh.
    pub surroundings: Arc<S>,
    /// Where names lead.
    pub names: Resolver,
    /// The admissions under way here or asked about here.
    pub pending: Arc<Pending>,
    /// What was said of those who were not admitted.
    pub refusals: Arc<Refusals>,
    /// The time.
    pub clock: Clock,
}

/// Lines about joiners that were not admitted: from where, and why.
pub type Refusals = Lines<(Source, &'static str)>;

/// Why an exchange ended without an admission and without a refusal that could be told.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The joiner hung up, or the network did.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The joiner fell silent or said something out of turn.
    #[error("the joiner {0}")]
    Joiner(&'static str),
    /// This node could not do its part.
    #[error(transparent)]
    Own(#[from] WriteFailure),
}

/// What a joiner asks for, and what its proof is tied to.
#[derive(Clone)]
struct Asks {
    request: JoinRequest,
    joiner: NodeId,
    binding: Binding,
    /// From where its packets come.
    remote: SocketAddr,
}

/// Why an admission stopped: said to the joiner, or not.
enum Stop {
    Refused(Refusal),
    Failed(AdmissionError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<AdmissionError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl<S: Surroundings> Admitter<S> {
    /// Serves one joiner to its admission or refusal.
    ///
    /// # Errors
    /// [`AdmissionError`], where even a refusal could not be told.
    pub async fn serve(
        &self,
        connection: &Connection,
        joiner: NodeId,
        at_door: JoinDoor,
    ) -> Result<(), AdmissionError> {
        let (mut send, mut recv) = in_time(connection.accept_bi()).await??;
        let (request, binding) = match first_request(connection, &mut recv).await? {
            Ok(request) => request,
            Err(refusal) => return refuse(&mut send, refusal).await,
        };
        let Some(_served) = self.pending.serve(joiner, connection.remote_address()) else {
            let cause = "another host with this node's key is just being let in".to_owned();
            return refuse(&mut send, Refusal::Busy(cause)).await;
        };
        let asks = Asks { request, joiner, binding, remote: connection.remote_address() };
        match self.admit(&mut send, &mut recv, &asks, at_door).await {
            Ok(judged) => {
                info!(name = %judged.name, node = %joiner.short(), "admitted");
                // The joiner closes once it has the last frame on disk.
                let _ = timeout(FRAME_TIMEOUT, connection.closed()).await;
                Ok(())
            }
            Err(Stop::Refused(refusal)) => {
                let source = Source::from(connection.remote_address().ip());
                if let Some(repeated) = self.refusals.come((source, refusal.code())) {
                    let (name, node) = (&asks.request.name, joiner.short());
                    info!(name, %node, cause = %refusal, "not admitted{repeated}");
                }
                refuse(&mut send, refusal).await
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn admit(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
        asks: &Asks,
        at_door: JoinDoor,
    ) -> Result<Judged, Stop> {
        let joiner = asks.joiner;
        let judged = self.judge(asks)?;
        let busy = || Refusal::Busy("as many nodes as can are being let in just now".to_owned());
        let _turn = at_door.proven().await.ok_or_else(busy)?;
        let _pending = Forgotten { pending: &self.pending, invite: judged.terms.invite, joiner };
        if judged.already {
            self.check_copy(joiner).await?;
        } else {
            self.check_uses(&judged.terms, joiner).await?;
        }
        self.check_gone(&judged).await?;
        let seen = self.check_reachable(asks).await?;
        let member = self.roster().name_of(&self.me);
        write(send, &MemberFrame::Welcome { member }).await?;
        let (changes, vector) =
            self.replica.read(|replica| replica.delta(&Vector::default())).await?;
        for changes in chunks(&changes) {
            write(send, &MemberFrame::Changes(changes)).await?;
        }
        write(send, &MemberFrame::Done(vector)).await?;
        if read(recv).await? != JoinerFrame::Ready {
            return Err(AdmissionError::Joiner("said something out of turn").into());
        }
        if !judged.already {
            // Once more, right before the write: another member may have let someone in meanwhile.
            self.check_uses(&judged.terms, joiner).await?;
            self.check_gone(&judged).await?;
        }
        let judged = self.write_admission(judged, asks, &seen).await?;
        // With the end of the one that it replaces, so that it sees the name to be its own.
        let records = [Some(joiner), judged.replaces].map(|node| node.map(|id| member_path(&id)));
        let admission = self.replica.read(move |replica| {
            let documents = records.iter().flatten().filter_map(|path| replica.document(path));
            let history = documents.flat_map(|document| document.history());
            history.map(|(change, _)| change.clone()).collect::<Vec<_>>()
        });
        let changes = chunks(&admission.await?).flatten().collect();
        write(send, &MemberFrame::Admitted(changes)).await?;
        let _ = send.finish();
        Ok(judged)
    }

    fn roster(&self) -> Arc<Roster> {
        self.replica.views().borrow().roster.clone()
    }

    fn judge(&self, asks: &Asks) -> Result<Judged, Refusal> {
        self.bench().judge(&self.roster(), asks)
    }

    /// What a verdict needs beside the roster, as of now.
    fn bench(&self) -> Bench {
        Bench {
            me: self.me,
            datacenter: self.datacenter,
            wall_ms: self.clock.now().wall_ms,
            clock_off: self.surroundings.clock_off(),
        }
    }

    /// Asks the members alive, so that an invitation is not used twice at once.
    async fn check_uses(&self, terms: &Terms, joiner: NodeId) -> Result<(), Refusal> {
        let question = UsesQuestion { invite: terms.invite, joiner };
        let mut asked = self.surroundings.alive();
        if terms.strict && terms.issuer != self.me {
            asked.insert(terms.issuer);
        } else if terms.uses.is_none() {
            return Ok(());
        }
        let mut asking = tokio::task::JoinSet::new();
        for member in asked {
            let surroundings = self.surroundings.clone();
            asking.spawn(async move {
                let answer = timeout(USES_TIMEOUT, surroundings.ask_uses(member, question)).await;
                (member, answer.ok().flatten())
            });
        }
        let own = answer_uses(&self.roster(), &self.pending, question);
        let mut answers = vec![(self.me, Some(own))];
        while let Some(Ok(answer)) = asking.join_next().await {
            answers.push(answer);
        }
        let silent = |(member, answer): &(NodeId, Option<UsesAnswer>)| {
            *member == terms.issuer && answer.is_none()
        };
        if terms.strict && answers.iter().any(silent) {
            return Err(Refusal::IssuerSilent { issuer: terms.issuer_name.clone() });
        }
        let answers: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer).collect();
        if answers.iter().any(|answer| answer.revoked) {
            return Err(Refusal::Revoked);
        }
        let admitted = answers.iter().flat_map(|answer| &answer.admitted).copied();
        let mut used: BTreeSet<_> = admitted.filter(|id| *id != joiner).collect();
        uses_left(terms, used.len())?;
        // Of two that are let in at once the one with the lower id goes first, on every member. It
        // may still fail, so that the other is told to come again rather than that all is used.
        used.extend(answers.iter().flat_map(|a| &a.pending).filter(|id| **id < joiner));
        uses_left(terms, used.len()).map_err(|_| {
            Refusal::Busy("other nodes are just being let in by the same Join Information".into())
        })
    }

    /// Who is a member already may ask again after a crash; but if an agent with its key is alive as
    /// that member, this is another host, with a copy of its key.
    async fn check_copy(&self, joiner: NodeId) -> Result<(), Refusal> {
        let place = match joiner == self.me {
            true => Some("on the host that was asked".to_owned()),
            false => self.surroundings.lives(joiner).await,
        };
        let name = self.roster().name_of(&joiner);
        place.map_or(Ok(()), |place| Err(Refusal::Copy { name, place }))
    }

    /// A member is replaced only where it is gone: looked at, and called, by a node that is not
    /// itself the one that is cut off.
    async fn check_gone(&self, judged: &Judged) -> Result<(), Refusal> {
        let Some(holder) = judged.replaces else { return Ok(()) };
        let presence = match holder == self.me {
            true => Presence::There("it is the node that was asked".to_owned()),
            false => self.surroundings.presence(holder).await,
        };
        let roster = self.roster();
        let (name, short) = (judged.name.to_string(), holder.short());
        let why = match presence {
            Presence::There(why) => {
                let addresses = roster.member(&holder).map(|member| member.addresses.as_slice());
                let addresses = addresses.unwrap_or_default().iter().map(Address::to_string);
                let addresses = addresses.collect();
                return Err(Refusal::NotGone { name, holder: short, why, addresses });
            }
            Presence::Lately(why) => why,
            Presence::Gone => {
                let others = roster.others(self.me).filter(|other| *other != holder).count();
                let alive = self.surroundings.alive().len();
                // Of two halves that do not see each other, neither replaces anybody.
                if others == 0 || alive * 2 > others {
                    return Ok(());
                }
                format!(
                    "{} sees only {alive} of {others} other members, so it cannot tell; `peerage \
                     remove` takes out those that are gone",
                    roster.name_of(&self.me)
                )
            }
        };
        Err(Refusal::MaybeGone { name, holder: short, why })
    }

    /// Dials the joiner back; tells where it answered beside the addresses that it told.
    async fn check_reachable(&self, asks: &Asks) -> Result<Vec<SocketAddr>, Refusal> {
        let Asks { request, joiner, remote, .. } = asks;
        let (surroundings, joiner) = (self.surroundings.clone(), *joiner);
        let dial = move |address| {
            let surroundings = surroundings.clone();
            async move { surroundings.dial_back(joiner, address).await }
        };
        let reached = reach(&request.addresses, *remote, &self.names, dial).await;
        let shown = |at: &Address| at.clone().canonical().to_string();
        reached.map_err(|cause| Refusal::Unreachable {
            member: self.roster().name_of(&self.me),
            addresses: request.addresses.iter().map(shown).collect(),
            cause,
        })
    }

    /// Judges once more and writes, with nothing in between: so two joiners cannot take one name
    /// here. `seen` is where it was reached beside the addresses that it told.
    async fn write_admission(
        &self,
        judged: Judged,
        asks: &Asks,
        seen: &[SocketAddr],
    ) -> Result<Judged, Stop> {
        let (bench, asks, replaces) = (self.bench(), asks.clone(), judged.replaces);
        let seen = seen.to_vec();
        let actor = Actor { who: judged.terms.issuer_name.clone(), via: "join".into() };
        let decide = move |_: &Replica, views: &Views| {
            let judged = bench.judge(&views.roster, &asks)?;
            if judged.replaces != replaces {
                // Its name changed hands meanwhile, and whether this one is gone nobody looked.
                return Err(Refusal::Busy("the name is just being given to another".into()));
            }
            let edits = bench.admitting(&views.roster, &judged, &asks, &seen);
            Ok((judged, edits))
        };
        let written = self.replica.transact(actor, false, decide).await;
        let (judged, _) = written.map_err(|why| match why {
            Untransacted::Decided(refusal) => Stop::Refused(refusal),
            Untransacted::Failed(failure) => Stop::Failed(AdmissionError::Own(failure)),
        })?;
        if let Some(replaced) = judged.replaces {
            info!(name = %judged.name, old = %replaced.short(), "replaced");
        }
        Ok(judged)
    }
}

/// What a verdict needs beside the roster.
struct Bench {
    me: NodeId,
    datacenter: DataCenterId,
    wall_ms: u64,
    clock_off: Option<ClockOff>,
}

impl Bench {
    fn judge(&self, roster: &Roster, asks: &Asks) -> Result<Judged, Refusal> {
        let member = Judge {
            me: self.me,
            name: &roster.name_of(&self.me),
            datacenter: self.datacenter,
            roster,
            wire_version: WIRE_VERSION,
            wall_ms: self.wall_ms,
            clock_off: self.clock_off,
        };
        judge(&member, &asks.request, asks.joiner, &asks.binding)
    }

    /// What an admission writes: the invitation where it is not on record, the end of the member that
    /// is replaced, and the admission.
    fn admitting(
        &self,
        roster: &Roster,
        judged: &Judged,
        asks: &Asks,
        seen: &[SocketAddr],
    ) -> Edits {
        let Asks { request, joiner, .. } = asks;
        // Also who is a member already is admitted anew: it may have left, which this node need not
        // have heard yet, and the later of the two holds.
        // It used up the invitation that it was first let in by, and no other.
        let member = roster.member(joiner).filter(|member| member.is_current());
        let invite = member.map_or(Some(judged.terms.invite), |member| member.invite);
        let (by, at_ms) = (self.me, self.wall_ms);
        let edit = roster.admission(joiner, &judged.name, &request.addresses, by, invite, at_ms);
        let edit = roster.seen_at(joiner, seen, edit);
        let mut edits = Edits::new();
        if let Some(invitation) = not_on_record(roster, request) {
            let path = invite_path(&invitation.terms().invite);
            edits.push((path, Roster::inviting(&invitation)));
        }
        let edit = match &judged.replaces {
            Some(replaced) => {
                edits.push((member_path(replaced), Roster::removal(by, REPLACED_BY, at_ms)));
                roster.in_place_of(replaced, edit)
            }
            None => edit,
        };
        edits.push((member_path(joiner), edit));
        edits
    }
}

/// The invitation of a request, where nobody here has heard of it: its issuer may be gone with the
/// record that it made, and all are to know how many it admits.
fn not_on_record(roster: &Roster, request: &JoinRequest) -> Option<Invitation> {
    let signature = request.terms_signature.as_slice().try_into().ok()?;
    let invitation = Invitation::verify(&request.terms, signature).ok()?;
    let record = roster.invite(&invitation.terms().invite);
    record.is_none_or(|record| record.terms.is_none()).then_some(invitation)
}

/// Answers another member's question, and notes that it is about to admit.
pub fn answer_uses(roster: &Roster, pending: &Pending, question: UsesQuestion) -> UsesAnswer {
    let admitted = roster.admitted_with(&question.invite).take(LISTED_MAX).collect();
    let revoked = roster.invite(&question.invite).is_some_and(|record| record.revoked);
    let pending = pending.note(question.invite, question.joiner);
    UsesAnswer { admitted, pending, revoked }
}

/// Answers the question that a member asks on a stream.
///
/// # Errors
/// [`AdmissionError`].
pub async fn answer(
    roster: &Roster,
    pending: &Pending,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), AdmissionError> {
    let bound = StreamKind::InviteUses.frame_bytes_max();
    let frame = within(read_frame(recv, bound)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("asked nothing"))?;
    let question = UsesQuestion::decode(&frame)
        .map_err(|_| AdmissionError::Joiner("asked what does not read"))?;
    let answer = answer_uses(roster, pending, question).encode();
    Ok(within(write_answer(send, StreamKind::InviteUses, &answer)).await??)
}

/// Tells a joiner that this node belongs to no Data Center, and how it came to be out of the one
/// that is looked for.
///
/// # Errors
/// [`AdmissionError`].
pub async fn refuse_as_standalone(
    connection: &Connection,
    past: Option<Arc<Past>>,
) -> Result<(), AdmissionError> {
    let (mut send, mut recv) = in_time(connection.accept_bi()).await??;
    let invitation = match first_request(connection, &mut recv).await? {
        Ok((request, _)) => {
            let signature = request.terms_signature.try_into().unwrap_or([0; 64]);
            Invitation::verify(&request.terms, &signature).ok()
        }
        Err(refusal) => return refuse(&mut send, refusal).await,
    };
    let terms = invitation.as_ref().map(Invitation::terms);
    let wanted = terms.map_or_else(|| "another".into(), |terms| terms.datacenter_name.clone());
    let past = past.filter(|past| terms.is_some_and(|terms| terms.datacenter == past.datacenter));
    let ended = past.map(|past| past.how.clone());
    refuse(&mut send, Refusal::WrongDataCenter { wanted, found: None, ended }).await
}

type FirstRequest = Result<(JoinRequest, Binding), Refusal>;

async fn first_request(
    connection: &Connection,
    recv: &mut RecvStream,
) -> Result<FirstRequest, AdmissionError> {
    let frame = in_time(read_frame(recv, REQUEST_BYTES_MAX)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("said nothing"))?;
    Ok(match JoinerFrame::decode(&frame) {
        Ok(JoinerFrame::Request(request)) => binding(connection).map(|b| (request, b)),
        Ok(JoinerFrame::Ready) => Err(Refusal::Malformed("it does not open with a request".into())),
        Err(error) => Err(Refusal::Malformed(error.to_string())),
    })
}

async fn refuse(send: &mut SendStream, refusal: Refusal) -> Result<(), AdmissionError> {
    write(send, &MemberFrame::Refused(refusal)).await?;
    let _ = send.finish();
    // The last frame is on its way until the joiner has it.
    let _ = timeout(STRANGER_TIMEOUT, send.stopped()).await;
    Ok(())
}

async fn read(recv: &mut RecvStream) -> Result<JoinerFrame, AdmissionError> {
    let frame = within(read_frame(recv, REQUEST_BYTES_MAX)).await??;
    let frame = frame.ok_or(AdmissionError::Joiner("hung up before it was ready"))?;
    JoinerFrame::decode(&frame).map_err(|_| AdmissionError::Joiner("sent what does not read"))
}

async fn write(send: &mut SendStream, frame: &MemberFrame) -> Result<(), AdmissionError> {
    Ok(within(write_frame(send, &frame.encode(), FRAME_BYTES_MAX)).await??)
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, AdmissionError> {
    timeout(STRANGER_TIMEOUT, step).await.map_err(|_| AdmissionError::Joiner("said nothing"))
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T, AdmissionError> {
    timeout(FRAME_TIMEOUT, step).await.map_err(|_| AdmissionError::Joiner("fell silent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts with one key were both let in, as one member, and one was refused a second later.
    #[test]
    fn of_two_hosts_with_one_key_one_is_served_at_a_time_and_the_same_may_ask_again() {
        let (pending, joiner) = (Pending::default(), NodeId([1; 32]));
        let at = |n: u8| SocketAddr::from(([192, 0, 2, n], 4747));
        let first = pending.serve(joiner, at(1)).expect("nobody else is there");
        assert!(pending.serve(joiner, at(2)).is_none());
        let again = pending.serve(joiner, at(1)).expect("it hung up and comes again");
        assert!(pending.serve(NodeId([2; 32]), at(2)).is_some(), "another key");
        drop(first);
        assert!(pending.serve(joiner, at(2)).is_none());
        drop(again);
        assert!(pending.serve(joiner, at(2)).is_some());
    }
}
