//! What operators do: edits that collide, on few documents, and the coming and going of nodes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use peerage_proto::id::NodeId;
use peerage_proto::replica::{
    Document, Edit, Field, Full, Path, Replica, SignedChange, WriteError,
};
use peerage_proto::roster::{self, NodeName, Roster, Standing};
use peerage_proto::time::Now;
use serde_json::{Value, json};

use super::{Event, LEAVING_MS, World, rest};
use crate::sim::dice::Dice;
use crate::sim::host::Fate;
use crate::sim::network::HostId;
use crate::sim::promise::{Broken, Promise, hold};

pub(super) const PATHS: [&str; 3] = ["storage/nas1", "options", "users/ann"];
const FIELDS: [&str; 3] = ["server", "size", "enabled"];

/// Names are few, so that they are taken twice; some differ in case only, and are one name.
const NAMES: [&str; 11] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "A", "B"];

impl World {
    /// Writes on a node, as one commit. The write may be refused for what it asks, never because
    /// other nodes are away.
    pub(super) fn write(&mut self, id: HostId, edits: Vec<(Path, Edit)>) -> Result<(), Broken> {
        let host = &mut self.hosts[id.0];
        let now = host.now(self.time_ms);
        let Some(process) = &mut host.process else { return Ok(()) };
        let knew = |path: &Path| (path.clone(), self.ledger.known_to(process.replica(), path));
        let mut knew: BTreeMap<_, _> = edits.iter().map(|(path, _)| knew(path)).collect();
        match process.write(edits.clone(), now) {
            Ok((written, effects)) => {
                for change in written {
                    let (set, unset) = (change.set.keys().collect::<Vec<_>>(), &change.unset);
                    let what = if change.remove { "removes" } else { "writes" };
                    self.log.note(
                        self.time_ms,
                        format_args!("{id} {what} {change:?} set {set:?} unset {unset:?}"),
                    );
                    shows_at_once(process.replica(), &change)?;
                    let number = change.dot;
                    let knew = knew.remove(&change.path).unwrap_or_default();
                    let earlier = self.ledger.enter(change, id, knew);
                    hold(Promise::OneNumberOneChange, earlier.is_none(), || {
                        format!("{number:?} is given twice, first to {earlier:?}")
                    })?;
                }
                self.apply(id, effects)
            }
            Err(WriteError::NoDocument(_) | WriteError::NoField { .. }) => Ok(()),
            Err(WriteError::Full(full)) => {
                self.log.note(self.time_ms, format_args!("{id} is full: {full}"));
                is_full(process.replica(), &full, &edits)
            }
            Err(error) => hold(Promise::AlwaysWritable, false, || format!("{id}: {error}")),
        }
    }

    /// Has one node admit another, which starts on an empty disk and waits to be greeted.
    pub(super) fn admit(&mut self, by: HostId, newcomer: HostId) -> Result<(), Broken> {
        if self.hosts[newcomer.0].process.is_none() {
            self.start(newcomer);
        }
        self.note(format_args!("{by} admits {newcomer}"));
        let id = self.hosts[newcomer.0].node_id();
        let (own, now) = (self.hosts[by.0].node_id(), self.hosts[by.0].now(self.time_ms));
        let Some(process) = self.hosts[by.0].member() else { return Ok(()) };
        let (path, edit) = admission(&mut self.dice, &process.decided(), id, own, now);
        self.write(by, vec![(path, edit)])?;
        self.sessions += 1;
        let session = self.sessions;
        let Some(process) = &mut self.hosts[by.0].process else { return Ok(()) };
        let effects = process.greet(id, session, now);
        self.apply(by, effects)
    }

    /// Something that an operator does, on any node that is up and belongs.
    pub(super) fn work(&mut self) -> Result<(), Broken> {
        let able: Vec<HostId> =
            self.host_ids().filter(|id| self.hosts[id.0].member().is_some()).collect();
        let Some(&any) = self.dice.pick(&able) else { return Ok(()) };
        let here = match self.at_work {
            Some(id) if able.contains(&id) && self.dice.chance(40) => id,
            _ => any,
        };
        self.at_work = Some(here);
        let Some(process) = self.hosts[here.0].member() else { return Ok(()) };
        let (own, now) = (self.hosts[here.0].node_id(), self.hosts[here.0].now(self.time_ms));
        let other = HostId(self.dice.below(self.hosts.len() as u64) as usize);
        let node = self.hosts[other.0].node_id();
        let standing = process.decided().member(&node).map(|m| m.standing.clone());
        let (path, edit) = match (Deed::next(&mut self.dice), standing) {
            (Deed::Rename, _) => renaming(&mut self.dice, &process.decided(), own),
            (Deed::Remove, Some(Standing::Member)) if self.budget.removals > 0 => {
                self.budget.removals -= 1;
                self.note(format_args!("{here} removes {other}"));
                (roster::member_path(&node), Roster::removal(own, "root", now.wall_ms))
            }
            (Deed::Meddle, Some(Standing::Removed(_))) => meddling(&mut self.dice, node),
            // A removed node is admitted, too, by a node that has not heard of the removal, or that
            // has.
            (Deed::Admit, None | Some(Standing::Removed(_)))
                if self.hosts[other.0].fate == Fate::There =>
            {
                return self.admit(here, other);
            }
            (Deed::Leave, _) if self.budget.leavings > 0 => {
                self.budget.leavings -= 1;
                let run = process.run;
                self.note(format_args!("{here} leaves"));
                self.schedule(LEAVING_MS, Event::Stop { host: here, run });
                (roster::member_path(&own), Roster::leaving(own, "root", now.wall_ms))
            }
            _ => {
                let edits = edits(&mut self.dice, process.replica());
                return self.write(here, edits);
            }
        };
        self.write(here, vec![(path, edit)])
    }
}

