//! The desk tells nothing that is not on disk, whatever callers ask in whatever order, and however
//! commits end.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::replica::laws::{DC, actor, field, key, now, replica, set};
use crate::replica::{HOLD_MAX, Limits};

/// The documents of these tests.
const PATHS: [&str; 3] = ["a", "b", "c"];

fn path(n: usize) -> Path {
    PATHS[n % PATHS.len()].parse().unwrap()
}

/// Limits with so little history that the replica forgets all the time.
fn limits() -> Limits {
    let history_age = Duration::ZERO;
    Limits { history_changes: 1, history_age, history_bytes: 0, ..Limits::default() }
}

fn desk<R>() -> Desk<R> {
    Desk::new(Replica::new(DC, key(3), limits()))
}

/// Writes a value to documents, as one commit.
fn write<R>(desk: &mut Desk<R>, paths: &[usize], value: u8, receipt: bool) -> Accepted {
    let edits = paths.iter().map(|n| (path(*n), set(0, value))).collect();
    desk.write(edits, actor(), 1, receipt, now(1000)).expect("the write is in bounds")
}

fn commit<R>(desk: &mut Desk<R>) -> Arc<Commit> {
    match desk.proceed() {
        Some(Next::Commit(commit)) => commit,
        _ => panic!("nothing is to be committed"),
    }
}

fn dots(changes: &[SignedChange]) -> Vec<Dot> {
    changes.iter().map(|change| change.dot).collect()
}

/// Changes of one commit by another node.
fn together(paths: &[usize]) -> Vec<SignedChange> {
    let edits = paths.iter().map(|n| (path(*n), set(1, 1))).collect();
    let (_, outputs) = replica(0).write_all(edits, actor(), 1, now(1000)).unwrap();
    outputs.send
}

#[test]
fn what_is_decided_while_a_commit_runs_waits_for_the_next() {
    let mut desk = desk();
    let first = write(&mut desk, &[0], 1, false).written.remove(0).change.unwrap().dot;
    desk.answer_after_commit("first");
    let commit = commit(&mut desk);
    assert_eq!(commit.ops.len(), 1);
    let second = write(&mut desk, &[1, 2], 2, true).asked;
    desk.answer_after_commit("second");
    assert!(desk.proceed().is_none(), "one commit runs at a time");
    let speech = desk.committed();
    assert_eq!((dots(&speech.push), dots(&speech.news)), (vec![first], vec![first]));
    assert_eq!((speech.replies, speech.ask.len()), (vec!["first"], 0));
    let Some(Next::Commit(commit)) = desk.proceed() else { panic!("the second write waits") };
    assert_eq!(commit.ops.len(), 2);
    let speech = desk.committed();
    assert_eq!((speech.replies, speech.push.len()), (vec!["second"], 0));
    assert_eq!(BTreeSet::from_iter(dots(&speech.ask)), second);
    assert!(desk.proceed().is_none());
}

#[test]
fn a_read_that_saw_a_write_waits_for_its_commit_and_no_other_read_does() {
    let mut desk = desk();
    assert_eq!(desk.answer_read("before"), Some("before"));
    assert!(desk.merge(together(&[0]), false, now(1000)));
    assert_eq!(desk.answer_read("of others"), Some("of others"));
    let _ = write(&mut desk, &[1], 1, false);
    assert_eq!(desk.answer_read("gathered"), None);
    let _ = commit(&mut desk);
    assert_eq!(desk.answer_read("committing"), None);
    assert_eq!(desk.committed().replies, ["gathered"]);
    let Some(Next::Speak(speech)) = desk.proceed() else { panic!("nothing is left to store") };
    assert_eq!((speech.replies, speech.stored), (vec!["committing"], false));
    assert_eq!(desk.answer_read("after"), Some("after"));
}

