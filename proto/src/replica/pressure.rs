//! A full store: live changes count, history is forgotten, and what a node shows stays the same.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::laws::{DC, actor, field, history, key, now, path, shown, steps};
use super::*;

/// How large the values of these tests are.
const LARGE: usize = 9_000;

/// A replica for a hundred and some large values, and little else.
fn small(n: u8) -> Replica {
    let limits = Limits { total_bytes: 1_000_000, reserve_bytes: 50_000, ..Limits::default() };
    Replica::new(DC, key(n), limits)
}

fn large(n: usize) -> Edit {
    Edit { set: [(field(0), json!(format!("{n:0>LARGE$}")))].into(), ..Edit::default() }
}

fn remove() -> Edit {
    Edit { remove: true, ..Edit::default() }
}

fn at(text: &str) -> Path {
    text.parse().unwrap()
}

/// Writes an edit and stores it.
fn write(node: &mut Replica, path: &Path, edit: Edit) -> Result<SignedChange, WriteError> {
    let wall_ms = 1000 + node.vector().iter().map(|(_, seq)| seq).sum::<u64>();
    let (written, outputs) = node.write(path, edit, actor(), 1, now(wall_ms))?;
    node.committed(&outputs.commit);
    assert_eq!(node.bytes(), node.room().settings.total() + node.room().records.total());
    Ok(written.change.expect("the write says something new"))
}

/// One change of a large field, and of a small one.
fn two(n: usize, field_of_it: u8) -> Edit {
    let large = (field(0), json!(format!("{n:0>LARGE$}")));
    Edit { set: [large, (field(field_of_it), json!(n))].into(), ..Edit::default() }
}

/// Each change set a large field, and a small field that no later change touched. So the change
/// kept its superseded large value for ever, and a document that showed 9 kB took 18.
#[test]
fn a_superseded_value_gives_its_room_back_though_its_change_still_shows() {
    let mut node = small(0);
    let documents = 54;
    for n in 0..documents {
        let path = at(&format!("logs/{n}"));
        write(&mut node, &path, two(n, 1)).unwrap();
        write(&mut node, &path, two(n + 1000, 2)).unwrap();
        let room = node.room().settings;
        assert!(room.live < (n + 1) * (LARGE + 800), "{room:?}");
    }
    let before = node.room().settings;
    assert!(before.history > 400_000, "history has the room that nothing else needs: {before:?}");
    // Room is needed: as many documents fit, with these among them, as if there was no history.
    let (all, _) = fill(&mut node);
    assert!(all > 100, "only {all} fit");
    for n in 0..documents {
        let document = node.document(&at(&format!("logs/{n}"))).unwrap();
        assert_eq!(document.fields().count(), 3, "logs/{n}");
    }
    let again = Replica::load(
        DC,
        key(0),
        node.limits.clone(),
        node.delta(&Vector::default()).0,
        node.vector().clone(),
        now(9000),
    );
    assert_eq!(again.room().settings, node.room().settings);
    for (path, document) in node.documents("") {
        let shown = |d: &Document| {
            d.fields().map(|(f, v, c)| (f.clone(), v.clone(), c.stamp())).collect::<Vec<_>>()
        };
        assert_eq!(shown(document), shown(again.document(path).unwrap()), "{path}");
    }
}

/// A peer that sends a change without a value that shows could take the value away.
#[test]
fn a_change_without_a_value_that_shows_is_not_taken() {
    let (mut node, mut late) = (small(0), small(1));
    let first = write(&mut node, &path(), two(1, 1)).unwrap();
    let robbed = first.without(&[field(0)].into());
    let outputs = late.merge(robbed.clone(), true, now(2000));
    assert!(outputs.untaken && outputs.commit.is_empty() && outputs.send.is_empty());
    assert!(late.document(&path()).is_none());
    // The node takes it once it knows the change that superseded the value.
    let second = write(&mut node, &path(), two(2, 2)).unwrap();
    take(&mut late, [second, robbed]);
    assert_eq!(shown(&late), shown(&node));
}

#[test]
fn how_a_field_stood_whose_value_is_left_out_is_not_known_any_more() {
    let mut node = small(0);
    let first = write(&mut node, &path(), two(1, 1)).unwrap().stamp().to_string();
    let second = write(&mut node, &path(), two(2, 2)).unwrap().stamp().to_string();
    let forgotten = |node: &Replica, stamp: &str| {
        node.document(&path()).unwrap().forgotten_as_of(stamp).cloned()
    };
    assert_eq!(forgotten(&node, &first), None);
    let outputs = node.compact();
    assert!(matches!(outputs.commit.ops[..], [StoreOp::Abridge(_)]));
    // Until the abridged change is on disk, a peer gets the first change whole.
    assert!(node.delta(&Vector::default()).0.iter().all(|c| c.left_out().next().is_none()));
    node.committed(&outputs.commit);
    assert_eq!(forgotten(&node, &first), Some(field(0)));
    assert_eq!(forgotten(&node, &second), None);
    assert_eq!(node.bytes(), node.room().settings.total());
}

