//! The laws of the replica, shown over random histories.
//!
//! A history is made by a few nodes that write and merge at random; every node that merges the same
//! changes, in whatever order and however often, must then show the same.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

pub(super) const DC: DataCenterId = DataCenterId([7; 16]);

pub(super) fn key(n: u8) -> Keypair {
    Keypair::from_seed([n + 1; 32])
}

pub(super) fn replica(n: u8) -> Replica {
    Replica::new(DC, key(n), Limits::default())
}

pub(super) fn now(wall_ms: u64) -> Now {
    Now { mono: Duration::from_millis(wall_ms), wall_ms }
}

pub(super) fn actor() -> Actor {
    Actor { who: "root".into(), via: "test".into() }
}

pub(super) fn path() -> Path {
    "storage/nas1".parse().unwrap()
}

pub(super) fn field(n: u8) -> Field {
    ["a", "b", "c"][n as usize % 3].parse().unwrap()
}

pub(super) fn set(n: u8, value: u8) -> Edit {
    Edit { set: [(field(n), json!(value))].into(), ..Edit::default() }
}

/// What one node does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Set { node: u8, field: u8, value: u8, skew: u8 },
    SetTwo { node: u8, field: u8, value: u8 },
    Unset { node: u8, field: u8 },
    Remove { node: u8 },
    Learn { node: u8, change: prop::sample::Index },
    LearnAll { node: u8 },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u8..3, 0u8..3, 0u8..4, 0u8..4)
            .prop_map(|(node, field, value, skew)| Step::Set { node, field, value, skew }),
        3 => (0u8..3, 0u8..3, 0u8..4)
            .prop_map(|(node, field, value)| Step::SetTwo { node, field, value }),
        2 => (0u8..3, 0u8..3).prop_map(|(node, field)| Step::Unset { node, field }),
        1 => (0u8..3).prop_map(|node| Step::Remove { node }),
        3 => (0u8..3, any::<prop::sample::Index>())
            .prop_map(|(node, change)| Step::Learn { node, change }),
        2 => (0u8..3).prop_map(|node| Step::LearnAll { node }),
    ];
    prop::collection::vec(step, 1..40)
}

/// All changes that came of the steps.
pub(super) fn history(steps: &[Step]) -> Vec<SignedChange> {
    let mut nodes = [replica(0), replica(1), replica(2)];
    let mut changes: Vec<SignedChange> = Vec::new();
    for (time, step) in steps.iter().enumerate() {
        let wall = 1_000_000 + time as u64;
        let (node, edit, skew) = match step {
            Step::Set { node, field, value, skew } => (node, set(*field, *value), *skew),
            Step::SetTwo { node, field: f, value } => {
                let large = |f, value: u8| (field(f), json!(value.to_string().repeat(100)));
                let set = [large(*f, *value), large(f + 1, value + 1)].into();
                (node, Edit { set, ..Edit::default() }, 0)
            }
            Step::Unset { node, field: f } => {
                (node, Edit { unset: [field(*f)].into(), ..Edit::default() }, 0)
            }
            Step::Remove { node } => (node, Edit { remove: true, ..Edit::default() }, 0),
            Step::Learn { node, change } => {
                if !changes.is_empty() {
                    let change = changes[change.index(changes.len())].clone();
                    let _ = nodes[*node as usize].merge(change, false, now(wall));
                }
                continue;
            }
            Step::LearnAll { node } => {
                for change in changes.clone() {
                    let _ = nodes[*node as usize].merge(change, false, now(wall));
                }
                continue;
            }
        };
        let wall = now(wall + u64::from(skew) * 50_000);
        let written = nodes[*node as usize].write(&path(), edit, actor(), u64::from(*node), wall);
        changes.extend(written.ok().and_then(|(written, _)| written.change));
    }
    changes
}

/// All that a document shows and remembers, as text.
pub(super) fn shown(replica: &Replica) -> String {
    let Some(document) = replica.document(&path()) else { return String::new() };
    let fields: Vec<_> = document.fields().map(|(f, v, c)| (f, v, c.stamp())).collect();
    let conflicts: Vec<_> = document
        .conflicts()
        .into_iter()
        .map(|c| {
            let losers: Vec<_> = c.losers.iter().map(|s| (s.change.stamp(), &s.value)).collect();
            format!("{} {:?} {losers:?}", c.field, c.winner.change.stamp())
        })
        .collect();
    format!("{fields:?} {conflicts:?} {:?}", replica.vector().digest())
}

