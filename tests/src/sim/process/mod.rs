//! An agent as the world sees it: the desk of its replica, as the agent's replica task serves it, and
//! the little around it that stands for the agent's door, its sessions and its operators' requests,
//! without threads and without waiting.
//!
//! An action that must wait for a commit is given to the desk as an answer ([`Then`]), and is
//! carried out once the desk gives it back.

mod door;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use peerage_proto::id::NodeId;
use peerage_proto::replica::desk::{Accepted, Desk, Next, Speech};
use peerage_proto::replica::{
    Actor, Commit, Dot, Edit, Path, Replica, SignedChange, Vector, WriteError,
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
        /// The node that it is for.
        to: NodeId,
        /// The changes that admitted this node.
        vouched: Vec<SignedChange>,
        /// What it says.
        body: Body,
    },
    /// The write of this change has returned to its caller.
    Acknowledge(Dot),
    /// A reader of the settings here was shown what these changes of this node say.
    Show(Vec<Dot>),
    /// This process took a message of that node.
    LetIn(NodeId),
    /// A session has ended: if it was the first, this node has joined.
    Joined,
    /// What the desk commits is to be stored: answer with [`Process::stored`] or
    /// [`Process::failed`].
    Store,
}

/// What waits for a commit.
#[derive(Debug)]
enum Then {
    Acknowledge(Dot),
    Show(Vec<Dot>),
    /// A part of a session was merged.
    Merged {
        session: u64,
    },
    /// All that a session brought is stored.
    Absorb {
        session: u64,
        vector: Vector,
    },
    Greet {
        newcomer: NodeId,
        session: u64,
    },
    Send {
        to: NodeId,
        body: Body,
    },
    /// An admission that a stranger showed is stored. The process takes its other admissions next,
    /// and then what it says.
    Meet {
        from: NodeId,
        vouched: Vec<SignedChange>,
        body: Body,
    },
}

/// One run of an agent on a host, from its start to its end.
#[derive(Debug)]
pub struct Process {
    /// Tells this run from earlier ones on the same host.
    pub run: u64,
    incarnation: u64,
    flaw: Option<Flaw>,
    desk: Desk<Then>,
    /// Whether a session with a member has ended well: this makes a node joined, and nothing else
    /// does.
    joined: bool,
    /// The members, as of what was told here last.
    roster: Roster,
    sessions: BTreeMap<u64, Stream>,
    /// The changes that were told to watchers on this node.
    told: BTreeSet<Dot>,
    /// The changes that a peer showed as a proof: they are told also where their commits are not
    /// complete here.
    shown: BTreeSet<Dot>,
}

