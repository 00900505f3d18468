//! What must hold when all is well again: every member holds and shows the same, and it is what
//! was written.

use std::collections::BTreeSet;

use peerage_proto::replica::{Document, Dot, Field, Path, Replica};
use peerage_proto::roster::{Standing, one_name};

use super::{World, operators};
use crate::sim::host::Fate;
use crate::sim::network::HostId;
use crate::sim::process::Process;
use crate::sim::promise::{Broken, Promise, hold};
use crate::sim::reference::Shown;

/// Checks all promises of a world that has come to rest.
///
/// # Errors
/// The first promise that does not hold.
pub(super) fn check(world: &World) -> Result<(), Broken> {
    let members = members(world);
    let known = everywhere(world, &members)?;
    for (id, process) in &members {
        the_removed_are_out(world, *id, process)?;
        names_are_unique(*id, process)?;
        shows_what_was_written(world, *id, process, &known)?;
        history_has_yielded(*id, process)?;
    }
    Ok(())
}

/// The largest group of running members that know of each other. It leaves out removed nodes, and
/// nodes of whose admission no other member heard. Such an admission was lost with the disk of the
/// only node that knew of it, or a node wrote it that had been removed before and did not know
/// that: no other member takes in the nodes that it let in, be it one or several.
fn members(world: &World) -> Vec<(HostId, &Process)> {
    let running = world.host_ids().filter_map(|id| Some((id, world.hosts[id.0].member()?)));
    let mut rest: Vec<(HostId, &Process)> = running.collect();
    let knows = |a: &Process, b: HostId| a.roster().is_current(&world.hosts[b.0].node_id());
    let mut largest: Vec<(HostId, &Process)> = Vec::new();
    while let Some(first) = rest.pop() {
        let mut group = vec![first];
        let mut next = 0;
        while let Some((id, process)) = group.get(next).copied() {
            let mutual =
                |(other, its): &(HostId, &Process)| knows(process, *other) && knows(its, id);
            let (met, others) = rest.into_iter().partition(mutual);
            rest = others;
            group.extend::<Vec<_>>(met);
            next += 1;
        }
        if group.len() > largest.len() {
            largest = group;
        }
    }
    largest.sort_by_key(|(id, _)| *id);
    largest
}