fn merged(changes: impl IntoIterator<Item = SignedChange>) -> Replica {
    let mut node = replica(9);
    for change in changes {
        let _ = node.merge(change, false, now(2_000_000));
    }
    node
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        (steps, order) in steps().prop_flat_map(|steps| {
            let changes = history(&steps).len();
            let order = Just((0..changes).chain(0..changes).collect::<Vec<_>>()).prop_shuffle();
            (Just(steps), order)
        })
    ) {
        let changes = history(&steps);
        let straight = merged(changes.clone());
        let shuffled = merged(order.into_iter().map(|at| changes[at].clone()));
        prop_assert_eq!(shown(&straight), shown(&shuffled));
    }

    #[test]
    fn a_replica_read_back_from_its_disk_shows_the_same(steps in steps()) {
        let changes = history(&steps);
        let memory = merged(changes.clone());
        let bytes = changes.iter().rev().map(|c| SignedChange::trust(c.bytes().clone()).unwrap());
        let seen = Vector::default();
        let disk = Replica::load(DC, key(9), Limits::default(), bytes, seen, now(2_000_000));
        prop_assert_eq!(shown(&memory), shown(&disk));
    }

    #[test]
    fn two_that_exchange_what_they_lack_show_the_same(
        steps in steps(),
        left in prop::collection::vec(any::<bool>(), 40),
    ) {
        let changes = history(&steps);
        let half = |side: bool| {
            let mine = changes.iter().zip(left.iter().cycle()).filter(move |(_, l)| **l == side);
            merged(mine.map(|(change, _)| change.clone()))
        };
        let (mut a, mut b) = (half(true), half(false));
        for replica in [&mut a, &mut b] {
            let (durable, undurable) = (replica.vector.clone(), BTreeSet::new());
            (replica.durable, replica.undurable) = (durable, undurable);
        }
        let (to_b, from_a) = a.delta(b.durable_vector());
        let (to_a, from_b) = b.delta(a.durable_vector());
        for change in to_b { let _ = b.merge(change, false, now(2_000_000)); }
        let _ = b.absorb(&from_a);
        for change in to_a { let _ = a.merge(change, false, now(2_000_000)); }
        let _ = a.absorb(&from_b);
        prop_assert_eq!(shown(&a), shown(&b));
        prop_assert_eq!(shown(&a), shown(&merged(changes)));
    }
}

fn written(outcome: Result<(Written, Outputs), WriteError>) -> SignedChange {
    outcome.expect("the write is within all bounds").0.change.expect("the write says something new")
}

#[test]
fn of_two_writes_that_did_not_know_of_each_other_the_loser_stays_until_settled() {
    let (mut a, mut b) = (replica(0), replica(1));
    let first = written(a.write(&path(), set(0, 1), actor(), 1, now(1000)));
    let second = written(b.write(&path(), set(0, 2), actor(), 1, now(2000)));
    // Two edits on one side do not supersede the other side's edit, which they never saw.
    let third = written(b.write(&path(), set(0, 3), actor(), 1, now(3000)));
    for change in [second, third] {
        let _ = a.merge(change, false, now(3000));
    }
    let _ = b.merge(first, false, now(3000));
    for node in [&a, &b] {
        let (at, conflicts) = node.conflicts().next().expect("a conflict shows");
        assert_eq!((at, conflicts.len()), (&path(), 1));
        assert_eq!(conflicts[0].winner.value, Some(json!(3)));
        assert_eq!(conflicts[0].losers[0].value, Some(json!(1)));
    }
    let settled = written(a.write(&path(), set(0, 3), actor(), 1, now(4000)));
    let _ = b.merge(settled, false, now(4000));
    assert_eq!((a.conflicts().count(), b.conflicts().count()), (0, 0));
}

#[test]
fn an_edit_that_a_removal_did_not_know_of_stays_as_a_conflict() {
    let (mut a, mut b) = (replica(0), replica(1));
    let first = written(a.write(&path(), set(0, 1), actor(), 1, now(1000)));
    let _ = b.merge(first, false, now(1000));
    let edit = written(b.write(&path(), set(0, 2), actor(), 1, now(2000)));
    let remove = Edit { remove: true, ..Edit::default() };
    let removal = written(a.write(&path(), remove, actor(), 1, now(3000)));
    let _ = a.merge(edit, false, now(3000));
    let _ = b.merge(removal, false, now(3000));
    assert_eq!(shown(&a), shown(&b));
    let (_, conflicts) = a.conflicts().next().expect("the edit is not lost in silence");
    assert_eq!(conflicts[0].losers[0].value, Some(json!(2)));
    let unset = Edit { unset: [field(0)].into(), ..Edit::default() };
    let settled = written(b.write(&path(), unset, actor(), 1, now(4000)));
    let _ = a.merge(settled, false, now(4000));
    assert_eq!((a.conflicts().count(), b.conflicts().count()), (0, 0));
}

