//! Streams of happenings and of changes, for readers that follow them.

use std::future::{Future, ready};
use std::time::Duration;

use peerage_proto::access::Caller;
use peerage_proto::api::events::{Event, FollowEvents, Told, WatchSettings, WatchedChange};
use peerage_proto::replica::SignedChange;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::failure::no_place;
use super::settings::{Says, bytes_of, fields_of, says, written_change};
use super::{Agent, Answer, Due, Items, Serve, Step};
use crate::feed::Happening;
use crate::feed::{Following, Next, Numbered};
use crate::host::clock::rfc3339;
use crate::node::Node;

/// How many items wait for a reader; each keeps in memory the changes that say a whole document.
const ITEMS_MAX: usize = 1;

/// How often a reader is told its place if nothing else was told. Otherwise the place of a reader
/// that sees few items would fall behind what is held.
const PLACE_EVERY: Duration = Duration::from_secs(15);

impl Serve<FollowEvents> for Agent {
    async fn serve(&self, _: &Caller, request: FollowEvents) -> Answer<Items<Event>> {
        let from = request.last_event_id.as_deref();
        let followed = self.node.happenings().follow(from, request.follow);
        let followed = followed.map_err(|e| no_place(&e))?;
        Ok(told(followed, |numbered| ready(Some(Due::made(event(numbered))))))
    }
}

fn event(Numbered { id, at_ms, thing }: Numbered<Happening>) -> Event {
    Event {
        id,
        at: rfc3339(at_ms),
        kind: thing.kind.into(),
        node: thing.node,
        message: thing.message,
        data: thing.data,
    }
}

impl Serve<WatchSettings> for Agent {
    async fn serve(&self, _: &Caller, request: WatchSettings) -> Answer<Items<WatchedChange>> {
        let node = self.node.clone();
        let WatchSettings { prefix, last_event_id } = request;
        let from = last_event_id.unwrap_or_else(|| node.changes().latest());
        let followed = node.changes().follow(Some(&from), true).map_err(|e| no_place(&e))?;
        Ok(told(followed, move |numbered: Numbered<SignedChange>| {
            let wanted = numbered.thing.path.begins_with(&prefix);
            let node = node.clone();
            async move { if wanted { Some(watched(&node, numbered).await) } else { None } }
        }))
    }
}

/// The steps of a stream that tells of each thing what `tell` makes of it, if it makes anything.
fn told<T, U, F>(
    mut followed: Following<T>,
    tell: impl Fn(Numbered<T>) -> F + Send + 'static,
) -> mpsc::Receiver<Step<U>>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Future<Output = Option<U>> + Send,
{
    let (sender, items) = mpsc::channel(ITEMS_MAX);
    tokio::spawn(async move {
        let mut step = Step { id: followed.from, told: None };
        let mut places = interval(PLACE_EVERY);
        places.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first place is told at once: a stream may break before any item comes.
        let mut unsaid = true;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = places.tick(), if unsaid => {}
                next = followed.next.recv() => match next {
                    None => return,
                    Some(Next::Gap(gap)) => step = Step { id: gap.to.clone(), told: Some(Told::Gap(gap)) },
                    Some(Next::Thing(numbered)) => {
                        let id = numbered.id.clone();
                        step = Step { id, told: tell(numbered).await.map(Told::Item) };
                        if step.told.is_none() {
                            unsaid = true;
                            continue;
                        }
                    }
                },
            }
            let told = step.told.take();
            if sender.send(Step { id: step.id.clone(), told }).await.is_err() {
                return;
            }
            unsaid = false;
        }
    });
    items
}

/// A change with its document, as it stands at the moment of telling.
async fn watched(node: &Node, numbered: Numbered<SignedChange>) -> Due<WatchedChange> {
    let Numbered { id, thing: change, .. } = numbered;
    let membership = node.membership();
    let roster = membership.as_ref().map(|membership| membership.roster()).unwrap_or_default();
    let path = change.path.clone();
    let after: Option<Vec<Says>> = match membership {
        Some(membership) => {
            let read = membership.replica.read(move |replica| {
                replica.document(&path).filter(|document| document.exists()).map(says)
            });
            read.await.ok().flatten()
        }
        None => None,
    };
    let bytes = change.bytes().len() + after.as_deref().map_or(0, bytes_of);
    Due::new(bytes, move || {
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
            fields: after.as_deref().map(fields_of),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Feed;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_told_of_little_is_told_its_place_now_and_then() {
        let feed = Feed::new(7, |_| 8);
        let followed = feed.follow(None, true).unwrap();
        let hundreds =
            |numbered: Numbered<u64>| numbered.thing.is_multiple_of(100).then_some(numbered.thing);
        let mut items = told(followed, move |numbered| ready(hundreds(numbered)));
        let place = |id: &str| Some(Step { id: id.to_owned(), told: None });
        assert_eq!(items.recv().await, place("7-0"), "where it begins");
        (1..=150).for_each(|n| feed.tell(n, 0));
        let hundred = Step { id: "7-100".to_owned(), told: Some(Told::Item(100)) };
        assert_eq!(items.recv().await, Some(hundred));
        assert_eq!(items.recv().await, place("7-150"), "what is not told moves it on");
    }

    #[tokio::test]
    async fn a_gap_is_a_step_of_its_own() {
        let feed = Feed::new(7, |_| 8);
        feed.tell(1, 0);
        let followed = feed.follow(Some("6-9"), false).unwrap();
        let mut items = told(followed, |numbered: Numbered<u64>| ready(Some(numbered.thing)));
        let mut told = Vec::new();
        while let Some(step) = items.recv().await {
            told.extend(step.told.map(|told| (step.id, matches!(told, Told::Gap(_)))));
        }
        assert_eq!(told, [("7-0".to_owned(), true), ("7-1".to_owned(), false)]);
    }
}
