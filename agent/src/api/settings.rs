//! The settings: read in one look at the replica, written through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerage_proto::access::Caller;
use peerage_proto::api::settings::{
    Conflict, Document, Edit, FieldMeta, Fields, GetDocument, GetHistory, HistoryEntry,
    ListDocuments, LosingEdit, RemoveDocument, Revert, SetFields, StampedDocument, WriteOutcome,
    WrittenChange,
};
use peerage_proto::api::{ApiError, ErrorCode, Span, Wait, WaitOutcome};
use peerage_proto::replica::{self, Actor, Field, Path, Side, SignedChange};
use peerage_proto::roster::Roster;
use tokio::time::Instant;

use super::Answer;
use super::failure::{bad_name, member, not_written};
use crate::clock::rfc3339;
use crate::membership::Membership;
use crate::node::Node;

/// How long `--wait` waits where nobody says how long.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// How long `--wait` may wait.
const WAIT_MAX: Duration = Duration::from_secs(3600);

pub(super) async fn documents(node: &Node, request: ListDocuments) -> Answer<Vec<Document>> {
    let Some(membership) = node.membership() else { return Ok(Vec::new()) };
    if request.prefix.starts_with('@') {
        return Err(bad_name(&replica::NameError::Reserved));
    }
    let roster = membership.roster();
    let list = membership.replica.read(move |replica| {
        let document = |(path, document): (&Path, &replica::Document)| Document {
            path: path.to_string(),
            fields: fields(document),
            meta: request.full.then(|| meta(document, &roster)),
        };
        replica.documents(&request.prefix).map(document).collect()
    });
    list.await.map_err(not_written)
}

pub(super) async fn document(node: &Node, request: GetDocument) -> Answer<StampedDocument> {
    let path = Path::setting(&request.path).map_err(|e| bad_name(&e))?;
    let membership = member(node)?;
    let roster = membership.roster();
    let read = membership.replica.read(move |replica| {
        let document = replica.document(&path).filter(|document| document.exists())?;
        Some(StampedDocument {
            path: path.to_string(),
            stamp: document.stamp()?.to_string(),
            fields: fields(document),
            meta: request.full.then(|| meta(document, &roster)),
        })
    });
    read.await.map_err(not_written)?.ok_or_else(|| no_document(&request.path))
}

