//! A node may forget history, and nobody may notice: neither in what it shows, nor in what it
//! sends.
//!
//! Each test guards against a failure that the simulation found, or that we found by asking what it
//! might find.

use std::time::Duration;

use serde_json::json;

use super::laws::{DC, actor, field, key, now, path, replica, set, shown};
use super::*;

/// A replica that keeps no superseded change, except one that its vector does not cover yet.
fn forgetful(n: u8) -> Replica {
    let limits = Limits {
        history_changes: 0,
        history_age: Duration::ZERO,
        history_bytes: 0,
        ..Limits::default()
    };
    Replica::new(DC, key(n), limits)
}

/// Merges changes into a node and stores them.
fn keep(node: &mut Replica, changes: &[SignedChange]) {
    for change in changes {
        let outputs = node.merge(change.clone(), false, now(9000));
        node.committed(&outputs.commit);
    }
}

fn write_stored(node: &mut Replica, edit: Edit, wall_ms: u64) -> SignedChange {
    let (written, outputs) = node.write(&path(), edit, actor(), 1, now(wall_ms)).unwrap();
    node.committed(&outputs.commit);
    written.change.expect("the write says something new")
}

/// Gives `late` what it lacks, from a node that has forgotten all that it could.
fn catch_up(late: &mut Replica, from: &Replica) {
    let (changes, vector) = from.delta(late.durable_vector());
    keep(late, &changes);
    let outputs = late.absorb(&vector);
    late.committed(&outputs.commit);
}

/// Three writes to one field each knew of the write before. A node forgot the middle one. A peer
/// that had only the first write then took the third for one that did not know of the first, and
/// showed a conflict. The node itself did the same when it was started again.
#[test]
fn what_history_forgot_in_the_middle_makes_no_conflict() {
    let both = Edit { set: [(field(0), json!(1)), (field(1), json!(1))].into(), ..Edit::default() };
    let (mut x, mut y, mut z) = (replica(0), replica(1), replica(2));
    let first = write_stored(&mut x, both, 1000);
    keep(&mut y, std::slice::from_ref(&first));
    let second = write_stored(&mut y, set(0, 2), 2000);
    keep(&mut z, &[first.clone(), second.clone()]);
    let third = write_stored(&mut z, set(0, 3), 3000);
    let (mut whole, mut late) = (forgetful(3), forgetful(4));
    keep(&mut whole, &[first.clone(), second.clone(), third]);
    assert!(whole.change(&second.dot).is_none(), "the second is forgotten");
    keep(&mut late, &[first]);
    catch_up(&mut late, &whole);
    let (kept, seen) = whole.delta(&Vector::default());
    let again = Replica::load(DC, key(3), Limits::default(), kept, seen, now(9000));
    for node in [&whole, &late, &again] {
        assert_eq!(node.conflicts().count(), 0);
        assert_eq!(shown(node), shown(&whole));
    }
}

/// The same failure with two removals that did not know of each other, where the earlier one is
/// forgotten.
#[test]
fn what_a_forgotten_removal_saw_makes_no_conflict() {
    let remove = || Edit { remove: true, ..Edit::default() };
    let (mut x, mut y, mut z) = (replica(0), replica(1), replica(2));
    let first = write_stored(&mut x, set(0, 1), 1000);
    keep(&mut y, std::slice::from_ref(&first));
    let removal = write_stored(&mut y, remove(), 2000);
    let other = write_stored(&mut z, set(1, 1), 2500);
    let other_removal = write_stored(&mut z, remove(), 3000);
    let (mut whole, mut late) = (forgetful(3), forgetful(4));
    keep(&mut whole, &[first.clone(), removal, other, other_removal]);
    let _ = write_stored(&mut whole, set(2, 1), 4000);
    keep(&mut late, &[first]);
    catch_up(&mut late, &whole);
    assert_eq!(shown(&late), shown(&whole));
    assert_eq!(late.conflicts().count(), 0);
}

/// A node had not received a removal, but only a later write that had seen it, and then removed the
/// document, too. Its removal replaced the first one without naming what the first one had
/// superseded. So the superseded write came back, as a conflict.
#[test]
fn a_removal_takes_over_the_word_of_no_removal_that_it_has_not_met() {
    let remove = || Edit { remove: true, ..Edit::default() };
    let (mut x, mut y) = (replica(0), replica(1));
    let first = write_stored(&mut x, set(0, 1), 1000);
    let removal = write_stored(&mut x, remove(), 2000);
    let after = write_stored(&mut x, set(1, 1), 3000);
    let other = write_stored(&mut y, set(0, 2), 4000);
    keep(&mut y, std::slice::from_ref(&after));
    let again = write_stored(&mut y, remove(), 5000);
    let (mut whole, mut late) = (forgetful(3), forgetful(4));
    keep(&mut whole, &[first.clone(), removal, after, other, again]);
    keep(&mut late, &[first]);
    catch_up(&mut late, &whole);
    assert_eq!(shown(&late), shown(&whole));
    assert_eq!(late.conflicts().count(), 0);
}

/// A write made an old change forgettable. A session that ran before the commit sent neither
/// change, but it sent a vector that covered the old one.
#[test]
fn a_change_is_told_until_what_superseded_it_is_on_disk() {
    let mut node = forgetful(0);
    let first = write_stored(&mut node, set(0, 1), 1000);
    let (_, outputs) = node.write(&path(), set(0, 2), actor(), 1, now(2000)).unwrap();
    let dots = |node: &Replica| -> Vec<Dot> {
        node.delta(&Vector::default()).0.iter().map(|change| change.dot).collect()
    };
    assert_eq!(dots(&node), [first.dot]);
    let before = node.bytes();
    node.committed(&outputs.commit);
    assert_eq!(dots(&node), [Dot { seq: 2, ..first.dot }]);
    assert!(node.bytes() < before, "what is forgotten takes no room");
}

/// A node received a change, but its writer's change before that was lost with the writer. The
/// vector does not tell which nodes have such a change, so the digest must.
#[test]
fn a_change_beyond_a_gap_shows_in_the_digest() {
    let mut lost = replica(0);
    let _ = write_stored(&mut lost, set(0, 1), 1000);
    let second = write_stored(&mut lost, set(1, 1), 2000);
    let (mut has, mut lacks) = (replica(1), replica(2));
    keep(&mut has, &[second]);
    assert_eq!(has.durable_vector(), lacks.durable_vector());
    assert_ne!(has.digest(), lacks.digest());
    catch_up(&mut lacks, &has);
    assert_eq!(has.digest(), lacks.digest());
    assert_eq!(shown(&has), shown(&lacks));
}
