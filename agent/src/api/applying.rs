//! Writes many documents at once, as one commit.

use std::collections::BTreeSet;

use peerage_proto::access::Caller;
use peerage_proto::api::apply::{Applied, ApplyDocuments};
use peerage_proto::api::settings::Document;
use peerage_proto::api::{ApiError, WaitOutcome};
use peerage_proto::replica::{Edit, Path, Replica, WriteError, Written};

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
    // An empty path would mean all documents.
    let prune = prune.map(|path| Path::setting(path.trim_end_matches('/'))).transpose();
    let prune = prune.map_err(|e| bad_name(&e))?;
    let (done, wait) = match dry_run {
        false => {
            let decide =
                move |replica: &Replica, _: &Views| Ok(with_pruned(wanted, prune, replica));
            let (written, wait) = settings::transact(node, caller, wait, timeout, decide).await?;
            let done = written.into_iter().map(|Written { path, change, .. }| Done {
                path,
                changed: change.is_some(),
                removed: change.is_some_and(|change| change.remove),
            });
            (done.collect(), wait)
        }
        true => {
            let membership = member(node)?;
            let (actor, now) = (caller.actor(), node.now());
            let look = membership.replica.read(move |replica| {
                let edits = with_pruned(wanted, prune, replica);
                let would = |(path, edit): &(Path, Edit)| Done {
                    path: path.clone(),
                    changed: false,
                    removed: edit.remove,
                };
                let mut done: Vec<Done> = edits.iter().map(would).collect();
                let changed = replica.would_write(edits, &actor, now)?;
                done.iter_mut().zip(changed).for_each(|(done, changed)| done.changed = changed);
                Ok::<_, WriteError>(done)
            });
            let done = look.await.map_err(not_written)?;
            let done = done.map_err(|rule| not_written(WriteFailure::Rule(rule)))?;
            (done, settings::here_alone(&membership.roster(), wait))
        }
    };
    Ok(applied(done, dry_run, wait))
}

/// What became of a document.
struct Done {
    path: Path,
    changed: bool,
    /// Whether the change took it away.
    removed: bool,
}

fn applied(done: Vec<Done>, dry_run: bool, wait: WaitOutcome) -> Applied {
    let changes = || done.iter().filter(|done| done.changed);
    let removed = changes().filter(|done| done.removed).count();
    Applied {
        changed: changes().count() - removed,
        unchanged: done.len() - changes().count(),
        removed,
        paths: changes().map(|done| done.path.to_string()).collect(),
        dry_run,
        wait,
    }
}

/// The edit that makes a document say what is given.
fn wanted(document: Document) -> Answer<(Path, Edit)> {
    let path = Path::setting(&document.path).map_err(|e| bad_name(&e))?;
    let set = settings::named(document.fields)
        .map_err(|error| ApiError { message: format!("{path}: {}", error.message), ..error })?;
    Ok((path, Edit { set, ..Edit::default() }))
}

/// The edits, and removals of the documents that lie at or below the path and are not among the
/// edits.
fn with_pruned(mut edits: Edits, prune: Option<Path>, replica: &Replica) -> Edits {
    let Some(prune) = prune else { return edits };
    let named: BTreeSet<&Path> = edits.iter().map(|(path, _)| path).collect();
    let there = replica.documents(prune.as_str()).map(|(path, _)| path);
    let gone = there.filter(|path| path.is_at_or_below(&prune) && !named.contains(*path));
    let removal = |path: &Path| (path.clone(), Edit { remove: true, ..Edit::default() });
    let removals: Edits = gone.map(removal).collect();
    edits.extend(removals);
    edits
}