pub(super) async fn set(node: &Node, caller: &Caller, request: SetFields) -> Answer<WriteOutcome> {
    let SetFields { path, set, unset, if_match, wait, timeout } = request;
    if set.is_empty() && unset.is_empty() {
        return Err(ApiError::new(ErrorCode::BadRequest, "no field to set or to unset was given"));
    }
    let mut edit = replica::Edit { if_stamp: if_match, ..replica::Edit::default() };
    for (name, value) in set {
        let field = Field::named(&name).map_err(|e| bad_name(&e))?;
        if let Some(_other) = edit.set.insert(field, value) {
            // As texts they differ: one is written with an accent, one with the letter that has it.
            let message = format!("the field {name:?} is set twice, in two ways of writing it");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    }
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

pub(super) async fn remove(
    node: &Node,
    caller: &Caller,
    request: RemoveDocument,
) -> Answer<WriteOutcome> {
    let RemoveDocument { path, if_match, wait, timeout } = request;
    let edit = replica::Edit { remove: true, if_stamp: if_match, ..replica::Edit::default() };
    write(node, caller, &path, edit, wait, timeout).await
}

pub(super) async fn revert(node: &Node, caller: &Caller, request: Revert) -> Answer<WriteOutcome> {
    let Revert { path, stamp, wait, timeout } = request;
    let membership = member(node)?;
    let at = Path::setting(&path).map_err(|e| bad_name(&e))?;
    let looked = membership.replica.read(move |replica| {
        let document = replica.document(&at)?;
        let forgotten = document.forgotten_as_of(&stamp).cloned();
        let then = document.as_of(&stamp).ok_or(stamp);
        let now: Vec<Field> = document.fields().map(|(field, _, _)| field.clone()).collect();
        let latest = document.stamp().map(|stamp| stamp.to_string());
        Some((then, forgotten, now, latest))
    });
    let (then, forgotten, now, latest) =
        looked.await.map_err(not_written)?.ok_or_else(|| no_document(&path))?;
    let then = then.map_err(|stamp| {
        let message = format!("{path} has no change {stamp:?} that is still kept");
        ApiError::new(ErrorCode::NotFound, message)
            .hint(format!("`peerage settings history {path}` shows the stamps"))
    })?;
    if let Some(field) = forgotten {
        let message = format!(
            "how {field} of {path} stood then is not kept any more, so it cannot be as it was: \
             history yields to room, and to `peerage settings compact`"
        );
        return Err(ApiError::new(ErrorCode::Refused, message).hint(format!(
            "`peerage settings history {path}` shows what is kept; set the fields that you want"
        )));
    }
    let unset = now.into_iter().filter(|field| !then.contains_key(field)).collect();
    // What someone wrote since this look is not what the caller means to undo.
    let edit = replica::Edit { set: then, unset, remove: false, if_stamp: latest };
    write(node, caller, &path, edit, wait, timeout).await
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
    let membership = member(node)?;
    let of = u32::try_from(membership.roster().current().count()).unwrap_or(u32::MAX);
    if wait.needed(of) > of.max(1) {
        let message = format!("there are {of} nodes: a write cannot be on {wait} of them");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let actor = Actor { who: caller.to_string(), via: "socket".into() };
    let deadline = timeout.map_or(WAIT_DEFAULT, Span::duration).min(WAIT_MAX);
    let deadline = Instant::now() + deadline;
    let asked = wait != Wait::Local;
    let acknowledged = membership.replica.write(path.clone(), edit, actor, asked).await;
    let acknowledged = acknowledged.map_err(not_written)?;
    let outcome = match &acknowledged.receipts {
        Some(receipts) => reached(&membership, wait, deadline, receipts).await,
        None => here_alone(&membership.roster(), wait),
    };
    Ok(WriteOutcome {
        path: path.to_string(),
        stamp: acknowledged.written.stamp.map(|stamp| stamp.to_string()).unwrap_or_default(),
        changed: acknowledged.written.change.is_some(),
        wait: outcome,
    })
}

/// What is known of a write for which no receipts were asked.
fn here_alone(roster: &Roster, wait: Wait) -> WaitOutcome {
    let of = u32::try_from(roster.current().count()).unwrap_or(u32::MAX);
    let met = wait.needed(of) <= 1;
    WaitOutcome { wanted: wait, reached: 1, of, met, missing: Vec::new() }
}

/// Waits until a write is on as many nodes as asked for, or until the deadline.
async fn reached(
    membership: &Arc<Membership>,
    wait: Wait,
    deadline: Instant,
    receipts: &crate::receipts::Expected,
) -> WaitOutcome {
    let roster = membership.roster();
    let of = u32::try_from(roster.current().count()).unwrap_or(u32::MAX);
    let count = |nodes: &std::collections::BTreeSet<_>| {
        let members = nodes.iter().filter(|id| roster.is_current(id) && **id != membership.me);
        1 + u32::try_from(members.count()).unwrap_or(u32::MAX - 1)
    };
    let needed = wait.needed(of);
    let nodes = receipts.until(deadline, |nodes| count(nodes) >= needed).await;
    let reached = count(&nodes);
    let absent = roster.current().filter(|m| m.id != membership.me && !nodes.contains(&m.id));
    WaitOutcome {
        wanted: wait,
        reached,
        of,
        met: reached >= needed,
        missing: absent.map(|member| member.name.clone()).collect(),
    }
}

pub(super) async fn history(node: &Node, request: GetHistory) -> Answer<Vec<HistoryEntry>> {
    let path = Path::setting(&request.path).map_err(|e| bad_name(&e))?;
    let membership = member(node)?;
    let roster = membership.roster();
    let read = membership.replica.read(move |replica| {
        let history = replica.document(&path)?.history();
        let mut entries: Vec<_> = history
            .map(|(change, current)| {
                let WrittenChange { set, unset, removed } = written_change(change);
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
            .collect();
        entries.reverse();
        Some(entries)
    });
    read.await.map_err(not_written)?.ok_or_else(|| no_document(&request.path))
}

pub(super) async fn conflicts(node: &Node) -> Answer<Vec<Conflict>> {
    let Some(membership) = node.membership() else { return Ok(Vec::new()) };
    let roster = membership.roster();
    let list = membership.replica.read(move |replica| {
        let one = |path: &Path, conflict: replica::Conflict| Conflict {
            path: path.to_string(),
            field: conflict.field.to_string(),
            winner: edit(&conflict.winner, &roster),
            losers: conflict
                .losers
                .iter()
                .map(|side| LosingEdit {
                    edit: edit(side, &roster),
                    change: written_change(&side.change),
                })
                .collect(),
        };
        let all = replica.conflicts();
        all.flat_map(|(path, list)| list.into_iter().map(move |c| one(path, c))).collect()
    });
    list.await.map_err(not_written)
}

fn edit(side: &Side, roster: &Roster) -> Edit {
    Edit {
        stamp: side.change.stamp().to_string(),
        value: side.value.clone(),
        writer: roster.name_of(&side.change.dot.writer.node),
        actor: side.change.actor.who.clone(),
        at: rfc3339(side.change.at.wall_ms()),
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

/// The fields that a document shows, in the terms of the api.
pub(super) fn fields(document: &replica::Document) -> Fields {
    document.fields().map(|(field, value, _)| (field.to_string(), value.clone())).collect()
}

fn meta(document: &replica::Document, roster: &Roster) -> BTreeMap<String, FieldMeta> {
    let meta = |(field, _, change): (&Field, _, &SignedChange)| {
        let meta = FieldMeta {
            stamp: change.stamp().to_string(),
            writer: roster.name_of(&change.dot.writer.node),
            actor: change.actor.who.clone(),
        };
        (field.to_string(), meta)
    };
    document.fields().map(meta).collect()
}

fn no_document(path: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no document {path}"))
        .hint("`peerage settings list` shows what there is")
}
