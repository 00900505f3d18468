//! Letting a node in, on the side of the member that is asked.
//!
//! The rules are in [`peerage_proto::admission`]; here is what they need to know of the world: how
//! often other members used an invitation, and whether the joiner can be dialled back. Nothing is
//! written before the joiner says that it is ready.

use std::net::SocketAddr;
use std::sync::Arc;

use peerage_proto::address::Address;
use peerage_proto::admission::exchange::{JoinerFrame, MemberFrame};
use peerage_proto::admission::refusal::Refusal;
use peerage_proto::admission::verdict::Judged;
use peerage_proto::door::Source;
use peerage_proto::id::{DataCenterId, NodeId};
use peerage_proto::replica::sync::chunks;
use peerage_proto::replica::{Actor, Replica, Vector};
use peerage_proto::roster::{Roster, member_path};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;
use tracing::info;

use super::dialling_back::reach;
use super::exchange::{AdmissionError, FRAME_TIMEOUT, first_request, in_time, read, refuse, write};
use super::judging::{Asks, Bench};
use super::pending::{Forgotten, Pending};
use super::surroundings::Surroundings;
use crate::host::clock::Clock;
use crate::mesh::JoinDoor;
use crate::repeats::Lines;
use crate::replica::{ReplicaHandle, Untransacted, Views};
use crate::resolver::Resolver;

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
    /// Resolves names to IP addresses.
    pub names: Resolver,
    /// The admissions under way here or asked about here.
    pub pending: Arc<Pending>,
    /// What was logged about joiners that were not admitted.
    pub refusals: Arc<Refusals>,
    /// The time.
    pub clock: Clock,
}

/// Lines about joiners that were not admitted: from where, and why.
pub type Refusals = Lines<(Source, &'static str)>;

/// Why an admission stopped: `Refused` is told to the joiner, `Failed` is not.
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
        // The joiner also gets the end of the member that it replaces, so that it sees that the
        // name is its own.
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

    /// The members, as of now.
    pub(super) fn roster(&self) -> Arc<Roster> {
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

    /// Dials the joiner back. Answers at which addresses, beside those that it told, the joiner
    /// answered.
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
    /// here. `seen` are the addresses, beside those that it told, at which the joiner was reached.
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
                // Another member has the name now, and nobody has checked whether that one is gone.
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
