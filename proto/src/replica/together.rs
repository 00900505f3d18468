//! What is written together is told together; and a write supersedes what it saw, whatever the
//! clocks said.

use serde_json::json;

use super::laws::{DC, actor, field, key, now, path, replica, set, shown};
use super::*;
use crate::time::Hlc;

fn at(path: &str) -> Path {
    path.parse().unwrap()
}

fn edits(paths: &[&str], value: u8) -> Vec<(Path, Edit)> {
    paths.iter().map(|path| (at(path), set(0, value))).collect()
}

/// Writes as one commit, and stores it.
fn write_all(
    node: &mut Replica,
    edits: Vec<(Path, Edit)>,
    wall_ms: u64,
) -> Result<(Vec<Written>, Vec<SignedChange>), WriteError> {
    let (written, outputs) = node.write_all(edits, actor(), 1, now(wall_ms))?;
    node.committed(&outputs.commit);
    Ok((written, outputs.send))
}

fn told(outputs: &Outputs) -> Vec<&str> {
    outputs.notify.iter().map(|change| change.path.as_str()).collect()
}

#[test]
fn a_commit_is_one_for_its_writer_and_is_told_whole() {
    let mut node = replica(0);
    let _ = write_all(&mut node, edits(&["b"], 1), 1000).unwrap();
    let said = [edits(&["a"], 1), edits(&["b"], 1), edits(&["c"], 1)].concat();
    let (written, outputs) = node.write_all(said, actor(), 1, now(1000)).unwrap();
    let changed: Vec<_> = written.iter().map(|w| (w.path.as_str(), w.change.is_some())).collect();
    assert_eq!(changed, [("a", true), ("b", false), ("c", true)]);
    assert_eq!(told(&outputs), ["a", "c"]);
    assert_eq!(outputs.commit.ops.len(), 2);
    let ranges: Vec<_> = outputs.send.iter().map(|change| change.commit).collect();
    assert_eq!(ranges, [Some((2, 3).into()); 2]);
    let read = SignedChange::verify(outputs.send[1].bytes().clone()).unwrap();
    assert_eq!(read.commit, ranges[1]);
}

#[test]
fn of_what_cannot_be_written_together_nothing_is() {
    let mut node = replica(0);
    let wrong = [
        [edits(&["a"], 1), vec![(at("b"), Edit { remove: true, ..Edit::default() })]].concat(),
        [edits(&["a"], 1), edits(&["a"], 2)].concat(),
        [edits(&["a"], 1), vec![(at("b"), Edit { if_tag: Some("x".into()), ..set(0, 1) })]]
            .concat(),
    ];
    for edits in wrong {
        let error = write_all(&mut node, edits, 1000).unwrap_err();
        assert!(error.to_string().contains(['a', 'b']), "{error}");
        assert!(node.document(&at("a")).is_none() && *node.vector() == Vector::default());
    }
    let limits = Limits { total_bytes: 1000, reserve_bytes: 0, ..Limits::default() };
    let mut small = Replica::new(DC, key(1), limits);
    let each = |path| {
        (at(path), Edit { set: [(field(0), json!("x".repeat(300)))].into(), ..Edit::default() })
    };
    assert!(matches!(
        write_all(&mut small, vec![each("a"), each("b")], 1000),
        Err(WriteError::Full(_))
    ));
    assert!(small.document(&at("a")).is_none());
    assert!(write_all(&mut small, vec![each("a")], 1000).is_ok(), "one of them alone fits");
}

#[test]
fn elsewhere_a_commit_is_told_when_all_of_it_is_there_in_whatever_order_it_came() {
    let mut writer = replica(0);
    let (_, changes) = write_all(&mut writer, edits(&["a", "b", "c"], 1), 1000).unwrap();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let mut other = replica(1);
        for (index, of) in order.into_iter().enumerate() {
            let outputs = other.merge(changes[of].clone(), false, now(2000));
            let all = ["a", "b", "c"];
            assert_eq!(told(&outputs), if index == 2 { &all[..] } else { &[] }, "{order:?}");
            assert!(other.document(&at(all[of])).unwrap().exists(), "it is merged as it comes");
        }
        assert_eq!(other.overdue_at(), None);
    }
}

#[test]
fn a_session_that_leaves_out_what_is_superseded_completes_a_commit() {
    let mut writer = replica(0);
    let (_, changes) = write_all(&mut writer, edits(&["a", "b"], 1), 1000).unwrap();
    let mut other = replica(1);
    assert!(told(&other.merge(changes[0].clone(), false, now(2000))).is_empty());
    assert_eq!(told(&other.absorb(writer.vector())), ["a"]);
}

