//! Many documents at once, as one commit.

use std::collections::BTreeSet;

use peerage_proto::access::Caller;
use peerage_proto::api::apply::{Applied, ApplyDocuments};
use peerage_proto::api::settings::Document;
use peerage_proto::api::{ApiError, ErrorCode};
use peerage_proto::replica::{self, Edit, Field, NameError, Path, Replica};

use super::failure::{bad_name, member, not_written};
use super::{Agent, Answer, Serve, settings};
use crate::node::Node;
use crate::replica::{Edits, Views, WriteFailure};

impl Serve<ApplyDocuments> for Agent {
    async fn serve(&self, caller: &Caller, request: ApplyDocuments) -> Answer<Applied> {
        apply(&self.node, caller, request).await
    }
}

async fn apply(node: &Node, caller: &Caller, request: ApplyDocuments) -> Answer<Applied> {
    let ApplyDocuments { documents, prune, dry_run, wait, timeout } = request;
    let wanted = documents.into_iter().map(wanted).collect::<Answer<Edits>>()?;
    let prune = prune.map(pruned).transpose()?;
    let decide = move |replica: &Replica, _: &Views| Ok(with_pruned(wanted, prune, replica));
    let (done, wait) = match dry_run {
        false => {
            let (written, wait) = settings::transact(node, caller, wait, timeout, decide).await?;
            let done = written.into_iter().map(|written| {
                let removed = written.change.as_ref().is_some_and(|change| change.remove);
                (written.path, written.change.is_some(), removed)
            });
            (done.collect(), wait)
        }
        true => {
            let membership = member(node)?;
            let (actor, now) = (caller.actor(), node.now());
            let views = membership.replica.views().borrow().clone();
            let look = membership.replica.read(move |replica| {
                let edits = decide(replica, &views)?;
                let said: Vec<_> = edits.iter().map(|(path, e)| (path.clone(), e.remove)).collect();
                let would = replica.would_write(edits, &actor, now);
                let would = would.map_err(|rule| not_written(WriteFailure::Rule(rule)))?;
                Ok::<Vec<Done>, ApiError>(
                    said.into_iter().zip(would).map(|((p, r), would)| (p, would, r)).collect(),
                )
            });
            let done = look.await.map_err(not_written)??;
            (done, settings::here_alone(&membership.roster(), wait))
        }
    };
    Ok(applied(done, dry_run, wait))
}

/// A document, whether it was changed, and whether that took it away.
type Done = (Path, bool, bool);

fn applied(done: Vec<Done>, dry_run: bool, wait: peerage_proto::api::WaitOutcome) -> Applied {
    let removed = done.iter().filter(|(_, changed, removed)| *changed && *removed).count();
    let changed = done.iter().filter(|(_, changed, _)| *changed).count() - removed;
    Applied {
        changed,
        unchanged: done.len() - changed - removed,
        removed,
        paths: done.iter().filter(|(_, c, _)| *c).map(|(path, ..)| path.to_string()).collect(),
        dry_run,
        wait,
    }
}

/// What makes a document say what is given.
fn wanted(document: Document) -> Answer<(Path, Edit)> {
    let path = Path::setting(&document.path).map_err(|e| bad_name(&e))?;
    let mut edit = Edit::default();
    for (name, value) in document.fields {
        let field = Field::named(&name).map_err(|error| of_document(&path, &error))?;
        if edit.set.insert(field, value).is_some() {
            // As texts they differ: one is written with an accent, one with the letter that has it.
            let message = format!("{path}: {name:?} is given twice, in two ways of writing it");
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    }
    Ok((path, edit))
}

fn of_document(path: &Path, error: &NameError) -> ApiError {
    let error = bad_name(error);
    ApiError { message: format!("{path}: {}", error.message), ..error }
}

/// The path at and below which documents are taken away. An empty one would be for all there are.
fn pruned(prefix: String) -> Answer<String> {
    let path = Path::setting(prefix.trim_end_matches('/')).map_err(|e| bad_name(&e))?;
    Ok(path.to_string())
}

/// The edits, and the removals of what lies at or below the prefix and is not among them.
fn with_pruned(mut edits: Edits, prune: Option<String>, replica: &Replica) -> Edits {
    let Some(prefix) = prune else { return edits };
    let named: BTreeSet<Path> = edits.iter().map(|(path, _)| path.clone()).collect();
    let there = replica.documents(&prefix).map(|(path, _)| path);
    let is_below = |path: &Path| {
        let rest = path.as_str().strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let gone = there.filter(|path| is_below(path) && !named.contains(*path)).cloned();
    let removal = || replica::Edit { remove: true, ..Edit::default() };
    edits.extend(gone.map(|path| (path, removal())).collect::<Vec<_>>());
    edits
}