/// Fills a replica with documents `logs/0`, `logs/1`, ... until one is refused.
fn fill(node: &mut Replica) -> (usize, WriteError) {
    (0..1000)
        .find_map(|n| Some((n, write(node, &at(&format!("logs/{n}")), large(n)).err()?)))
        .expect("a store is full at some time")
}

/// 104 MB were written in 116 documents, and all removed: "0 documents, 104.5 MB", and every
/// further write was refused, for ever.
#[test]
fn what_was_removed_gives_its_room_back_when_room_is_needed() {
    let mut node = small(0);
    for round in 0..3 {
        let (documents, _) = fill(&mut node);
        assert!(documents > 100, "round {round}: only {documents} fit");
        for n in 0..documents {
            write(&mut node, &at(&format!("logs/{n}")), remove()).unwrap();
        }
        assert_eq!(node.room().settings.live, 0);
    }
    assert!(node.bytes() <= 1_000_000, "{} are kept", node.bytes());
    assert!(node.room().settings.markers < 100_000, "what a removal leaves is small");
}

/// Four documents of 0.9 MB were updated 29 times each: further writes were refused as well, though
/// only 3.6 MB were live.
#[test]
fn what_was_superseded_gives_its_room_back_when_room_is_needed() {
    let mut node = small(0);
    for n in 0..300 {
        write(&mut node, &at(&format!("logs/{}", n % 4)), large(n)).unwrap();
    }
    let room = node.room();
    assert!(room.settings.live < 40_000 && room.settings.total() <= 1_000_000, "{room:?}");
    let kept = node.document(&at("logs/3")).unwrap().history().count();
    assert!(kept > 20, "history has the room that nothing else needs: {kept}");
    // Room is needed: what lives comes first, and the oldest of history goes first.
    fill(&mut node);
    let room = node.room();
    assert!(room.settings.live > 980_000 && room.settings.total() <= 1_000_000, "{room:?}");
}

/// Only the latest value of a field was kept, and `revert` took the field away.
#[test]
fn what_history_let_go_is_not_taken_for_what_was_not_there() {
    let mut node = small(0);
    let (path, set) =
        (at("a/b"), |n, value| Edit { set: [(field(n), json!(value))].into(), ..Edit::default() });
    write(&mut node, &path, set(0, 1)).unwrap();
    let then = write(&mut node, &path, set(1, 1)).unwrap().stamp().to_string();
    write(&mut node, &path, set(0, 2)).unwrap();
    let latest = write(&mut node, &path, set(2, 1)).unwrap().stamp().to_string();
    let forgotten =
        |node: &Replica, stamp: &str| node.document(&path).unwrap().forgotten_as_of(stamp).cloned();
    assert_eq!(forgotten(&node, &then), None, "all is kept");
    let outputs = node.compact();
    node.committed(&outputs.commit);
    assert_eq!(forgotten(&node, &then), Some(field(0)));
    assert_eq!(forgotten(&node, &latest), None);
}

#[test]
fn the_oldest_of_all_history_yields_first() {
    let mut node = small(0);
    // Each document has fewer changes than history keeps of it in any case: nothing but the room
    // makes them go.
    let dots: Vec<Dot> = (0..150)
        .map(|n| write(&mut node, &at(&format!("logs/{}", n % 6)), large(n)).unwrap().dot)
        .collect();
    let kept: Vec<bool> = dots.iter().map(|dot| node.change(dot).is_some()).collect();
    let first = kept.iter().position(|kept| *kept).unwrap();
    assert!(first > 30 && kept[first..].iter().all(|kept| *kept), "{kept:?}");
}