#[test]
fn where_receipts_are_wanted_of_what_stands_already_it_goes_out_again() {
    let mut desk = desk::<()>();
    let stands = write(&mut desk, &[0], 1, false).written.remove(0).change.unwrap().dot;
    let _ = (commit(&mut desk), desk.committed());
    assert!(write(&mut desk, &[0], 1, false).asked.is_empty());
    assert!(desk.proceed().is_none());
    assert_eq!(write(&mut desk, &[0], 1, true).asked, [stands].into());
    let Some(Next::Speak(speech)) = desk.proceed() else { panic!("there is nothing to store") };
    assert_eq!((dots(&speech.ask), speech.push.len()), (vec![stands], 0));
}

#[test]
fn what_waited_too_long_for_the_rest_of_its_commit_is_told() {
    let mut desk = desk::<()>();
    desk.merge([together(&[0, 1]).remove(0)], false, now(1000));
    let _ = commit(&mut desk);
    assert!(desk.committed().news.is_empty());
    let due = desk.overdue_at().unwrap();
    assert!(desk.tell_overdue(now(1000)).is_empty());
    assert_eq!(desk.tell_overdue(Now { mono: due, wall_ms: 1000 }).len(), 1);
    let Some(Next::Speak(speech)) = desk.proceed() else { panic!("there is nothing to store") };
    assert_eq!(speech.news.len(), 1);
    assert_eq!(desk.overdue_at(), None);
}

/// The change that completed a commit was lost with a disk that failed. The other changes of that
/// commit, which were on disk before, counted as told, and no watcher heard of them.
#[test]
fn what_a_failed_commit_was_about_to_complete_is_told_when_the_rest_comes_again() {
    let mut desk = desk();
    let changes = together(&[0, 1]);
    desk.merge([changes[0].clone()], false, now(1000));
    let first = commit(&mut desk);
    assert!(desk.committed().news.is_empty());
    desk.merge([changes[1].clone()], false, now(1000));
    desk.answer_after_commit("merged");
    let _ = commit(&mut desk);
    desk.answer_after_commit("decided meanwhile");
    assert_eq!(desk.failed(), ["merged", "decided meanwhile"]);
    assert!(desk.proceed().is_none(), "the disk is read first");
    let mut disk = Disk::default();
    disk.apply(&first);
    assert!(desk.reloaded(disk.load()).is_empty());
    assert!(desk.replica().change(&changes[1].dot).is_none());
    desk.merge([changes[1].clone()], false, now(1000));
    let _ = commit(&mut desk);
    assert_eq!(dots(&desk.committed().news), dots(&changes));
}

/// What a disk holds.
#[derive(Debug, Default)]
struct Disk {
    changes: BTreeMap<Dot, Arc<[u8]>>,
    seen: Vector,
    /// All changes that it ever held, also those that are superseded by now.
    ever: BTreeSet<Dot>,
}

impl Disk {
    fn apply(&mut self, commit: &Commit) {
        for op in &commit.ops {
            match op {
                StoreOp::Put { dot, bytes } => {
                    self.changes.insert(*dot, bytes.clone());
                    self.ever.insert(*dot);
                }
                StoreOp::Abridge(change) => {
                    self.changes.insert(change.dot, change.bytes().clone());
                }
                StoreOp::Forget(dot) => drop(self.changes.remove(dot)),
                StoreOp::Seen(writer, seq) => drop(self.seen.raise(*writer, *seq)),
            }
        }
    }

    fn holds(&self, dot: &Dot) -> bool {
        self.ever.contains(dot) || self.seen.covers(dot)
    }

    fn load(&self) -> Replica {
        let changes =
            self.changes.values().map(|bytes| SignedChange::trust(bytes.clone()).unwrap());
        Replica::load(DC, key(3), limits(), changes, self.seen.clone(), now(1000))
    }
}

