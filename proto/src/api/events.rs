//! What goes on, told as it happens, each item once and in the order of this node.
//!
//! Every item has an id. A client whose stream broke gives the last one back and goes on behind it;
//! where the agent no longer holds that item it refuses (`gone`), so that nothing is skipped unnoticed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Fields;
use super::{Method, Operation, StreamOperation, flag};
use crate::access::Action;

/// Tells what happened on this node and in the Data Center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FollowEvents {
    /// Whether to go on with what happens next; if not, the stream ends with what is known.
    #[serde(deserialize_with = "flag")]
    pub follow: bool,
    /// Only what came after this event. Without it, all that the agent still knows comes first.
    pub last_event_id: Option<String>,
}

/// A stream that goes on.
impl Default for FollowEvents {
    fn default() -> Self {
        Self { follow: true, last_event_id: None }
    }
}

impl Operation for FollowEvents {
    type Output = Event;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "events";
    const ACTION: Action = Action::Read;
}

impl StreamOperation for FollowEvents {
    fn id(item: &Event) -> &str {
        &item.id
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of this node.
    pub id: String,
    /// When this node noticed it, as RFC 3339.
    pub at: String,
    /// What kind of thing it is, in a word.
    pub kind: String,
    /// The name of the node that it is about.
    pub node: Option<String>,
    /// What happened, in one sentence.
    pub message: String,
    /// Particulars, by kind.
    #[serde(default)]
    pub data: Value,
}

/// Tells of each change of the settings, from now on or after `last_event_id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSettings {
    /// Only documents whose path begins so.
    pub prefix: String,
    /// Only what came after this change.
    pub last_event_id: Option<String>,
}

impl Operation for WatchSettings {
    type Output = WatchedChange;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "watch";
    const ACTION: Action = Action::Read;
}

impl StreamOperation for WatchSettings {
    fn id(item: &WatchedChange) -> &str {
        &item.id
    }
}

/// A change of the settings, with what came of it.
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
    /// Who asked for it there.
    pub actor: String,
    /// What it set.
    #[serde(default)]
    pub set: Fields,
    /// What it took away.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Whether it took the whole document away.
    pub removed: bool,
    /// The document after it; `None` where there is none.
    pub fields: Option<Fields>,
}
