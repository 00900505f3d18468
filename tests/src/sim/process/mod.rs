//! The shell of a core: what the agent's replica task does, without threads and without waiting.
//!
//! Inputs take effect in memory at once. What they must put on disk is gathered into a group; while
//! one group is being stored the next one fills. Only when a group is stored does anything that
//! follows from it leave: acknowledgements, pushes, answers.

mod door;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use peerage_proto::id::NodeId;
use peerage_proto::replica::{
    Actor, Dot, Edit, Outputs, Path, Replica, SignedChange, StoreOp, Vector, WriteError,
};
use peerage_proto::roster::{self, Roster, Standing};
use peerage_proto::time::Now;

use self::session::Stream;
use super::flaw::Flaw;
use super::network::Body;

/// How many admissions vouch for a node that is not known yet.
const VOUCHED_MAX: usize = 8;

/// What a process asks of the world.
#[derive(Debug)]
pub enum Effect {
    /// To be carried to another node.
    Send {
        /// Whom it is for.
        to: NodeId,
        /// The changes that admitted this node.
        vouched: Vec<SignedChange>,
        /// What it says.
        body: Body,
    },
    /// The write of this change has returned to whoever asked for it.
    Acknowledge(Dot),
    /// Something of this node was let in.
    LetIn(NodeId),
    /// A session has ended: if it was the first, this node has joined.
    Joined,
    /// A group is to be stored: answer with [`Process::stored`].
    Store,
}

/// What waits for a group to be on disk.
#[derive(Debug)]
enum Then {
    Acknowledge(Dot),
    Absorb(Vector),
    Greet { newcomer: NodeId, session: u64 },
    Send { to: NodeId, body: Body },
}

#[derive(Debug, Default)]
struct Group {
    outputs: Outputs,
    then: Vec<Then>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.outputs.commit.ops.is_empty() && self.outputs.send.is_empty() && self.then.is_empty()
    }
}

/// One run of an agent on a host, from its start to its end.
#[derive(Debug)]
pub struct Process {
    /// Tells this run from earlier ones on the same host.
    pub run: u64,
    incarnation: u64,
    flaw: Option<Flaw>,
    replica: Replica,
    /// Whether one session with a member has ended: joining is that, or nothing.
    joined: bool,
    roster: Roster,
    filling: Group,
    storing: Option<Group>,
    sessions: BTreeMap<u64, Stream>,
    /// What was told to those who watch here.
    told: BTreeSet<Dot>,
    /// What was shown to it as a proof, and so told whatever was here of its commit.
    shown: BTreeSet<Dot>,
}

impl Process {
    /// An agent that has just read its disk, on which it stands whether it had joined.
    pub fn new(
        run: u64,
        incarnation: u64,
        replica: Replica,
        joined: bool,
        flaw: Option<Flaw>,
    ) -> Self {
        Self {
            run,
            incarnation,
            flaw,
            joined,
            roster: Roster::of(&replica),
            replica,
            filling: Group::default(),
            storing: None,
            sessions: BTreeMap::new(),
            told: BTreeSet::new(),
            shown: BTreeSet::new(),
        }
    }

    /// The core.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The members, as this node knows them.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Whether this node knows that it belongs.
    pub fn is_member(&self) -> bool {
        self.joined && self.roster.is_current(&self.replica.node_id())
    }

    /// Whether this node knows that it was removed, and so keeps to itself.
    pub fn is_parked(&self) -> bool {
        let me = self.roster.member(&self.replica.node_id());
        me.is_some_and(|m| matches!(m.standing, Standing::Removed(_)))
    }

    /// What two nodes compare to see whether they hold the same.
    pub fn digest(&self) -> String {
        self.replica.digest()
    }

    /// The other members, as this node knows them; nobody for one that does not belong.
    pub fn peers(&self) -> Vec<NodeId> {
        let me = self.replica.node_id();
        let others = self.roster.current().map(|m| m.id).filter(|id| *id != me);
        if self.joined && !self.is_parked() { others.collect() } else { Vec::new() }
    }