/// What is asked of a desk, and what becomes of its commits.
#[derive(Debug, Clone)]
enum Input {
    Write {
        paths: u8,
        value: u8,
        receipt: bool,
    },
    Merge {
        change: prop::sample::Index,
        proof: bool,
    },
    Session {
        peer: usize,
    },
    Compact,
    Read,
    Wait,
    Next,
    Committed,
    /// The commit fails. With `kept`, it is on disk all the same.
    Failed {
        kept: bool,
    },
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let index = any::<prop::sample::Index>;
    let input = prop_oneof![
        4 => (1u8..8, 0u8..3, any::<bool>())
            .prop_map(|(paths, value, receipt)| Input::Write { paths, value, receipt }),
        4 => (index(), prop::bool::weighted(0.2))
            .prop_map(|(change, proof)| Input::Merge { change, proof }),
        1 => (0usize..2).prop_map(|peer| Input::Session { peer }),
        1 => Just(Input::Compact),
        3 => Just(Input::Read),
        1 => Just(Input::Wait),
        6 => Just(Input::Next),
        4 => Just(Input::Committed),
        1 => any::<bool>().prop_map(|kept| Input::Failed { kept }),
    ];
    prop::collection::vec(input, 1..60)
}

/// Two other nodes, and all that they wrote.
fn peers() -> ([Replica; 2], Vec<SignedChange>) {
    let mut peers = [replica(0), replica(1)];
    let mut changes = Vec::new();
    for n in 0..12u8 {
        let paths = (0..PATHS.len()).filter(|path| (n + 1) >> path & 1 == 1);
        let value = |path| (field(path as u8), json!(n.to_string().repeat(60)));
        let edit = |path| Edit { set: [value(path)].into(), ..Edit::default() };
        let edits = paths.map(|n| (path(n), edit(n))).collect();
        let writer = &mut peers[usize::from(n % 2)];
        let (_, outputs) = writer.write_all(edits, actor(), 1, now(1000 + u64::from(n))).unwrap();
        changes.extend(outputs.send);
    }
    (peers, changes)
}

/// An answer to a caller, with the changes that must be on disk before it is given.
#[derive(Debug)]
enum Reply {
    /// A request was decided when the replica held the changes `upon`, and wrote the changes
    /// `wrote`.
    Decided { upon: BTreeSet<Dot>, wrote: BTreeSet<Dot> },
    /// A read showed these writes of this node.
    Showed(BTreeSet<Dot>),
}

/// The owner of a desk, who checks all that it says.
struct Owner {
    desk: Desk<Reply>,
    disk: Disk,
    now: Now,
    incarnation: u64,
    asked: usize,
    answered: usize,
    told: BTreeSet<Dot>,
    pushed: BTreeSet<Dot>,
}

impl Owner {
    fn new() -> Self {
        Self {
            desk: desk(),
            disk: Disk::default(),
            now: now(2000),
            incarnation: 1,
            asked: 0,
            answered: 0,
            told: BTreeSet::new(),
            pushed: BTreeSet::new(),
        }
    }

    /// The changes that the replica holds, on disk or not.
    fn decided(&self) -> BTreeSet<Dot> {
        let log = self.desk.replica().log.iter();
        log.flat_map(|(writer, log)| log.keys().map(|seq| Dot { writer: *writer, seq: *seq }))
            .collect()
    }

    fn own(&self) -> BTreeSet<Dot> {
        let me = self.desk.replica().node_id();
        self.decided().into_iter().filter(|dot| dot.writer.node == me).collect()
    }

    fn ask(&mut self, wrote: BTreeSet<Dot>) {
        self.asked += 1;
        let upon = self.decided();
        self.desk.answer_after_commit(Reply::Decided { upon, wrote });
    }

