//! Settings: documents at paths, each a map of fields, with their history and their conflicts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Item, Large, Listed, Method, Operation, Span, WAIT_DEFAULT, WRITING_MAX, Wait, WaitOutcome,
    Whole, flag,
};
use crate::access::{Area, Resource, Right, Verb};

/// The fields of a document: any JSON value at each name.
pub type Fields = BTreeMap<String, Value>;

/// Lists documents, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListDocuments {
    /// Lists only documents whose path begins with this text, letter by letter: `g` for `g1` and
    /// `gateway/lan`, `storage/` for all below storage.
    pub prefix: String,
    /// Whether to tell of each field who wrote it and when.
    #[serde(deserialize_with = "flag")]
    pub full: bool,
}

impl Operation for ListDocuments {
    type Answer = Listed<Document>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "settings";
    const VERB: Verb = Verb::audit(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// A document in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Where it is.
    pub path: String,
    /// What it holds.
    pub fields: Fields,
    /// Who wrote each field and when, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, FieldMeta>>,
}

impl Item for Document {
    fn right(&self) -> Option<Right<'_>> {
        Some(Verb::audit(Area::Settings).on(Resource::Setting(&self.path)))
    }
}

/// Who wrote a field, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldMeta {
    /// The stamp of the change that wrote it.
    pub stamp: String,
    /// The name of the node where it was written.
    pub writer: String,
    /// Who asked for it there.
    pub actor: String,
}

/// Reads one document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GetDocument {
    /// Where it is.
    pub path: String,
    /// Whether to tell of each field who wrote it and when.
    #[serde(deserialize_with = "flag")]
    pub full: bool,
}

impl Operation for GetDocument {
    type Answer = Large<StampedDocument>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "settings/{*path}";
    const VERB: Verb = Verb::audit(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Setting(&self.path)
    }

    fn stamp(output: &StampedDocument) -> Option<&str> {
        Some(&output.etag)
    }
}

/// A document with its stamp and its `etag`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StampedDocument {
    /// Where it is.
    pub path: String,
    /// The stamp of its newest change.
    pub stamp: String,
    /// A text that differs after each change of the document. A later write gives it back in
    /// `if_match`, to say which state it has seen.
    #[serde(default)]
    pub etag: String,
    /// What it holds.
    pub fields: Fields,
    /// Who wrote each field and when, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, FieldMeta>>,
}

/// Sets fields of a document and takes others away, in one change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetFields {
    /// Where the document is; it comes into being where there is none.
    pub path: String,
    /// The fields to set.
    pub set: Fields,
    /// The fields to take away.
    pub unset: Vec<String>,
    /// Only if the document's `etag` still is this one.
    pub if_match: Option<String>,
    /// On how many nodes the change must be before the answer.
    pub wait: Wait,
    /// How long to wait for that; `None` is ten seconds.
    pub timeout: Option<Span>,
}

impl Operation for SetFields {
    type Answer = Whole<WriteOutcome>;
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "settings/{*path}";
    const VERB: Verb = Verb::modify(Area::Settings);
    const QUERY: &'static [&'static str] = &["wait", "timeout"];

    fn resource(&self) -> Resource<'_> {
        Resource::Setting(&self.path)
    }

    fn patience(&self) -> Duration {
        waiting(self.wait, self.timeout)
    }

    fn status(output: &WriteOutcome) -> u16 {
        output.http_status()
    }

    fn stamp(output: &WriteOutcome) -> Option<&str> {
        Some(&output.etag)
    }
}

/// Takes a document away. Its history stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveDocument {
    /// Where it is.
    pub path: String,
    /// Only if the document's `etag` still is this one.
    pub if_match: Option<String>,
    /// On how many nodes the change must be before the answer.
    pub wait: Wait,
    /// How long to wait for that; `None` is ten seconds.
    pub timeout: Option<Span>,
}

impl Operation for RemoveDocument {
    type Answer = Whole<WriteOutcome>;
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "settings/{*path}";
    const VERB: Verb = Verb::modify(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Setting(&self.path)
    }

    fn patience(&self) -> Duration {
        waiting(self.wait, self.timeout)
    }

    fn status(output: &WriteOutcome) -> u16 {
        output.http_status()
    }
}

/// Makes a document what it was right after an earlier change. This is a new change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// Where it is.
    pub path: String,
    /// The stamp of the earlier change, as the history tells it.
    pub stamp: String,
    /// On how many nodes the change must be before the answer.
    #[serde(default)]
    pub wait: Wait,
    /// How long to wait for that; `None` is ten seconds.
    #[serde(default)]
    pub timeout: Option<Span>,
}