#[test]
fn a_full_store_takes_what_makes_room_what_settles_and_what_grows_nothing() {
    let (mut node, mut other) = (small(0), small(1));
    let flag = |value| Edit { set: [(field(1), json!(value))].into(), ..Edit::default() };
    let flags = at("flags/x");
    let first = write(&mut node, &flags, flag("on, at first")).unwrap();
    let _ = other.merge(first, false, now(1000));
    let theirs = write(&mut other, &flags, flag("theirs")).unwrap();
    write(&mut node, &flags, flag("ours")).unwrap();
    let (documents, _) = fill(&mut node);
    // Fills the store nearly to the last byte.
    let left = node.room().limit - node.room().settings.live;
    let last = Edit { set: [(field(0), json!("x".repeat(left - 250)))].into(), ..Edit::default() };
    write(&mut node, &at("last"), last).unwrap();
    assert!(matches!(write(&mut node, &at("new"), large(0)), Err(WriteError::Full(_))));
    assert!(matches!(
        write(&mut node, &at("logs/3"), flag("more and more")),
        Err(WriteError::Full(_))
    ));
    // A conflict came.
    let outputs = node.merge(theirs, false, now(9000));
    node.committed(&outputs.commit);
    write(&mut node, &flags, flag("settled, in more words than before")).unwrap();
    assert_eq!(node.conflicts().count(), 0);
    write(&mut node, &flags, flag("no longer than before")).unwrap();
    write(&mut node, &at("logs/1"), large(9999)).unwrap();
    write(&mut node, &at("logs/2"), Edit { unset: [field(0)].into(), ..Edit::default() }).unwrap();
    write(&mut node, &at("logs/3"), remove()).unwrap();
    let filling = node.room().limit - node.room().settings.live;
    let last =
        Edit { set: [(field(0), json!("x".repeat(filling - 250)))].into(), ..Edit::default() };
    write(&mut node, &at("last-2"), last).unwrap();
    let again = write(&mut node, &at("logs/3"), large(1));
    assert!(
        matches!(again, Err(WriteError::Full(_))),
        "what was removed is no conflict: {again:?}"
    );
    write(&mut node, &at("last-2"), remove()).unwrap();
    write(&mut node, &at("new"), large(0)).unwrap();
    for n in 4..documents {
        write(&mut node, &at(&format!("logs/{n}")), remove()).unwrap();
    }
}

#[test]
fn the_data_centers_own_records_have_room_of_their_own() {
    let mut node = small(0);
    fill(&mut node);
    let say = |field: &str, value: &str| Edit {
        set: [(field.parse().unwrap(), json!(value))].into(),
        ..Edit::default()
    };
    for n in 0..60 {
        write(&mut node, &at(&format!("@member/{n}")), say("name", "n")).unwrap();
    }
    // The history of the records is forgotten within the room of the records, and takes no room of
    // the settings.
    for n in 0..1000 {
        write(&mut node, &at(&format!("@member/{}", n % 60)), say("name", &format!("{n}")))
            .unwrap();
    }
    let room = node.room();
    assert!(room.records.total() <= 50_000 && room.settings.total() <= 1_000_000, "{room:?}");
    // Where even that room is used up, a member can still be removed.
    let refused = (60..1000)
        .find_map(|n| write(&mut node, &at(&format!("@invite/{n}")), say("name", "n")).err());
    let words = refused.expect("there is a bound").to_string();
    assert!(words.contains("own records are full") && words.contains("@invite"), "{words}");
    for n in 0..60 {
        write(&mut node, &at(&format!("@member/{n}")), say("removed", "by root")).unwrap();
    }
}

#[test]
fn a_refusal_names_what_takes_the_room() {
    let mut node = small(0);
    for n in 0..20 {
        write(&mut node, &at(&format!("users/{n}")), large(n)).unwrap();
    }
    write(&mut node, &at("users/7"), large(100)).unwrap();
    write(&mut node, &at("alone"), large(0)).unwrap();
    let (documents, refused) = fill(&mut node);
    let WriteError::Full(full) = &refused else { panic!("{refused}") };
    let names: Vec<_> = full.largest.iter().map(|h| (&*h.prefix, h.documents)).collect();
    assert_eq!(names, [("logs", documents), ("users", 20), ("alone", 1)]);
    let words = refused.to_string();
    assert!(words.starts_with("the settings are full: 9"), "{words}");
    assert!(words.contains("; users 18") && words.contains("; alone 9."), "{words}");
}

#[test]
fn a_store_that_is_nearly_full_is_told_of_until_there_is_clearly_more_room() {
    let room = |live| Room {
        settings: Sizes { live, ..Sizes::default() },
        records: Sizes::default(),
        limit: 1000,
        reserve: 100,
    };
    let told = |live, stands| room(live).shortage(stands).is_some();
    assert_eq!([949, 950, 2000].map(|live| told(live, false)), [false, true, true]);
    assert_eq!([899, 900, 949].map(|live| told(live, true)), [false, true, true]);
    assert_eq!(room(950).shortage(false), room(2000).shortage(true), "it is told once");
}

#[test]
fn compacting_forgets_all_history_of_the_settings_and_nothing_else() {
    let mut node = small(0);
    for n in 0..50 {
        write(&mut node, &path(), large(n)).unwrap();
        write(&mut node, &at("@member/a"), large(n)).unwrap();
    }
    let before = (shown(&node), node.room());
    let outputs = node.compact();
    node.committed(&outputs.commit);
    assert!(node.compact().commit.is_empty());
    let after = node.room();
    assert_eq!(shown(&node), before.0);
    assert_eq!(after.settings, Sizes { history: 0, ..before.1.settings });
    assert_eq!(after.records, before.1.records);
    assert_eq!(node.bytes(), after.settings.total() + after.records.total());
}

