//! The start of a membership: each task is made of the handles that it uses.
//!
//! It goes in two steps. [`Membership::start`] starts the parts that need no other node, so that
//! the mesh's gate can judge the nodes that dial; [`Membership::open`] then lets the others in.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use peerage_proto::address::Address;
use peerage_proto::id::NodeId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, watch};

use super::Membership;
use super::addresses::follow_addresses;
use super::belonging::Belonging;
use super::calling::Calling;
use super::chronicle::Chronicle;
use super::commits::Commits;
use super::comparing::{compare_digests, tell_vitals};
use super::end::End;
use super::greeting::Greeting;
use super::inbound::{
    Inbound, answer_questions, carry_datagrams, carry_messages, serve_sessions, take_frames,
};
use super::isolation::{Horizon, follow_sight};
use super::liveness::{self, Heard, LivenessHandle};
use super::meetings::Meetings;
use super::members::Members;
use super::notices::{follow_notices, follow_room};
use super::objections::Objections;
use super::outbound::{MeshDatagrams, MeshMessages, MeshOutbox};
use super::parts::Parts;
use super::sessions::Sessions;
use super::spreading::spread_what_is_large;
use super::standings::{follow_health, follow_liveness, follow_standings};
use super::tasks::Tasks;
use super::timekeeping::{ClockStanding, Listeners, Timekeeper};
use super::vitals::{self, Received, VitalsHandle};
use crate::host::clock::Clock;
use crate::replica::receipts::Receipts;
use crate::replica::sync::Pusher;
use crate::replica::{Disk, ReplicaTask, Views};

/// What [`Membership::open`] still needs.
pub struct Opening {
    inbound: Inbound,
    /// Where datagrams go on to the failure detector.
    heard: mpsc::Sender<Heard>,
    /// Where messages go on to the vitals.
    received: mpsc::Sender<Received>,
    others: watch::Sender<BTreeSet<NodeId>>,
    addresses: watch::Receiver<Vec<Address>>,
    clock: Clock,
    look: vitals::host::Look,
    time: watch::Sender<ClockStanding>,
    /// Notified when a commit is too large to be pushed to the other members.
    large: Arc<Notify>,
}

impl Membership {
    /// Starts the parts that need no other node. Once the mesh's gate can see the membership,
    /// [`Membership::open`] lets the others in.
    pub async fn start<D: Disk>(parts: Parts<D>) -> (Arc<Self>, Opening) {
        let (me, datacenter) = (parts.key.node_id(), parts.replica.datacenter());
        let (own, hello) = (parts.vitals(), parts.hello());
        let (clock, mesh) = (parts.clock, parts.mesh);
        let tasks = Tasks::default();
        let receipts = Arc::new(Receipts::default());
        let large = Arc::new(Notify::new());
        let outlet = |views: watch::Receiver<Views>| {
            let outbox = Arc::new(MeshOutbox(mesh.clone()));
            let pusher = Pusher::new(me, outbox, views.clone(), rand::random());
            let (changes, happenings) = (parts.changes, parts.happenings.clone());
            Commits { pusher, changes, happenings, views, large: large.clone(), clock }
        };
        let (task, replica) =
            ReplicaTask::new(parts.replica, parts.disk, outlet, receipts.clone(), clock);
        let others: watch::Sender<BTreeSet<NodeId>> =
            watch::Sender::new(replica.views().borrow().roster.others(me).collect());
        let (heard, datagrams) = mpsc::channel(liveness::INBOX_LEN);
        let liveness = LivenessHandle::spawn(
            me,
            parts.boot,
            StdRng::seed_from_u64(rand::random()),
            clock.zero(),
            others.subscribe(),
            datagrams,
            MeshDatagrams::new(mesh.clone(), others.subscribe()),
        );
        let (received, messages) = mpsc::channel(vitals::INBOX_LEN);
        let vitals = VitalsHandle::spawn(
            me,
            parts.boot,
            datacenter,
            own,
            others.subscribe(),
            messages,
            MeshMessages(mesh.clone()),
        );
        tasks.spawn(run_replica(task, parts.ended.clone()));

        let greeting = Greeting::new(me, replica.clone(), hello);
        greeting.renew().await;
        let members = Members::new(me, &replica, &liveness);
        let objections = Objections::new(
            members.clone(),
            mesh.clone(),
            parts.notices.clone(),
            vitals.clone(),
            tasks.clone(),
        );
        let (time, time_rx) = watch::channel(ClockStanding::default());
        let this = Arc::new(Self {
            datacenter,
            me,
            sessions: Sessions::new(members.clone(), replica.clone(), receipts, mesh.clone()),
            horizon: Horizon::new(members.clone(), mesh.clone(), greeting.clone(), parts.network),
            calling: Calling::new(
                members.clone(),
                objections.clone(),
                vitals.clone(),
                mesh.clone(),
            ),
            chronicle: Chronicle::new(parts.happenings, clock),
            pending: Arc::default(),
            notices: parts.notices,
            greeting,
            ended: parts.ended,
            time: time_rx,
            members,
            objections,
            replica,
            liveness,
            vitals,
            mesh,
            tasks,
        });
        let opening = Opening {
            inbound: parts.inbound,
            heard,
            received,
            others,
            addresses: parts.addresses,
            clock,
            look: parts.look,
            time,
            large,
        };
        (this, opening)
    }