impl Operation for Revert {
    type Answer = Whole<WriteOutcome>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "revert/{*path}";
    const VERB: Verb = Verb::modify(Area::Settings);
    const QUERY: &'static [&'static str] = &["wait", "timeout"];

    fn resource(&self) -> Resource<'_> {
        Resource::Setting(&self.path)
    }

    fn patience(&self) -> Duration {
        waiting(self.wait, self.timeout)
    }

    fn status(output: &WriteOutcome) -> u16 {
        output.http_status()
    }
}

/// What a write did. The write is on this node's disk, even if no other node has it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOutcome {
    /// The document.
    pub path: String,
    /// The stamp of its newest change now.
    pub stamp: String,
    /// Its `etag` now.
    #[serde(default)]
    pub etag: String,
    /// Whether anything was written; a write that would change nothing is not made.
    pub changed: bool,
    /// On how many nodes the change is.
    pub wait: WaitOutcome,
}

/// How long a write that waits for other nodes may take.
pub(super) fn waiting(wait: Wait, timeout: Option<Span>) -> Duration {
    let for_others = timeout.map_or(WAIT_DEFAULT, Span::duration);
    WRITING_MAX + if wait == Wait::Local { Duration::ZERO } else { for_others }
}

impl WriteOutcome {
    /// 200 where as many nodes as asked for have the change, else 202: accepted, and on its way.
    fn http_status(&self) -> u16 {
        if self.wait.met { 200 } else { 202 }
    }
}

/// Tells the changes of a document, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GetHistory {
    /// Where it is.
    pub path: String,
}

impl Operation for GetHistory {
    type Answer = Listed<HistoryEntry>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "history/{*path}";
    const VERB: Verb = Verb::audit(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Setting(&self.path)
    }
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its stamp.
    pub stamp: String,
    /// When it was written by the writer's clock, as RFC 3339.
    pub at: String,
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
    /// Fields that it set to values that the history no longer keeps.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Whether it took the whole document away.
    pub removed: bool,
    /// Whether any part of the change still shows in the document.
    pub current: bool,
}

impl Item for HistoryEntry {
    fn right(&self) -> Option<Right<'_>> {
        // The entry is of the document that was asked for, on which the operation needed the same
        // right.
        None
    }
}

/// Lists the conflicts that are not settled yet, by path and field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConflicts {}

impl Operation for ListConflicts {
    type Answer = Listed<Conflict>;
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "conflicts";
    const VERB: Verb = Verb::audit(Area::Settings);

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }
}

/// Edits of one field that were made without knowing of each other. Setting the field again settles
/// the conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The document.
    pub path: String,
    /// The field.
    pub field: String,
    /// The edit that shows.
    pub winner: Edit,
    /// The edits that do not show.
    pub losers: Vec<LosingEdit>,
}

impl Item for Conflict {
    fn right(&self) -> Option<Right<'_>> {
        Some(Verb::audit(Area::Settings).on(Resource::Setting(&self.path)))
    }
}

/// One edit of one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The stamp of the change that it was part of.
    pub stamp: String,
    /// The value; `None` where the edit took the field away.
    pub value: Option<Value>,
    /// The name of the node where it was written.
    pub writer: String,
    /// Who asked for it there.
    pub actor: String,
    /// When it was written by the writer's clock, as RFC 3339.
    pub at: String,
}

/// An edit that lost, with everything that was written together with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LosingEdit {
    /// The edit.
    #[serde(flatten)]
    pub edit: Edit,
    /// The change that it was part of.
    pub change: WrittenChange,
}

/// What one change wrote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WrittenChange {
    /// What it set.
    pub set: Fields,
    /// What it took away.
    pub unset: Vec<String>,
    /// Whether it took the whole document away.
    pub removed: bool,
}

/// What a node keeps of the settings, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Room {
    /// The changes of which a value shows in a document or is in a conflict. The limit is for
    /// these.
    pub live_bytes: u64,
    /// The limit for `live_bytes`; a write that would exceed it is refused.
    pub limit_bytes: u64,
    /// Superseded changes. The oldest are dropped where `live_bytes` needs the room.
    pub history_bytes: u64,
    /// Markers that remain of removed documents and fields, so that an older edit that arrives late
    /// does not bring them back.
    pub marker_bytes: u64,
    /// The Data Center's own records: members, invitations.
    pub record_bytes: u64,
    /// The room that is kept free for these records, and for repairs where the settings are full.
    pub reserve_bytes: u64,
    /// The journal on this node's disk.
    pub journal_bytes: u64,
}

/// Forgets the history of the settings on this node, and rewrites its journal without the changes
/// that are no longer needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactSettings {}

impl Operation for CompactSettings {
    type Answer = Whole<Compacted>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "settings-compact";
    const VERB: Verb = Verb::modify(Area::Node);

    fn resource(&self) -> Resource<'_> {
        Resource::ThisNode
    }
}

/// What compacting did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compacted {
    /// How many changes were forgotten, wholly or in part.
    pub forgotten: u64,
    /// What was kept before.
    pub before: Room,
    /// What is kept now.
    pub after: Room,
}