    fn take(&mut self, input: Input, peers: &[Replica], changes: &[SignedChange]) {
        let at = self.now;
        match input {
            Input::Write { paths, value, receipt } => {
                let paths = (0..PATHS.len()).filter(|path| paths >> path & 1 == 1);
                let edits = paths.map(|n| (path(n), set(0, value))).collect();
                let written = self.desk.write(edits, actor(), self.incarnation, receipt, at);
                let written = written.expect("the write is in bounds").written;
                let wrote = written.into_iter().filter_map(|written| written.change);
                self.ask(wrote.map(|change| change.dot).collect());
            }
            Input::Merge { change, proof } => {
                let change = changes[change.index(changes.len())].clone();
                let all = match proof {
                    true => self.desk.merge_proof([change], true, at),
                    false => self.desk.merge([change], true, at),
                };
                assert!(all);
                self.ask(BTreeSet::new());
            }
            Input::Session { peer } => {
                let of_peer =
                    |change: &&SignedChange| change.dot.writer.node == peers[peer].node_id();
                self.desk.merge(changes.iter().filter(of_peer).cloned(), false, at);
                self.desk.absorb(peers[peer].vector());
                self.ask(BTreeSet::new());
            }
            Input::Compact => {
                self.desk.compact();
                self.ask(BTreeSet::new());
            }
            Input::Read => {
                self.asked += 1;
                let showed = Reply::Showed(self.own());
                if let Some(reply) = self.desk.answer_read(showed) {
                    self.answer(reply);
                }
            }
            Input::Wait => {
                self.now.mono += HOLD_MAX;
                let _ = self.desk.tell_overdue(self.now);
            }
            Input::Next => match (self.desk.committing().is_some(), self.desk.proceed()) {
                (true, next) => assert!(next.is_none(), "two commits run at once"),
                (false, Some(Next::Speak(speech))) => self.hear(speech),
                (false, _) => {}
            },
            Input::Committed => {
                if let Some(commit) = self.desk.committing() {
                    self.disk.apply(commit);
                    let speech = self.desk.committed();
                    self.hear(speech);
                }
            }
            Input::Failed { kept } => {
                let Some(commit) = self.desk.committing() else { return };
                if kept {
                    self.disk.apply(commit);
                }
                self.answered += self.desk.failed().len();
                self.incarnation += 1;
                let untold = self.desk.reloaded(self.disk.load());
                self.tell(&untold);
            }
        }
        assert!(self.disk.load().vector().dominates(self.desk.replica().durable_vector()));
    }

    fn hear(&mut self, speech: Speech<Reply>) {
        let Speech { news, push, ask, replies, .. } = speech;
        self.tell(&news);
        for change in push.iter().chain(&ask) {
            assert!(self.disk.holds(&change.dot), "{change:?} is pushed and is not on disk");
            self.pushed.insert(change.dot);
        }
        replies.into_iter().for_each(|reply| self.answer(reply));
    }

    fn tell(&mut self, news: &[SignedChange]) {
        for change in news {
            assert!(self.disk.holds(&change.dot), "{change:?} is told and is not on disk");
            assert!(self.told.insert(change.dot), "{change:?} is told twice");
        }
    }

    fn answer(&mut self, reply: Reply) {
        self.answered += 1;
        let (Reply::Decided { upon: dots, .. } | Reply::Showed(dots)) = &reply;
        for dot in dots {
            assert!(self.disk.holds(dot), "{dot:?} is answered with and is not on disk");
        }
        if let Reply::Decided { wrote, .. } = reply {
            assert!(wrote.is_subset(&self.pushed), "a write is acknowledged and not pushed");
        }
    }

    /// Brings all that is under way to its end.
    fn rest(&mut self) {
        for input in [Input::Committed, Input::Wait] {
            self.take(input, &[], &[]);
            while let Some(next) = self.desk.proceed() {
                match next {
                    Next::Speak(speech) => self.hear(speech),
                    Next::Commit(_) => self.take(Input::Committed, &[], &[]),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_said_of_what_is_not_on_disk(inputs in inputs()) {
        let (peers, changes) = peers();
        let mut owner = Owner::new();
        for input in inputs {
            owner.take(input, &peers, &changes);
        }
        owner.rest();
        prop_assert_eq!(owner.asked, owner.answered, "each who asked is answered once");
        let decided = owner.decided();
        prop_assert!(decided.is_subset(&owner.told), "what is here is told");
        prop_assert_eq!(owner.desk.replica().digest(), owner.disk.load().digest());
        prop_assert!(owner.desk.replica().undurable.is_empty());
    }
}