impl Process {
    /// An agent that has just read its disk, which says whether it had joined.
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
            desk: Desk::new(replica),
            sessions: BTreeMap::new(),
            told: BTreeSet::new(),
            shown: BTreeSet::new(),
        }
    }

    /// The core.
    pub fn replica(&self) -> &Replica {
        self.desk.replica()
    }

    /// The members, as this node knows them: as of the last commit.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The members with all that was decided here, on disk or not: what a decision goes by.
    pub fn decided(&self) -> Roster {
        self.roster.after(self.replica(), self.replica().untold_records())
    }

    /// Whether this node knows that it belongs.
    pub fn is_member(&self) -> bool {
        self.joined && self.roster.is_current(&self.replica().node_id())
    }

    /// Whether this node knows that it was removed, and so keeps to itself.
    pub fn is_parked(&self) -> bool {
        let me = self.roster.member(&self.replica().node_id());
        me.is_some_and(|m| matches!(m.standing, Standing::Removed(_)))
    }

    /// What two nodes compare to see whether they hold the same.
    pub fn digest(&self) -> String {
        self.replica().digest()
    }

    /// The other members, as this node knows them; none where this node does not belong.
    pub fn peers(&self) -> Vec<NodeId> {
        let me = self.replica().node_id();
        let others = self.roster.current().map(|m| m.id).filter(|id| *id != me);
        if self.joined && !self.is_parked() { others.collect() } else { Vec::new() }
    }

    /// Writes as one commit, and has it acknowledged when it is stored. Answers with the changes;
    /// there is none where a document says all of it already. Such a write, too, is acknowledged
    /// only when the change that says it is stored.
    ///
    /// # Errors
    /// Those of [`Replica::write_all`].
    pub fn write(
        &mut self,
        edits: Vec<(Path, Edit)>,
        now: Now,
    ) -> Result<(Vec<SignedChange>, Vec<Effect>), WriteError> {
        let actor = Actor { who: "root".into(), via: "simulation".into() };
        let paths: Vec<Path> = edits.iter().map(|(path, _)| path.clone()).collect();
        let accepted = self.desk.write(edits, actor, self.incarnation, false, now)?;
        let Accepted { written, .. } = accepted;
        let said_by = written.iter().filter_map(|written| match &written.change {
            Some(change) => Some(change.dot),
            None => self.latest_change(&written.path),
        });
        let said_by: Vec<Dot> = said_by.collect();
        let changes: Vec<_> = written.into_iter().filter_map(|written| written.change).collect();
        let mut effects = Vec::new();
        match self.flaw {
            Some(Flaw::SpeaksBeforeCommit) => self.push(&changes, &mut effects),
            Some(Flaw::AcknowledgesBeforeCommit) => {
                effects.extend(said_by.iter().copied().map(Effect::Acknowledge));
            }
            _ => {}
        }
        said_by.into_iter().for_each(|dot| self.desk.answer_after_commit(Then::Acknowledge(dot)));
        self.look(&paths, &mut effects);
        self.step(now, &mut effects);
        Ok((changes, effects))
    }

    fn latest_change(&self, path: &Path) -> Option<Dot> {
        Some(self.replica().document(path)?.history().last()?.0.dot)
    }

    /// A reader looks at these documents. What other nodes wrote in them may be shown at once.
    fn look(&mut self, paths: &[Path], effects: &mut Vec<Effect>) {
        let me = self.replica().node_id();
        let documents = paths.iter().filter_map(|path| self.replica().document(path));
        let shown = documents.flat_map(|document| document.fields()).map(|(_, _, c)| c.dot);
        let shown: Vec<Dot> = shown.filter(|dot| dot.writer.node == me).collect();
        if self.flaw == Some(Flaw::ShowsBeforeCommit) {
            effects.push(Effect::Show(shown));
        } else if let Some(Then::Show(shown)) = self.desk.answer_read(Then::Show(shown)) {
            effects.push(Effect::Show(shown));
        }
    }

    /// Opens a session with a newcomer as soon as its admission is stored.
    pub fn greet(&mut self, newcomer: NodeId, session: u64, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.desk.answer_after_commit(Then::Greet { newcomer, session });
        self.step(now, &mut effects);
        effects
    }

    /// Carries out what the desk wants done after an input.
    fn step(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(next) = self.desk.proceed() {
            match next {
                Next::Commit(_) => effects.push(Effect::Store),
                Next::Speak(speech) => self.speak(speech, now, effects),
            }
        }
    }

    /// What is being stored.
    pub fn storing(&self) -> Option<&Commit> {
        self.desk.committing()
    }

    /// The commit is on disk: now what follows from it may leave.
    pub fn stored(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let speech = self.desk.committed();
        self.speak(speech, now, &mut effects);
        self.step(now, &mut effects);
        effects
    }

    /// The disk refused the commit: the process goes on from what the disk holds, under another
    /// incarnation. The writes that waited have failed, and a session that lost changes ends.
    pub fn failed(&mut self, stored: Replica, incarnation: u64) {
        for then in self.desk.failed() {
            if let Then::Merged { session } | Then::Absorb { session, .. } = then {
                self.end_session(session);
            }
        }
        self.incarnation = incarnation;
        let untold = self.desk.reloaded(stored);
        self.roster = Roster::of(self.replica());
        self.check_told(&untold);
    }

    fn speak(&mut self, speech: Speech<Then>, now: Now, effects: &mut Vec<Effect>) {
        let Speech { news, push, replies, .. } = speech;
        self.check_told(&news);
        let records = news.iter().map(|change| &change.path).filter(|path| path.is_reserved());
        let records: BTreeSet<&Path> = records.collect();
        if !records.is_empty() {
            self.roster = self.roster.after(self.replica(), records);
        }
        if self.flaw != Some(Flaw::SpeaksBeforeCommit) {
            self.push(&push, effects);
        }
        for then in replies {
            match then {
                Then::Acknowledge(dot) => effects.push(Effect::Acknowledge(dot)),
                Then::Show(dots) => effects.push(Effect::Show(dots)),
                Then::Merged { .. } => {}
                Then::Absorb { vector, .. } => {
                    self.joined = true;
                    effects.push(Effect::Joined);
                    self.desk.absorb(&vector);
                }
                Then::Greet { newcomer, session } => self.begin(newcomer, session, effects),
                Then::Send { to, body } => self.send(to, body, effects),
                Then::Meet { from, vouched, body } => {
                    self.meet(from, vouched, body, now, effects);
                }
            }
        }
    }

    /// Checks that changes of one commit are told together: when one is told, all changes of its
    /// commit that are kept here must have been told.
    fn check_told(&mut self, news: &[SignedChange]) {
        self.told.extend(news.iter().map(|change| change.dot));
        let replica = self.desk.replica();
        for change in news.iter().filter(|change| !self.shown.contains(&change.dot)) {
            let Some(commit) = change.commit else { continue };
            let writer = change.dot.writer;
            let kept = (commit.first..=commit.last).map(|seq| Dot { writer, seq });
            let mut kept = kept.filter(|dot| replica.change(dot).is_some());
            assert!(replica.vector().seen(&writer) >= commit.last, "{change:?} is told early");
            assert!(kept.all(|dot| self.told.contains(&dot)), "{change:?} is told alone");
        }
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
            let me = self.replica().node_id();
            let vouched = roster::admission_chain(self.replica(), &me, VOUCHED_MAX);
            effects.push(Effect::Send { to, vouched, body });
        }
    }
}
