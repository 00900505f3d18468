//! What happens, and what is changed, for those who follow.

use std::sync::Arc;

use peerage_proto::api::events::{Event, FollowEvents, WatchSettings, WatchedChange};
use peerage_proto::replica::SignedChange;
use tokio::sync::mpsc;

use super::failure::gone;
use super::settings::{fields, written_change};
use super::{Answer, Items};
use crate::clock::rfc3339;
use crate::events::Numbered;
use crate::happening::Happening;
use crate::node::Node;

/// How many items wait for a reader.
const ITEMS_MAX: usize = 64;

pub(super) fn events(node: &Node, request: &FollowEvents) -> Answer<Items<Event>> {
    let from = request.last_event_id.as_deref();
    let followed = node.happenings().follow(from, request.follow).map_err(|e| gone(&e))?;
    let event = |Numbered { id, at_ms, thing }: Numbered<Happening>| Event {
        id,
        at: rfc3339(at_ms),
        kind: thing.kind.into(),
        node: thing.node,
        message: thing.message,
        data: thing.data,
    };
    let (sender, items) = mpsc::channel(ITEMS_MAX);
    tokio::spawn(async move {
        let mut followed = followed;
        loop {
            let numbered = tokio::select! {
                () = sender.closed() => return,
                numbered = followed.recv() => numbered,
            };
            let Some(numbered) = numbered else { return };
            if sender.send(event(numbered)).await.is_err() {
                return;
            }
        }
    });
    Ok(items)
}

pub(super) fn watch(node: Arc<Node>, request: WatchSettings) -> Answer<Items<WatchedChange>> {
    let WatchSettings { prefix, last_event_id } = request;
    let from = last_event_id.unwrap_or_else(|| node.changes().latest());
    let mut followed = node.changes().follow(Some(&from), true).map_err(|e| gone(&e))?;
    let (sender, items) = mpsc::channel(ITEMS_MAX);
    tokio::spawn(async move {
        loop {
            let numbered = tokio::select! {
                () = sender.closed() => return,
                numbered = followed.recv() => numbered,
            };
            let Some(numbered) = numbered else { return };
            if !numbered.thing.path.is_below(&prefix) {
                continue;
            }
            let change = watched(&node, numbered).await;
            if sender.send(change).await.is_err() {
                return;
            }
        }
    });
    Ok(items)
}

/// A change with the document as it stands now that it is told.
async fn watched(node: &Node, numbered: Numbered<SignedChange>) -> WatchedChange {
    let Numbered { id, thing: change, .. } = numbered;
    let membership = node.membership();
    let roster = membership.as_ref().map(|membership| membership.roster()).unwrap_or_default();
    let path = change.path.clone();
    let after = match membership {
        Some(membership) => {
            let read = membership.replica.read(move |replica| {
                replica.document(&path).filter(|document| document.exists()).map(fields)
            });
            read.await.ok().flatten()
        }
        None => None,
    };
    let written = written_change(&change);
    WatchedChange {
        id,
        path: change.path.to_string(),
        stamp: change.stamp().to_string(),
        writer: roster.name_of(&change.dot.writer.node),
        actor: change.actor.who.clone(),
        set: written.set,
        unset: written.unset,
        removed: written.removed,
        fields: after,
    }
}