#[test]
fn a_write_beats_what_it_saw_from_a_clock_far_ahead_and_drags_no_clock() {
    let (mut wrong, mut right) = (replica(0), replica(1));
    let ahead = written(wrong.write(&path(), set(0, 1), actor(), 1, now(900_000_000)));
    let _ = right.merge(ahead, false, now(1000));
    let _ = right.write(&path(), set(0, 2), actor(), 1, now(1000)).unwrap();
    assert_eq!(right.document(&path()).unwrap().value("a"), Some(&json!(2)));
    let elsewhere = written(right.write(&"b".parse().unwrap(), set(0, 2), actor(), 1, now(1001)));
    assert_eq!(elsewhere.at.wall_ms(), 1001);
}

#[test]
fn what_is_terminal_is_undone_by_no_later_write_and_no_removal() {
    let member: Path = "@member/x".parse().unwrap();
    let removed: Field = "removed".parse().unwrap();
    let (mut a, mut b) = (replica(0), replica(1));
    let say = |value| Edit { set: [(removed.clone(), value)].into(), ..Edit::default() };
    let by_a = written(a.write(&member, say(json!("by a")), actor(), 1, now(2000)));
    let by_b = written(b.write(&member, say(json!("by b")), actor(), 1, now(1000)));
    let _ = a.merge(by_b, false, now(2000));
    let _ = b.merge(by_a, false, now(2000));
    let undo = [
        say(Value::Null),
        Edit { unset: [removed.clone()].into(), ..Edit::default() },
        Edit { remove: true, ..Edit::default() },
    ];
    for (step, edit) in undo.into_iter().enumerate() {
        if let Ok((Written { change: Some(change), .. }, _)) =
            b.write(&member, edit, actor(), 1, now(5000 + step as u64))
        {
            let _ = a.merge(change, false, now(9000));
        }
    }
    for node in [&a, &b] {
        let document = node.document(&member).unwrap();
        assert_eq!(document.value("removed"), Some(&json!("by b")));
        assert!(document.conflicts().is_empty(), "what is decided is in no conflict");
    }
}

#[test]
fn history_keeps_its_bound_and_what_it_forgot_is_not_taken_for_new() {
    let limits = Limits { history_changes: 4, history_bytes: 0, ..Limits::default() };
    let mut node = Replica::new(DC, key(0), limits.clone());
    let mut changes = Vec::new();
    let mut disk: BTreeMap<Dot, Arc<[u8]>> = BTreeMap::new();
    let mut seen = Vector::default();
    for time in 0..50u8 {
        let outcome = node.write(&path(), set(0, time), actor(), 1, now(u64::from(time)));
        let (outcome, outputs) = outcome.unwrap();
        changes.extend(outcome.change);
        for op in outputs.commit.ops {
            match op {
                StoreOp::Put { dot, bytes } => drop(disk.insert(dot, bytes)),
                StoreOp::Abridge(change) => drop(disk.insert(change.dot, change.bytes().clone())),
                StoreOp::Forget(dot) => drop(disk.remove(&dot)),
                StoreOp::Seen(writer, seq) => drop(seen.raise(writer, seq)),
            }
        }
    }
    let document = node.document(&path()).unwrap();
    assert_eq!(document.history().count(), 5);
    assert_eq!(disk.len(), 5);
    let again = node.merge(changes[0].clone(), true, now(100));
    assert!(again.notify.is_empty() && again.send.is_empty());
    let stored = disk.into_values().map(|bytes| SignedChange::verify(bytes).unwrap());
    let back = Replica::load(DC, key(0), limits, stored, seen, now(100));
    assert_eq!(shown(&back), shown(&node));
}

#[test]
fn what_is_not_on_disk_is_shown_to_nobody() {
    let mut node = replica(0);
    let (_, outputs) = node.write(&path(), set(0, 1), actor(), 1, now(1000)).unwrap();
    assert_eq!(node.delta(&Vector::default()).0.len(), 0);
    assert_eq!(*node.durable_vector(), Vector::default());
    node.committed(&outputs.commit);
    assert_eq!(node.delta(&Vector::default()).0.len(), 1);
    assert_eq!(node.durable_vector(), node.vector());
}

#[test]
fn a_write_of_what_stands_there_changes_nothing() {
    let mut node = replica(0);
    let _ = node.write(&path(), set(0, 1), actor(), 1, now(1000)).unwrap();
    let (written, outputs) = node.write(&path(), set(0, 1), actor(), 1, now(2000)).unwrap();
    assert!(written.change.is_none() && written.stamp.is_some());
    assert!(outputs.commit.ops.is_empty());
}

#[test]
fn what_is_too_large_is_refused_whole() {
    let mut node = replica(0);
    let large =
        Edit { set: [(field(0), json!("x".repeat(DOCUMENT_BYTES_MAX)))].into(), ..Edit::default() };
    let error = node.write(&path(), large, actor(), 1, now(1)).unwrap_err();
    assert!(matches!(error, WriteError::Bound { .. }));
    assert!(*node.vector() == Vector::default() && node.document(&path()).is_none());
}