    /// Begins to talk with the others.
    pub fn open(&self, opening: Opening) {
        let Opening { inbound, others, time, clock, .. } = opening;
        let (members, mesh) = (|| self.members.clone(), || self.mesh.clone());
        let (replica, sessions) = (|| self.replica.clone(), || self.sessions.clone());
        let (liveness, vitals) = (|| self.liveness.clone(), || self.vitals.clone());
        let (notices, chronicle) = (|| self.notices.clone(), || self.chronicle.clone());
        let (greeting, tasks) = (|| self.greeting.clone(), || self.tasks.clone());

        // What arrives.
        self.tasks.spawn(carry_datagrams(inbound.datagrams, opening.heard));
        self.tasks.spawn(carry_messages(inbound.vitals, opening.received));
        self.tasks.spawn(take_frames(inbound.frames, members(), sessions(), mesh(), tasks()));
        self.tasks.spawn(serve_sessions(inbound.sessions, replica(), sessions(), tasks()));
        self.tasks.spawn(answer_questions(
            inbound.questions,
            members(),
            self.pending.clone(),
            tasks(),
        ));
        self.tasks.spawn(compare_digests(inbound.digests, members(), sessions(), mesh(), tasks()));
        let listeners =
            Listeners { standing: time, vitals: vitals(), replica: replica(), notices: notices() };
        let timekeeper = Timekeeper::new(mesh(), others.subscribe(), clock, listeners, tasks());
        self.tasks.spawn(timekeeper.run(inbound.clocks));

        // What changes.
        let belonging = Belonging {
            members: members(),
            others,
            greeting: greeting(),
            mesh: mesh(),
            chronicle: chronicle(),
            ended: self.ended.clone(),
            tasks: tasks(),
        };
        self.tasks.spawn(belonging.follow());
        let meetings = Meetings {
            members: members(),
            mesh: mesh(),
            liveness: liveness(),
            sessions: sessions(),
            notices: notices(),
            chronicle: chronicle(),
            tasks: tasks(),
        };
        self.tasks.spawn(meetings.follow());
        self.tasks.spawn(follow_liveness(liveness(), members(), mesh(), chronicle(), tasks()));
        self.tasks.spawn(follow_standings(self.liveness.standings(), mesh()));
        self.tasks.spawn(follow_health(self.liveness.local_health_multiplier(), mesh()));
        self.tasks.spawn(follow_addresses(
            opening.addresses,
            members(),
            greeting(),
            vitals(),
            replica(),
        ));
        self.tasks.spawn(spread_what_is_large(opening.large, members(), sessions(), tasks()));

        // What is told.
        self.tasks.spawn(tell_vitals(self.me, replica(), vitals()));
        self.tasks.spawn(vitals::host::tell_samples(vitals(), opening.look));
        self.tasks.spawn(follow_notices(members(), vitals(), notices()));
        self.tasks.spawn(follow_sight(self.horizon.clone(), notices()));
        self.tasks.spawn(follow_room(replica(), notices()));
        self.tasks.spawn(self.calling.clone().call_those_put_out());
    }
}

/// Runs the replica's task. If the task fails or panics, the node is told that its disk fails for
/// good, and the agent stops: a bug in the rules must not leave an agent that looks alive and
/// answers nothing.
async fn run_replica<D: Disk>(task: ReplicaTask<D, Commits>, ended: mpsc::Sender<End>) {
    let outcome = AssertUnwindSafe(task.run()).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err("the replica's task panicked".into()));
    if let Err(cause) = outcome {
        let _ = ended.send(End::Disk(cause)).await;
    }
}