    /// Writes as one commit, and has it acknowledged when it is stored. Answers with the changes;
    /// there is none where a document says all of it already. That too is acknowledged only when
    /// what says it is stored.
    ///
    /// # Errors
    /// Those of [`Replica::write_all`].
    pub fn write(
        &mut self,
        edits: Vec<(Path, Edit)>,
        now: Now,
    ) -> Result<(Vec<SignedChange>, Vec<Effect>), WriteError> {
        let actor = Actor { who: "root".into(), via: "simulation".into() };
        let (written, outputs) = self.replica.write_all(edits, actor, self.incarnation, now)?;
        let said_by = written.iter().filter_map(|written| match &written.change {
            Some(change) => Some(change.dot),
            None => self.latest_change(&written.path),
        });
        let said_by: Vec<Dot> = said_by.collect();
        let mut effects = Vec::new();
        match self.flaw {
            Some(Flaw::SpeaksBeforeCommit) => self.push(&outputs.send, &mut effects),
            Some(Flaw::AcknowledgesBeforeCommit) => {
                effects.extend(said_by.iter().copied().map(Effect::Acknowledge));
            }
            _ => {}
        }
        self.take(outputs, said_by.into_iter().map(Then::Acknowledge), &mut effects);
        Ok((written.into_iter().filter_map(|written| written.change).collect(), effects))
    }

    fn latest_change(&self, path: &Path) -> Option<Dot> {
        Some(self.replica.document(path)?.history().last()?.0.dot)
    }

    /// Opens a session with a newcomer as soon as its admission is stored.
    pub fn greet(&mut self, newcomer: NodeId, session: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(Outputs::default(), Some(Then::Greet { newcomer, session }), &mut effects);
        effects
    }

    /// Gathers what follows from an input, and has a group stored if none is under way.
    fn take(
        &mut self,
        outputs: Outputs,
        then: impl IntoIterator<Item = Then>,
        effects: &mut Vec<Effect>,
    ) {
        self.check_told(&outputs.notify);
        if outputs.notify.iter().any(|change| change.path.is_reserved()) {
            self.roster = Roster::of(&self.replica);
        }
        self.filling.outputs.extend(outputs);
        self.filling.then.extend(then);
        self.store(effects);
    }

    /// What was written together is told together: of a commit that is told, all that is kept is.
    fn check_told(&mut self, notify: &[SignedChange]) {
        self.told.extend(notify.iter().map(|change| change.dot));
        for change in notify.iter().filter(|change| !self.shown.contains(&change.dot)) {
            let Some(commit) = change.commit else { continue };
            let writer = change.dot.writer;
            let kept = (commit.first..=commit.last).map(|seq| Dot { writer, seq });
            let mut kept = kept.filter(|dot| self.replica.change(dot).is_some());
            assert!(self.replica.vector().seen(&writer) >= commit.last, "{change:?} is told early");
            assert!(kept.all(|dot| self.told.contains(&dot)), "{change:?} is told alone");
        }
    }

    fn store(&mut self, effects: &mut Vec<Effect>) {
        if self.storing.is_none() && !self.filling.is_empty() {
            self.storing = Some(std::mem::take(&mut self.filling));
            effects.push(Effect::Store);
        }
    }

    /// The steps of the group that is being stored.
    pub fn storing(&self) -> &[StoreOp] {
        self.storing.as_ref().map_or(&[], |group| &group.outputs.commit.ops)
    }

    /// The group is on disk: now what follows from it may leave.
    pub fn stored(&mut self) -> Vec<Effect> {
        let group = self.storing.take().expect("the world answers one asking once");
        let mut effects = Vec::new();
        self.replica.committed(&group.outputs.commit);
        if self.flaw != Some(Flaw::SpeaksBeforeCommit) {
            self.push(&group.outputs.send, &mut effects);
        }
        for then in group.then {
            match then {
                Then::Acknowledge(dot) => effects.push(Effect::Acknowledge(dot)),
                Then::Absorb(vector) => {
                    self.joined = true;
                    effects.push(Effect::Joined);
                    let outputs = self.replica.absorb(&vector);
                    self.take(outputs, None, &mut effects);
                }
                Then::Greet { newcomer, session } => self.begin(newcomer, session, &mut effects),
                Then::Send { to, body } => self.send(to, body, &mut effects),
            }
        }
        self.store(&mut effects);
        effects
    }

    fn push(&self, changes: &[SignedChange], effects: &mut Vec<Effect>) {
        for change in changes {
            for peer in self.peers() {
                self.send(peer, Body::Push(change.clone()), effects);
            }
        }
    }

    fn send(&self, to: NodeId, body: Body, effects: &mut Vec<Effect>) {
        if !self.is_parked() {
            let me = self.replica.node_id();
            let vouched = roster::admission_chain(&self.replica, &me, VOUCHED_MAX);
            effects.push(Effect::Send { to, vouched, body });
        }
    }
}
