//! Streams of events and of changes: each item is told once, as it happens, in the order of this
//! node.
//!
//! A stream tells its place as it goes on (the `id:` of its events), with an item or without. A
//! client whose stream broke gives the last place back, and the stream goes on after it. Where an
//! agent no longer has all items for a reader, since the reader is slow or the agent was restarted,
//! the stream tells a [`Gap`] as an item, so that nothing is skipped silently.

use std::time::Duration;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Fields;
use super::{Item, Method, Operation, Streamed, flag};
use crate::access::{Area, Resource, Right, Verb};

/// How often a stream without news tells that its agent is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a stream tells next: an item, or a gap for items that this reader does not get.
#[derive(Debug, Clone, PartialEq)]
pub enum Told<T> {
    /// An item, in JSON as it is.
    Item(T),
    /// A gap, in JSON `{"gap": {...}}`. No item has a member of that name.
    Gap(Gap),
}

/// The JSON member that only a gap has.
const GAP: &str = "gap";

impl<T: Serialize> Serialize for Told<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Item(item) => item.serialize(serializer),
            Self::Gap(gap) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(GAP, gap)?;
                map.end()
            }
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let told = match value.get_mut(GAP) {
            Some(gap) => serde_json::from_value(gap.take()).map(Self::Gap),
            None => serde_json::from_value(value).map(Self::Item),
        };
        told.map_err(D::Error::custom)
    }
}

/// A gap in a stream: items that its reader does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many items are missing, counted over all documents or kinds; `None` where this is not
    /// known, since the agent that counted them has ended.
    pub missed: Option<u64>,
    /// The place after which items are missing.
    pub from: String,
    /// The place after which the stream goes on.
    pub to: String,
    /// Why they are missing, in one sentence.
    pub message: String,
}

impl Gap {
    /// The gap of a reader that took the items more slowly than they came.
    pub fn of_slow_reader(missed: u64, from: String, to: String) -> Self {
        let message = format!(
            "{missed} {} missed here: they came faster than this reader took them",
            if missed == 1 { "is" } else { "are" }
        );
        Self { missed: Some(missed), from, to, message }
    }

    /// The gap between two runs of an agent, or after a place that another agent gave.
    pub fn of_another_run(from: String, to: String) -> Self {
        let message = format!(
            "what came after {from} is not known: the agent was started anew since, or {from} is of \
             another agent"
        );
        Self { missed: None, from, to, message }
    }
}

/// Tells what happened on this node and in the Data Center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FollowEvents {
    /// Whether to go on with what happens next; if not, the stream ends with what is known.
    #[serde(deserialize_with = "flag")]
    pub follow: bool,
    /// Tells only events after this one. Without it, the stream begins with all events that the
    /// agent still has.
    pub last_event_id: Option<String>,
}

/// By default the stream goes on with what happens next.
impl Default for FollowEvents {
    fn default() -> Self {
        Self { follow: true, last_event_id: None }
    }
}

impl Operation for FollowEvents {
    type Answer = Streamed<Event>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "events";
    const VERB: Verb = Verb::audit(Area::Events);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of this node.
    pub id: String,
    /// When this node noticed it, as RFC 3339.
    pub at: String,
    /// The kind of event, in a word.
    pub kind: String,
    /// The name of the node that the event is about.
    pub node: Option<String>,
    /// What happened, in one sentence.
    pub message: String,
    /// Particulars, by kind.
    #[serde(default)]
    pub data: Value,
}

impl Item for Event {
    fn right(&self) -> Option<Right<'_>> {
        Some(
            Verb::audit(Area::Events)
                .on(self.node.as_deref().map_or(Resource::Root, Resource::Node)),
        )
    }
}

/// Tells of each change of the settings, from now on or after `last_event_id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSettings {
    /// Tells only documents whose path begins with this text, letter by letter: `g` for `g1` and
    /// `gateway/lan`, `storage/` for all below storage.
    pub prefix: String,
    /// Tells only changes after this one.
    pub last_event_id: Option<String>,
}

impl Operation for WatchSettings {
    type Answer = Streamed<WatchedChange>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "watch";
    const VERB: Verb = Verb::audit(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// A change of the settings, with the document as it is after the change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchedChange {
    /// Its place in the order of this node.
    pub id: String,
    /// The document.
    pub path: String,
    /// The stamp of the change.
    pub stamp: String,
    /// The name of the node where it was written.
    pub writer: String,
    /// Who asked for it on that node.
    pub actor: String,
    /// The fields that it set.
    #[serde(default)]
    pub set: Fields,
    /// The fields that it took away.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Whether it took the whole document away.
    pub removed: bool,
    /// The document after it; `None` where there is none.
    pub fields: Option<Fields>,
}

impl Item for WatchedChange {
    fn right(&self) -> Option<Right<'_>> {
        Some(Verb::audit(Area::Settings).on(Resource::Setting(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gap_is_told_apart_from_every_item() {
        let gap = Gap::of_slow_reader(3, "7-1".into(), "7-4".into());
        let text = serde_json::to_value(Told::<Event>::Gap(gap.clone())).unwrap();
        assert_eq!(
            text,
            json!({"gap": {
                "missed": 3, "from": "7-1", "to": "7-4",
                "message": "3 are missed here: they came faster than this reader took them",
            }})
        );
        assert_eq!(serde_json::from_value::<Told<Event>>(text).unwrap(), Told::Gap(gap));

        let event =
            json!({"id": "7-5", "at": "", "kind": "down", "node": null, "message": "", "data": 1});
        let told: Told<Event> = serde_json::from_value(event.clone()).unwrap();
        assert!(matches!(&told, Told::Item(item) if item.id == "7-5"));
        assert_eq!(serde_json::to_value(told).unwrap(), event);
        assert!(serde_json::from_value::<Told<Event>>(json!({"gap": 1})).is_err());
    }
}