/// A replica in which history finds no room at all, or next to none.
fn pressed(n: u8, total_bytes: usize) -> Replica {
    Replica::new(DC, key(n), Limits { total_bytes, ..Limits::default() })
}

/// Merges changes into a node and stores them.
fn take(node: &mut Replica, changes: impl IntoIterator<Item = SignedChange>) {
    for change in changes {
        let outputs = node.merge(change, false, now(2_000_000));
        assert!(!outputs.untaken, "what superseded a value comes before a change without it");
        node.committed(&outputs.commit);
        assert_eq!(node.room().settings, looked_up(node), "what is counted is what is there");
    }
}

/// What the settings take, worked out the slow way.
fn looked_up(node: &Replica) -> Sizes {
    let mut sizes = Sizes::default();
    for document in node.documents.values() {
        let conflicts = document.conflicts();
        for (change, holds) in document.history() {
            let stands = |field: &&Field| {
                document.siblings(field.as_str()).any(|sibling| sibling.dot == change.dot)
            };
            let idle = change.set.keys().filter(|field| !stands(field));
            let idle: usize = idle.map(|field| change.weight(field)).sum();
            let bytes = change.bytes().len() - if holds { idle } else { 0 };
            sizes.history += if holds { idle } else { 0 };
            let shows = document.fields().any(|(_, _, shown)| shown.dot == change.dot);
            let sides = conflicts.iter().flat_map(|c| c.losers.iter().chain([&c.winner]));
            let contested =
                sides.filter(|side| side.value.is_some()).any(|s| s.change.dot == change.dot);
            match (shows || contested, holds) {
                (true, _) => sizes.live += bytes,
                // A sibling that sets the same value as the winner is in no conflict, but it is
                // live.
                (false, true) if change.set.keys().any(|field| stands(&field)) => {
                    sizes.live += bytes
                }
                (false, true) => sizes.markers += bytes,
                (false, false) => sizes.history += bytes,
            }
        }
    }
    sizes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The changes come in any order, with sessions between, and with any room for history.
    #[test]
    fn who_forgot_under_pressure_and_who_kept_everything_show_the_same(
        steps in steps(),
        left in prop::collection::vec(any::<bool>(), 40),
        room in prop::sample::select(vec![0usize, 700, 1500, 3000]),
    ) {
        let changes = history(&steps);
        let mut whole = pressed(7, usize::MAX / 2);
        take(&mut whole, changes.clone());
        let half = |side: bool| {
            let mine = changes.iter().zip(left.iter().cycle()).filter(move |(_, l)| **l == side);
            let mut mine: Vec<_> = mine.map(|(change, _)| change.clone()).collect();
            mine.reverse();
            mine
        };
        let (mut a, mut b, mut late) = (pressed(8, room), pressed(9, room), pressed(6, 1500));
        take(&mut a, half(true));
        take(&mut b, half(false));
        take(&mut late, changes.first().cloned());
        let session = |from: &Replica, to: &mut Replica| {
            let (lacking, vector) = from.delta(to.durable_vector());
            take(to, lacking);
            let outputs = to.absorb(&vector);
            to.committed(&outputs.commit);
        };
        session(&a, &mut b);
        session(&b, &mut a);
        // A late node hears of the changes from a node that has forgotten all its history.
        let outputs = b.compact();
        b.committed(&outputs.commit);
        session(&b, &mut late);
        // What was forgotten comes once more, and is not taken for new.
        take(&mut a, changes.clone());
        let (kept, seen) = a.delta(&Vector::default());
        let limits = Limits { total_bytes: room, ..Limits::default() };
        let again = Replica::load(DC, key(8), limits, kept, seen, now(2_000_000));
        for node in [&a, &b, &late, &again] {
            prop_assert_eq!(node.room().settings, looked_up(node));
            prop_assert_eq!(shown(node), shown(&whole));
            prop_assert!(node.room().settings.history <= room.max(1500));
        }
    }
}

#[test]
fn a_member_never_refuses_what_another_acknowledged() {
    let (mut node, mut other) = (small(0), Replica::new(DC, key(1), Limits::default()));
    fill(&mut node);
    for n in 0..50 {
        let theirs = write(&mut other, &at(&format!("other/{n}")), large(n)).unwrap();
        let outputs = node.merge(theirs, false, Now { mono: Duration::ZERO, wall_ms: 9000 });
        node.committed(&outputs.commit);
    }
    assert!(node.room().settings.live > 1_400_000);
    assert!(node.room().shortage(false).is_some());
    assert_eq!(node.documents("other").count(), 50);
    for n in 0..50 {
        write(&mut node, &at(&format!("other/{n}")), remove()).unwrap();
    }
    write(&mut node, &at("logs/0"), remove()).unwrap();
    write(&mut node, &at("other/0"), large(0)).unwrap();
}