/// Checks that every member holds each change that any member holds. Answers with these changes.
fn everywhere(world: &World, members: &[(HostId, &Process)]) -> Result<BTreeSet<Dot>, Broken> {
    let mut known = BTreeSet::new();
    for (dot, entry) in world.ledger.entries() {
        let (holding, lacking): (Vec<HostId>, Vec<HostId>) =
            members.iter().map(|(id, _)| *id).partition(|id| world.hosts[id.0].disk.holds(dot));
        if holding.is_empty() {
            continue;
        }
        known.insert(*dot);
        let promise = match world.hosts[entry.writer.0].fate {
            Fate::Destroyed => Promise::Equality,
            _ => Promise::AcknowledgedMeansKept,
        };
        hold(promise, lacking.is_empty(), || {
            let names =
                |ids: &[HostId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("{:?} is on {}, not on {}", entry.change, names(&holding), names(&lacking))
        })?;
    }
    Ok(known)
}

fn shows_what_was_written(
    world: &World,
    id: HostId,
    process: &Process,
    known: &BTreeSet<Dot>,
) -> Result<(), Broken> {
    let host = &world.hosts[id.0];
    let stored = host.stored_replica(world.time_ms, world.limits.clone());
    let paths: BTreeSet<&Path> = world.ledger.entries().map(|(_, e)| &e.change.path).collect();
    for path in paths {
        let expected = Shown::by_definition(&world.ledger, known, path);
        let shown = |replica: &Replica| replica.document(path).map(Shown::of).unwrap_or_default();
        let found = shown(process.replica());
        hold(Promise::AlwaysWritable, found == expected, || {
            format!("{id} shows {path} as\n  {found:?}\nand what was written is\n  {expected:?}")
        })?;
        let found = shown(&stored);
        hold(Promise::AcknowledgedMeansKept, found == expected, || {
            format!("started again, {id} shows {path} as\n  {found:?}\nnot as\n  {expected:?}")
        })?;
    }
    Ok(())
}

/// Checks that the settings keep to the limit while there is history to forget. A change above a
/// gap does not count, for it must stay: it would be taken for new if it came again.
fn history_has_yielded(id: HostId, process: &Process) -> Result<(), Broken> {
    let replica = process.replica();
    let room = replica.room();
    let paths = operators::PATHS.iter().filter_map(|path| replica.document(&path.parse().ok()?));
    let history = paths.flat_map(Document::history).filter(|(_, stands)| !stands);
    let kept = history.filter(|(change, _)| replica.vector().covers(&change.dot)).count();
    hold(Promise::AlwaysWritable, kept == 0 || room.settings.total() <= room.limit, || {
        format!("{id} keeps {kept} changes of history that nothing has room for: {room:?}")
    })
}

/// Two sizes of the changes to settings, worked out the slow way; what lives lies between them. The
/// first is of the changes of which a value shows, without the values that could be left out. The
/// second is of all changes that are not wholly superseded.
pub(super) fn live_bytes(replica: &Replica) -> (usize, usize) {
    let (mut shows, mut stands) = (0, 0);
    for path in operators::PATHS {
        let path: Path = path.parse().expect("the paths are well-formed");
        let Some(document) = replica.document(&path) else { continue };
        for (change, holds) in document.history() {
            let shown = document.fields().any(|(_, _, shown)| shown.dot == change.dot);
            let stands_in = |field: &Field| {
                document.siblings(field.as_str()).any(|sibling| sibling.dot == change.dot)
            };
            let superseded = change.set.keys().filter(|field| !stands_in(field));
            let idle: usize = superseded.map(|field| change.weight(field)).sum();
            shows += if shown { change.bytes().len() - idle } else { 0 };
            stands += if holds { change.bytes().len() } else { 0 };
        }
    }
    (shows, stands)
}

/// Checks that a node does not go on as a member if this roster says that it was removed and it can
/// hear of that; and that the roster shows each removal that the disk holds.
fn the_removed_are_out(world: &World, id: HostId, process: &Process) -> Result<(), Broken> {
    let removed = process.roster().all().filter(|m| matches!(m.standing, Standing::Removed(_)));
    let removed: BTreeSet<_> = removed.map(|m| m.id).collect();
    let own = world.hosts[id.0].node_id();
    for host in world.host_ids().filter(|h| removed.contains(&world.hosts[h.0].node_id())) {
        let goes_on = world.hosts[host.0].member().is_some_and(|p| p.peers().contains(&own));
        hold(Promise::RemovedStaysRemoved, !goes_on, || {
            format!("{id} knows that {host} was removed, and {host} goes on as a member")
        })?;
    }
    for (dot, entry) in world.ledger.entries() {
        let removal = entry.change.path.as_str().starts_with("@member/")
            && entry.change.set.contains_key("removed");
        if removal && world.hosts[id.0].disk.holds(dot) {
            let node = entry.change.path.as_str().trim_start_matches("@member/").parse().ok();
            let out = node.is_some_and(|node| removed.contains(&node));
            hold(Promise::RemovedStaysRemoved, out, || {
                format!("{id} holds {:?}, and its roster does not", entry.change)
            })?;
        }
    }
    Ok(())
}

fn names_are_unique(id: HostId, process: &Process) -> Result<(), Broken> {
    let mut taken = BTreeSet::new();
    for member in process.roster().current() {
        hold(Promise::NamesAreUnique, taken.insert(member.name.to_ascii_lowercase()), || {
            format!("{id} shows two members as {}", member.name)
        })?;
        let mut claims =
            process.roster().current().filter(|m| one_name(&m.given_name, &member.given_name));
        let earlier = claims.any(|m| (m.claim, m.id) < (member.claim, member.id));
        hold(Promise::NamesAreUnique, earlier != (member.name == member.given_name), || {
            format!("{id} shows {} as {}", member.given_name, member.name)
        })?;
    }
    Ok(())
}
