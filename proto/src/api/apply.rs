//! Many documents at once: the documents of a file, written as one commit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::{Document, waiting};
use super::{Method, Operation, Span, Wait, WaitOutcome, Whole, flag};
use crate::access::{Area, Resource, Verb};

/// How large the JSON of one request may be, in bytes.
pub const APPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Sets the fields that differ from the given ones, in all documents or in none. The fields are
/// written as one commit, which is on disk with one sync. Each other node tells it to those who
/// watch when all of the commit is there. Fields and documents that are not named stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApplyDocuments {
    /// The documents, each once, in the form in which [`super::settings::ListDocuments`] tells
    /// them. `meta`, which says who wrote each field, is ignored.
    pub documents: Vec<Document>,
    /// Removes documents that lie at or below this path and are not named.
    pub prune: Option<String>,
    /// Whether to write nothing, and only tell what would be done.
    #[serde(deserialize_with = "flag")]
    pub dry_run: bool,
    /// On how many nodes the commit must be before the answer.
    pub wait: Wait,
    /// How long to wait for that; `None` is ten seconds.
    pub timeout: Option<Span>,
}

impl Operation for ApplyDocuments {
    type Answer = Whole<Applied>;
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "apply";
    const VERB: Verb = Verb::modify(Area::Settings);
    const QUERY: &'static [&'static str] = &["prune", "dry_run", "wait", "timeout"];
    const BODY_BYTES_MAX: usize = APPLY_BYTES_MAX;

    fn resource(&self) -> Resource<'_> {
        Resource::Anywhere
    }

    fn parts(&self) -> Vec<Resource<'_>> {
        let named = self.documents.iter().map(|document| document.path.as_str());
        named.chain(self.prune.as_deref()).map(Resource::Setting).collect()
    }

    fn patience(&self) -> Duration {
        waiting(self.wait, self.timeout)
    }

    fn status(output: &Applied) -> u16 {
        if output.wait.met || output.dry_run { 200 } else { 202 }
    }
}

/// What applying did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// How many documents were changed or created.
    pub changed: usize,
    /// How many documents had all the given fields already.
    pub unchanged: usize,
    /// How many documents were removed.
    pub removed: usize,
    /// The paths of the documents that were changed, created or removed.
    pub paths: Vec<String>,
    /// Whether nothing was written, since the request asked only what would be done.
    pub dry_run: bool,
    /// On how many nodes the commit is.
    pub wait: WaitOutcome,
}
