//! The settings: read in one look at the replica, written through it.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_proto::access::Caller;
use peerage_proto::api::settings::{
    Conflict, Document, Edit, FieldMeta, Fields, GetDocument, GetHistory, HistoryEntry,
    ListConflicts, ListDocuments, LosingEdit, RemoveDocument, Revert, SetFields, StampedDocument,
    WriteOutcome, WrittenChange,
};
use peerage_proto::api::{ApiError, ErrorCode, Span, Wait, WaitOutcome};
use peerage_proto::replica::change::INLINE_BYTES_MAX;
use peerage_proto::replica::{self, Dot, Field, Path, Replica, SignedChange, Written};
use peerage_proto::roster::{Member, Roster};
use serde_json::Value;
use tokio::time::Instant;

use super::failure::{bad_name, member, not_transacted, not_written};
use super::{Agent, Answer, Due, List, Serve};
use crate::host::clock::rfc3339;
use crate::membership::{Members, stalled};
use crate::mesh::Mesh;
use crate::node::Node;
use crate::replica::{Acknowledged, Edits, Views};

/// How long `--wait` waits if the caller does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// About how many bytes it takes to say who wrote one field, and when.
const META_BYTES: usize = 160;

/// How long `--wait` may wait.
const WAIT_MAX: Duration = Duration::from_secs(3600);

impl Serve<ListDocuments> for Agent {
    async fn serve(&self, _: &Caller, request: ListDocuments) -> Answer<List<Document>> {
        documents(&self.node, request).await
    }
}

async fn documents(node: &Node, request: ListDocuments) -> Answer<List<Document>> {
    let Some(membership) = node.membership() else { return Ok(List::made(Vec::new())) };
    if request.prefix.starts_with('@') {
        return Err(bad_name(&replica::NameError::Reserved));
    }
    let look = membership.replica.read(move |replica| {
        let mut look = Vec::new();
        replica.documents(&request.prefix).for_each(|(_, document)| look.extend(says(document)));
        look
    });
    let look = look.await.map_err(not_written)?;
    let roster = request.full.then(|| membership.roster());
    let held_bytes = size_of_val(&*look) + look.iter().map(Says::names_bytes).sum::<usize>();
    let mut look = look.into_iter().peekable();
    let documents = std::iter::from_fn(move || {
        let mut document = vec![look.next()?];
        while let Some(more) = look.next_if(|more| more.change.path == document[0].change.path) {
            document.push(more);
        }
        let roster = roster.clone();
        let bytes = bytes_of(&document) + if roster.is_some() { meta_bytes(&document) } else { 0 };
        Some(Due::new(bytes, move || Document {
            path: document[0].change.path.to_string(),
            fields: fields_of(&document),
            meta: roster.map(|roster| meta_of(&document, &roster)),
        }))
    });
    Ok(List::new(held_bytes, documents))
}

impl Serve<GetDocument> for Agent {
    async fn serve(&self, _: &Caller, request: GetDocument) -> Answer<Due<StampedDocument>> {
        document(&self.node, request).await
    }
}

async fn document(node: &Node, request: GetDocument) -> Answer<Due<StampedDocument>> {
    let path = Path::setting(&request.path).map_err(|e| bad_name(&e))?;
    let membership = member(node)?;
    let roster = request.full.then(|| membership.roster());
    let name = path.to_string();
    let look = membership.replica.read(move |replica| {
        let document = replica.document(&path).filter(|document| document.exists())?;
        Some((document.stamp()?.to_string(), document.tag(), says(document)))
    });
    let look = look.await.map_err(not_written)?;
    let (stamp, etag, look) = look.ok_or_else(|| no_document(&request.path))?;
    let bytes = bytes_of(&look) + if roster.is_some() { meta_bytes(&look) } else { 0 };
    Ok(Due::new(bytes, move || StampedDocument {
        path: name,
        stamp,
        etag,
        fields: fields_of(&look),
        meta: roster.map(|roster| meta_of(&look, &roster)),
    }))
}

impl Serve<SetFields> for Agent {
    async fn serve(&self, caller: &Caller, request: SetFields) -> Answer<WriteOutcome> {
        set(&self.node, caller, request).await
    }
}