#[test]
fn what_waits_for_the_rest_of_its_commit_waits_for_a_minute_also_over_a_start() {
    let mut writer = replica(0);
    let (_, changes) = write_all(&mut writer, edits(&["a", "b", "c"], 1), 1000).unwrap();
    let mut other = replica(1);
    let came = Now { mono: Duration::from_secs(5), wall_ms: 2000 };
    assert!(told(&other.merge(changes[1].clone(), false, came)).is_empty());
    let due = other.overdue_at().unwrap();
    assert_eq!(due, came.mono + HOLD_MAX);
    let (kept, seen) = ([changes[1].clone()], Vector::default());
    let mut again = Replica::load(DC, key(1), Limits::default(), kept, seen, came);
    for node in [&mut other, &mut again] {
        assert!(told(&node.tell_overdue(came)).is_empty());
        let late = Now { mono: due, wall_ms: 2000 };
        assert_eq!(told(&node.tell_overdue(late)), ["b"]);
        assert_eq!(node.overdue_at(), None);
        assert!(told(&node.merge(changes[0].clone(), false, late)).is_empty());
        assert_eq!(told(&node.merge(changes[2].clone(), false, late)), ["a", "c"]);
    }
}

#[test]
fn a_proof_is_told_at_once_and_once() {
    let mut writer = replica(0);
    let (_, changes) = write_all(&mut writer, edits(&["a", "b"], 1), 1000).unwrap();
    for waits in [false, true] {
        let mut other = replica(1);
        if waits {
            assert!(told(&other.merge(changes[0].clone(), false, now(2000))).is_empty());
        }
        assert_eq!(told(&other.merge_proof(changes[0].clone(), false, now(2000))), ["a"]);
        assert!(told(&other.merge_proof(changes[0].clone(), false, now(2000))).is_empty());
        assert_eq!(told(&other.merge(changes[1].clone(), false, now(2000))), ["b"]);
    }
}

/// `If-Match` compared only the newest stamp. A concurrent edit with an earlier stamp, merged
/// meanwhile, did not change that stamp, so a write overlooked it.
#[test]
fn a_concurrent_edit_that_was_merged_meanwhile_changes_the_tag() {
    let (mut here, mut there) = (replica(0), replica(1));
    let (written, _) = here.write(&path(), set(0, 1), actor(), 1, now(2000)).unwrap();
    let tag = here.document(&path()).unwrap().tag();
    assert_eq!(written.tag, tag);
    let (_, outputs) = there.write(&path(), set(1, 1), actor(), 1, now(1000)).unwrap();
    let _ = here.merge(outputs.send[0].clone(), false, now(3000));
    assert_ne!(here.document(&path()).unwrap().tag(), tag);
    let edit = || Edit { if_tag: Some(tag.clone()), ..set(0, 2) };
    let refused = here.write(&path(), edit(), actor(), 1, now(4000)).unwrap_err();
    assert!(matches!(refused, WriteError::Changed { .. }), "{refused}");
    let _ = there.merge(written.change.unwrap(), false, now(3000));
    assert_eq!(there.document(&path()).unwrap().tag(), here.document(&path()).unwrap().tag());
}

/// A write with a stamp that is not later than what the write saw. No node of this version makes
/// one; a node that receives one goes by the changes that it names as seen.
fn behind(change: &SignedChange, at: u64, by: &Keypair) -> SignedChange {
    SignedChange::sign(Change { at: Hlc::at(at), ..Change::clone(change) }, by)
}

#[test]
fn what_a_write_saw_it_supersedes_whatever_their_stamps_say() {
    let (mut first, mut second) = (replica(0), replica(1));
    let (_, old) = first.write(&path(), set(0, 1), actor(), 1, now(1000)).unwrap();
    let _ = second.merge(old.send[0].clone(), false, now(2000));
    let (_, new) = second.write(&path(), set(0, 2), actor(), 1, now(2000)).unwrap();
    let new = behind(&new.send[0], 10, &key(1));
    let remove = Edit { remove: true, ..Edit::default() };
    let _ = first.merge(new.clone(), false, now(3000));
    let (_, gone) = first.write(&path(), remove, actor(), 1, now(3000)).unwrap();
    let _ = second.merge(gone.send[0].clone(), false, now(4000));
    let (_, back) = second.write(&path(), set(1, 3), actor(), 1, now(4000)).unwrap();
    let back = behind(&back.send[0], 11, &key(1));

    let merged = |changes: &[&SignedChange]| {
        let mut node = replica(2);
        for change in changes {
            let _ = node.merge(SignedChange::clone(change), false, now(5000));
        }
        node
    };
    let [old, gone] = [&old.send[0], &gone.send[0]];
    for order in [[old, &new], [&new, old]] {
        let node = merged(&order);
        let document = node.document(&path()).unwrap();
        assert_eq!(document.value("a"), Some(&json!(2)));
        assert_eq!(document.latest().unwrap().dot, new.dot);
        let [then, now] = [old, &new].map(|at| document.as_of(&at.stamp().to_string()).unwrap());
        assert_eq!((&then[&field(0)], &now[&field(0)]), (&json!(1), &json!(2)));
        assert_eq!(node.conflicts().count(), 0);
    }
    for order in [[old, &new, gone, &back], [&back, gone, &new, old]] {
        let node = merged(&order);
        let shows: Vec<_> =
            node.document(&path()).unwrap().fields().map(|(f, _, _)| f.clone()).collect();
        assert_eq!(shows, [field(1)]);
        assert_eq!(node.conflicts().count(), 0);
        assert_eq!(shown(&node), shown(&merged(&[gone, old, &back, &new])));
    }
}