/// Checks that a write is refused for lack of room only where live changes take the room: history
/// is forgotten by itself, and a write that only takes away, or is to the Data Center's own
/// records, always has room.
fn is_full(replica: &Replica, full: &Full, edits: &[(Path, Edit)]) -> Result<(), Broken> {
    let (shows, stands) = rest::live_bytes(replica);
    let counted = shows <= full.live && full.live <= stands;
    let no_room = full.live + full.more > full.limit;
    let adds = edits.iter().any(|(path, edit)| !path.is_reserved() && !edit.set.is_empty());
    hold(Promise::AlwaysWritable, counted && no_room && adds, || {
        format!("{edits:?} is refused where {shows} bytes show and {stands} stand: {full}")
    })
}

/// Checks that a write shows at once on the node that wrote it, whatever the node knew and whatever
/// its clock says.
fn shows_at_once(replica: &Replica, change: &SignedChange) -> Result<(), Broken> {
    if change.path.is_reserved() {
        // A terminal field does not yield to a later write.
        return Ok(());
    }
    let shown =
        |field: &Field| replica.document(&change.path).and_then(|d| d.value(field.as_str()));
    let holds = change.set.iter().all(|(field, value)| shown(field) == Some(value))
        && change.unset.iter().all(|field| shown(field).is_none())
        && !(change.remove && replica.document(&change.path).is_some_and(Document::exists));
    hold(Promise::AlwaysWritable, holds, || {
        format!("{change:?} does not show where it was written")
    })
}

/// What an operator does to a Data Center.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Edit,
    Rename,
    Admit,
    Remove,
    /// Tries to bring back a removed member by writing to its record.
    Meddle,
    Leave,
}

impl Deed {
    fn next(dice: &mut Dice) -> Self {
        dice.weighted(&[
            (36, Self::Edit),
            (2, Self::Rename),
            (6, Self::Admit),
            (6, Self::Remove),
            (8, Self::Meddle),
            (2, Self::Leave),
        ])
    }
}

/// Edits of one setting, or of several as one commit.
fn edits(dice: &mut Dice, replica: &Replica) -> Vec<(Path, Edit)> {
    let count = if dice.chance(25) { 3 } else { 1 };
    let edits: BTreeMap<Path, Edit> = (0..count).map(|_| edit(dice, replica)).collect();
    edits.into_iter().collect()
}

/// An edit of a setting that makes sense on this replica, or nearly.
fn edit(dice: &mut Dice, replica: &Replica) -> (Path, Edit) {
    let path: Path = PATHS[dice.below(3) as usize].parse().expect("the paths are well-formed");
    let field = || -> [Field; 3] { FIELDS.map(|f| f.parse().expect("the fields are well-formed")) };
    let mut edit = Edit::default();
    match dice.below(20) {
        0..=13 => {
            for field in field() {
                if dice.chance(50) {
                    edit.set.insert(field, value(dice));
                }
            }
        }
        14..=16 => drop(edit.unset.insert(field()[dice.below(3) as usize].clone())),
        17 => edit.remove = true,
        _ => edit = revert(dice, replica, &path),
    }
    (path, edit)
}

/// A small value, or one that is large enough to be left out where it is superseded.
fn value(dice: &mut Dice) -> Value {
    match dice.below(4) {
        3 => json!("3".repeat(80)),
        small => json!(small),
    }
}

/// The document as it stood after one of its changes: what `settings revert` writes.
fn revert(dice: &mut Dice, replica: &Replica, path: &Path) -> Edit {
    let Some(document) = replica.document(path) else { return Edit::default() };
    let stamps: Vec<String> = document.history().map(|(c, _)| c.stamp().to_string()).collect();
    let then = dice.pick(&stamps).and_then(|stamp| document.as_of(stamp)).unwrap_or_default();
    let gone = document.fields().map(|(field, _, _)| field.clone());
    Edit { unset: gone.filter(|f| !then.contains_key(f)).collect(), set: then, ..Edit::default() }
}

/// A name that no current member has, as far as this node knows.
fn free_name(dice: &mut Dice, roster: &Roster) -> NodeName {
    let free: Vec<&str> =
        NAMES.into_iter().filter(|name| roster.holder_of(name).is_none()).collect();
    let name = dice.pick(&free).copied().unwrap_or("z");
    name.parse().expect("the names are well-formed")
}

/// The founding of the Data Center on a node: the record of the Data Center and its own.
pub(super) fn founding(dice: &mut Dice, founder: NodeId, now: Now) -> [(Path, Edit); 2] {
    let (member, own) = admission(dice, &Roster::default(), founder, founder, now);
    [(roster::datacenter_path(), Roster::founding("Home Lab", now.wall_ms)), (member, own)]
}

/// The admission of a node by another.
fn admission(dice: &mut Dice, roster: &Roster, id: NodeId, by: NodeId, now: Now) -> (Path, Edit) {
    let name = free_name(dice, roster);
    let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, id.0[0]), 4747));
    let edit = roster.admission(&id, &name, &[address.into()], by, None, now.wall_ms);
    (roster::member_path(&id), edit)
}

/// Another name for a member.
fn renaming(dice: &mut Dice, roster: &Roster, id: NodeId) -> (Path, Edit) {
    (roster::member_path(&id), Roster::renaming(&free_name(dice, roster)))
}

/// A write that would bring a removed member back if its removal were a write like any other.
fn meddling(dice: &mut Dice, id: NodeId) -> (Path, Edit) {
    let removed: Field = "removed".parse().expect("the field is well-formed");
    let edit = match dice.chance(50) {
        true => Edit { unset: [removed].into(), ..Edit::default() },
        false => Edit { remove: true, ..Edit::default() },
    };
    (roster::member_path(&id), edit)
}