async fn set(node: &Node, caller: &Caller, request: SetFields) -> Answer<WriteOutcome> {
    let SetFields { path, set, unset, if_match, wait, timeout } = request;
    if set.is_empty() && unset.is_empty() {
        return Err(ApiError::new(ErrorCode::BadRequest, "no field to set or to unset was given"));
    }
    let mut edit = replica::Edit { if_tag: if_match, ..replica::Edit::default() };
    edit.set = named(set)?;
    for name in unset {
        let field = Field::named(&name).map_err(|e| bad_name(&e))?;
        if edit.set.contains_key(&field) {
            let message = format!("{field} is both to be set and to be taken away");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        edit.unset.insert(field);
    }
    write(node, caller, &path, edit, wait, timeout).await
}

/// The fields of a document, each by its canonical name.
pub(super) fn named(fields: Fields) -> Answer<BTreeMap<Field, Value>> {
    let mut named = BTreeMap::new();
    for (name, value) in fields {
        let field = Field::named(&name).map_err(|e| bad_name(&e))?;
        if named.insert(field, value).is_some() {
            // The two names differ as texts: one is written with a combining accent, one with the
            // letter that has it.
            let message = format!("the field {name:?} is set twice, in two ways of writing it");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    }
    Ok(named)
}

impl Serve<RemoveDocument> for Agent {
    async fn serve(&self, caller: &Caller, request: RemoveDocument) -> Answer<WriteOutcome> {
        remove(&self.node, caller, request).await
    }
}

async fn remove(node: &Node, caller: &Caller, request: RemoveDocument) -> Answer<WriteOutcome> {
    let RemoveDocument { path, if_match, wait, timeout } = request;
    let edit = replica::Edit { remove: true, if_tag: if_match, ..replica::Edit::default() };
    write(node, caller, &path, edit, wait, timeout).await
}

impl Serve<Revert> for Agent {
    async fn serve(&self, caller: &Caller, request: Revert) -> Answer<WriteOutcome> {
        revert(&self.node, caller, request).await
    }
}

async fn revert(node: &Node, caller: &Caller, request: Revert) -> Answer<WriteOutcome> {
    let Revert { path, stamp, wait, timeout } = request;
    let at = Path::setting(&path).map_err(|e| bad_name(&e))?;
    let decide = move |replica: &Replica, _: &Views| {
        let edit = reverting(replica.document(&at), &path, &stamp)?;
        Ok(vec![(at, edit)])
    };
    outcome_of_one(transact(node, caller, wait, timeout, decide).await?)
}

/// The edit that makes a document what it was after an earlier change.
fn reverting(
    document: Option<&replica::Document>,
    path: &str,
    stamp: &str,
) -> Answer<replica::Edit> {
    let document = document.ok_or_else(|| no_document(path))?;
    let then = document.as_of(stamp).ok_or_else(|| {
        let message = format!("{path} has no change {stamp:?} that is still kept");
        ApiError::new(ErrorCode::NotFound, message)
            .hint(format!("`peerage settings history {path}` shows the stamps"))
    })?;
    if let Some(field) = document.forgotten_as_of(stamp) {
        let message = format!(
            "how {field} of {path} stood then is not kept any more, so it cannot be as it was: \
             history yields to room, and to `peerage settings compact`"
        );
        return Err(ApiError::new(ErrorCode::Refused, message).hint(format!(
            "`peerage settings history {path}` shows what is kept; set the fields that you want"
        )));
    }
    let now = document.fields().map(|(field, _, _)| field);
    let unset = now.filter(|field| !then.contains_key(*field)).cloned().collect();
    Ok(replica::Edit { set: then, unset, ..replica::Edit::default() })
}

async fn write(
    node: &Node,
    caller: &Caller,
    path: &str,
    edit: replica::Edit,
    wait: Wait,
    timeout: Option<Span>,
) -> Answer<WriteOutcome> {
    let path = Path::setting(path).map_err(|e| bad_name(&e))?;
    let decide = move |_: &Replica, _: &Views| Ok(vec![(path, edit)]);
    outcome_of_one(transact(node, caller, wait, timeout, decide).await?)
}

/// Writes the edits that `decide` returns as one commit, and waits for the other nodes as far as
/// the caller asked.
pub(super) async fn transact(
    node: &Node,
    caller: &Caller,
    wait: Wait,
    timeout: Option<Span>,
    decide: impl FnOnce(&Replica, &Views) -> Answer<Edits> + Send + 'static,
) -> Answer<(Vec<Written>, WaitOutcome)> {
    let membership = member(node)?;
    let of = u32::try_from(membership.roster().current().count()).unwrap_or(u32::MAX);
    if wait.needed(of) > of.max(1) {
        let message = format!("there are {of} nodes: a write cannot be on {wait} of them");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let actor = caller.actor();
    let deadline = timeout.map_or(WAIT_DEFAULT, Span::duration).min(WAIT_MAX);
    let deadline = Instant::now() + deadline;
    let asked = wait != Wait::Local;
    let decide = move |replica: &Replica, views: &Views| Ok(((), decide(replica, views)?));
    let transacted = membership.replica.transact(actor, asked, decide).await;
    let ((), Acknowledged { written, receipts }) = transacted.map_err(not_transacted)?;
    let reached = match &receipts {
        // A write that changes nothing is on all nodes already.
        Some(receipts) if receipts.is_empty() => everywhere(&membership.roster(), wait),
        Some(receipts) => reached(&membership.members, node.mesh(), wait, deadline, receipts).await,
        None => here_alone(&membership.roster(), wait),
    };
    Ok((written, reached))
}

fn outcome_of_one((mut written, wait): (Vec<Written>, WaitOutcome)) -> Answer<WriteOutcome> {
    let written = written.pop();
    let written =
        written.ok_or_else(|| ApiError::new(ErrorCode::Internal, "nothing was written"))?;
    Ok(WriteOutcome {
        path: written.path.to_string(),
        stamp: written.stamp.map(|stamp| stamp.to_string()).unwrap_or_default(),
        etag: written.tag,
        changed: written.change.is_some(),
        wait,
    })
}

fn everywhere(roster: &Roster, wait: Wait) -> WaitOutcome {
    let of = u32::try_from(roster.current().count()).unwrap_or(u32::MAX);
    WaitOutcome {
        wanted: wait,
        reached: of,
        of,
        met: true,
        missing: Vec::new(),
        reasons: Vec::new(),
    }
}

/// What is known of a write for which no receipts were asked.
pub(super) fn here_alone(roster: &Roster, wait: Wait) -> WaitOutcome {
    let of = u32::try_from(roster.current().count()).unwrap_or(u32::MAX);
    let met = wait.needed(of) <= 1;
    WaitOutcome { wanted: wait, reached: 1, of, met, missing: Vec::new(), reasons: Vec::new() }
}

/// Waits until a write is on as many nodes as asked for, or until the deadline.
async fn reached(
    members: &Members,
    mesh: &Mesh,
    wait: Wait,
    deadline: Instant,
    receipts: &crate::replica::receipts::Expected,
) -> WaitOutcome {
    let (me, roster) = (members.me, members.roster());
    let of = u32::try_from(roster.current().count()).unwrap_or(u32::MAX);
    let count = |nodes: &std::collections::BTreeSet<_>| {
        let members = nodes.iter().filter(|id| roster.is_current(id) && **id != me);
        1 + u32::try_from(members.count()).unwrap_or(u32::MAX - 1)
    };
    let needed = wait.needed(of);
    let nodes = receipts.until(deadline, |nodes| count(nodes) >= needed).await;
    let reached = count(&nodes);
    let absent = roster.current().filter(|m| m.id != me && !nodes.contains(&m.id));
    let absent: Vec<_> = absent.collect();
    let reason = |member: &&Member| {
        let why = stalled(&mesh.peer(member.id)?)?;
        Some(format!("{} is {why}", member.name))
    };
    WaitOutcome {
        wanted: wait,
        reached,
        of,
        met: reached >= needed,
        reasons: absent.iter().filter_map(reason).collect(),
        missing: absent.iter().map(|member| member.name.clone()).collect(),
    }
}

impl Serve<GetHistory> for Agent {
    async fn serve(&self, _: &Caller, request: GetHistory) -> Answer<List<HistoryEntry>> {
        history(&self.node, request).await
    }
}

async fn history(node: &Node, request: GetHistory) -> Answer<List<HistoryEntry>> {
    let path = Path::setting(&request.path).map_err(|e| bad_name(&e))?;
    let membership = member(node)?;
    let roster = membership.roster();
    let look = membership.replica.read(move |replica| {
        let history = replica.document(&path)?.history();
        let mut look: Vec<_> = history.map(|(change, current)| (change.clone(), current)).collect();
        look.reverse();
        Some(look)
    });
    let look = look.await.map_err(not_written)?.ok_or_else(|| no_document(&request.path))?;
    let entry = move |(change, current): (SignedChange, bool)| {
        let roster = roster.clone();
        Due::new(change.bytes().len(), move || {
            let WrittenChange { set, unset, removed } = written_change(&change);
            HistoryEntry {
                stamp: change.stamp().to_string(),
                at: rfc3339(change.at.wall_ms()),
                writer: roster.name_of(&change.dot.writer.node),
                actor: change.actor.who.clone(),
                set,
                unset,
                left_out: change.left_out().map(Field::to_string).collect(),
                removed,
                current,
            }
        })
    };
    Ok(List::new(size_of_val(&*look), look.into_iter().map(entry)))
}

/// A conflict in one look: its field, and the changes on its sides, the winner first.
type Contested = (Field, Vec<SignedChange>);

impl Serve<ListConflicts> for Agent {
    async fn serve(&self, _: &Caller, _: ListConflicts) -> Answer<List<Conflict>> {
        conflicts(&self.node).await
    }
}

async fn conflicts(node: &Node) -> Answer<List<Conflict>> {
    let Some(membership) = node.membership() else { return Ok(List::made(Vec::new())) };
    let roster = membership.roster();
    let look = membership.replica.read(move |replica| {
        let contested = |conflict: replica::Conflict| {
            let sides = std::iter::once(conflict.winner).chain(conflict.losers);
            (conflict.field, sides.map(|side| side.change).collect())
        };
        let mut look: Vec<Contested> = Vec::new();
        replica.conflicts().for_each(|(_, list)| look.extend(list.into_iter().map(contested)));
        look
    });
    let look = look.await.map_err(not_written)?;
    let sides: usize = look.iter().map(|(_, sides)| size_of_val(&**sides)).sum();
    let conflict = move |(field, sides): Contested| {
        let roster = roster.clone();
        let bytes = sides.iter().map(|change| 2 * change.bytes().len()).sum();
        Due::new(bytes, move || Conflict {
            path: sides[0].path.to_string(),
            winner: edit(&sides[0], &field, &roster),
            losers: sides[1..]
                .iter()
                .map(|change| LosingEdit {
                    edit: edit(change, &field, &roster),
                    change: written_change(change),
                })
                .collect(),
            field: field.to_string(),
        })
    };
    Ok(List::new(size_of_val(&*look) + sides, look.into_iter().map(conflict)))
}

/// What a change says of a field; no value where the change takes the field away.
fn edit(change: &SignedChange, field: &Field, roster: &Roster) -> Edit {
    Edit {
        stamp: change.stamp().to_string(),
        value: change.set.get(field).cloned(),
        writer: roster.name_of(&change.dot.writer.node),
        actor: change.actor.who.clone(),
        at: rfc3339(change.at.wall_ms()),
    }
}

/// What a change wrote, in the terms of the api.
pub(super) fn written_change(change: &SignedChange) -> WrittenChange {
    WrittenChange {
        set: change.set.iter().map(|(field, value)| (field.to_string(), value.clone())).collect(),
        unset: change.unset.iter().map(Field::to_string).collect(),
        removed: change.remove,
    }
}

/// The part of a document that one change says. The change is shared, so that a look at many
/// documents takes little memory.
pub(super) struct Says {
    change: SignedChange,
    /// The fields that the change says, in their order; `None` where it says all that it sets.
    only: Option<Box<[Field]>>,
}

impl Says {
    /// The fields that the change says, with their values.
    fn fields(&self) -> impl Iterator<Item = (&Field, &Value)> {
        let says =
            |field: &Field| self.only.as_ref().is_none_or(|only| only.binary_search(field).is_ok());
        self.change.set.iter().filter(move |(field, _)| says(field))
    }

    /// How many bytes the names of the fields take.
    fn names_bytes(&self) -> usize {
        let only = self.only.as_deref().unwrap_or_default();
        only.iter().map(|field| size_of::<Field>() + field.as_str().len()).sum()
    }
}

/// The changes that say a document, in one look. A list of documents holds those of each document,
/// one after the other.
pub(super) fn says(document: &replica::Document) -> Vec<Says> {
    let mut by_change: BTreeMap<Dot, (SignedChange, Vec<Field>)> = BTreeMap::new();
    for (field, _, change) in document.fields() {
        let says = by_change.entry(change.dot).or_insert_with(|| (change.clone(), Vec::new()));
        says.1.push(field.clone());
    }
    let says = |(change, fields): (SignedChange, Vec<Field>)| Says {
        only: (fields.len() < change.set.len()).then(|| fields.into()),
        change,
    };
    by_change.into_values().map(says).collect()
}

/// About how many bytes these fields take as JSON.
pub(super) fn bytes_of(look: &[Says]) -> usize {
    let bytes = |(says, field): (&Says, &Field)| {
        field.as_str().len() + says.change.weight(field).max(INLINE_BYTES_MAX)
    };
    let all = look.iter().flat_map(|says| says.fields().map(move |(field, _)| (says, field)));
    all.map(bytes).sum()
}

/// About how many bytes it takes to say who wrote each field.
fn meta_bytes(look: &[Says]) -> usize {
    look.iter().map(|says| says.fields().count() * META_BYTES).sum()
}

/// The fields that a document shows, in the terms of the api.
pub(super) fn fields_of(look: &[Says]) -> Fields {
    let all = look.iter().flat_map(Says::fields);
    all.map(|(field, value)| (field.to_string(), value.clone())).collect()
}

fn meta_of(look: &[Says], roster: &Roster) -> BTreeMap<String, FieldMeta> {
    let meta = |change: &SignedChange| FieldMeta {
        stamp: change.stamp().to_string(),
        writer: roster.name_of(&change.dot.writer.node),
        actor: change.actor.who.clone(),
    };
    let all = look.iter().flat_map(|says| says.fields().map(|(field, _)| (field, &says.change)));
    all.map(|(field, change)| (field.to_string(), meta(change))).collect()
}

fn no_document(path: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no document {path}"))
        .hint("`peerage settings list` shows what there is")
}
