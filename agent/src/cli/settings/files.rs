//! `export` and `apply`: all documents as one JSON text, and back.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use peerage_proto::api::apply::{APPLY_BYTES_MAX, Applied, ApplyDocuments};
use peerage_proto::api::settings::{Document, ListDocuments};
use peerage_proto::api::values::SentError;
use peerage_proto::api::{ApiError, ErrorCode, composed, text, values};

use super::super::source::read_text;
use super::write::reached;
use super::{Client, Console, Outcome, Stop, WaitArgs};

/// The largest file that is applied: far above all settings of a Data Center.
const FILE_BYTES_MAX: u64 = 1 << 30;

pub(super) async fn export(client: &Client, console: &mut Console) -> Outcome {
    let all = ListDocuments::default();
    let documents = console.attend("asking the agent", client.call(&all)).await?;
    // The export is JSON with or without `--json`, and in lines, so that two exports can be
    // compared.
    console.json_text(&documents)
}

/// Set what a file says, in all documents or in none.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file, as `export` printed it, or - for stdin: [{"path": PATH, "fields": {FIELD: VALUE}}].
    /// Lines that open with # are comments. Fields and documents that it does not name stay as they are
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Take documents away that lie at or below this path and that the file does not name: `web` for
    /// web and web/a, not for webmail
    #[arg(long, value_name = "PREFIX")]
    prune: Option<String>,
    /// Write so many documents at a time, where the file is too large for one write: each part is
    /// written whole or not at all
    #[arg(long, value_name = "N", conflicts_with = "prune")]
    parts: Option<NonZeroUsize>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Sets the fields that differ from what the file says, as one commit.
pub(super) async fn apply(args: ApplyArgs, client: &Client, console: &mut Console) -> Outcome {
    let ApplyArgs { file, dry_run, prune, parts, wait: WaitArgs { wait, timeout } } = args;
    let documents = read(&file, console)?;
    let chunks: Vec<&[Document]> = match parts {
        Some(n) if !documents.is_empty() => documents.chunks(n.get()).collect(),
        _ => vec![&documents],
    };
    named_once(&documents)?;
    let request = |part: &[Document]| ApplyDocuments {
        documents: part.to_vec(),
        prune: prune.clone(),
        dry_run,
        wait,
        timeout: Some(timeout),
    };
    // All parts are checked before the first one is written.
    for part in &chunks {
        let size = serde_json::to_vec(&request(part)).map_or(0, |json| json.len());
        if size > APPLY_BYTES_MAX {
            return Err(too_large(size).into());
        }
    }
    let mut all: Option<Applied> = None;
    for part in chunks {
        let request = request(part);
        let done = console.attend("applying", client.call(&request)).await;
        let done = done.map_err(|error| match &all {
            Some(before) => stopped_after(before, error),
            None => error,
        })?;
        all = Some(match all {
            Some(before) => together(before, done),
            None => done,
        });
    }
    let Some(applied) = all else { return Ok(()) };
    if console.wants_json() {
        console.json(&applied)?;
    } else {
        let (changed, removed) = applied.paths.split_at(applied.changed.min(applied.paths.len()));
        let verbs = match dry_run {
            true => ["would change", "would be taken away"],
            false => ["changed", "taken away"],
        };
        for (paths, verb) in [changed, removed].into_iter().zip(verbs) {
            paths.iter().for_each(|path| console.say(format!("{path}: {verb}")));
        }
        console.say(told(&applied));
    }
    match dry_run {
        true => Ok(()),
        false => reached("what was applied", &applied.wait),
    }
}

/// Refuses a file that names a document twice: in two parts the later one would win.
fn named_once(documents: &[Document]) -> Result<(), ApiError> {
    let mut named = BTreeSet::new();
    match documents.iter().find(|document| !named.insert(composed(&document.path))) {
        None => Ok(()),
        Some(twice) => {
            let message = format!("{} is named twice", twice.path);
            Err(ApiError::new(ErrorCode::BadRequest, message)
                .hint("put all fields of a document together"))
        }
    }
}

/// The result of two parts together.
fn together(before: Applied, after: Applied) -> Applied {
    Applied {
        changed: before.changed + after.changed,
        unchanged: before.unchanged + after.unchanged,
        removed: before.removed + after.removed,
        // No part takes anything away, so these are all of one kind.
        paths: [before.paths, after.paths].concat(),
        // The outcome that counts is that of the part that reached fewer nodes.
        wait: if before.wait.met { after.wait } else { before.wait },
        ..after
    }
}

fn told(applied: &Applied) -> String {
    let Applied { changed, unchanged, removed, dry_run, .. } = applied;
    let done = if *dry_run { "would be " } else { "" };
    let of = |count: &usize| if *count == 1 { "document" } else { "documents" };
    if *changed + *removed == 0 {
        return format!(
            "nothing to change: {unchanged} {} so already",
            match unchanged {
                1 => "document is",
                _ => "documents are",
            }
        );
    }
    let mut told = format!("{changed} {} {done}changed, {unchanged} unchanged", of(changed));
    if *removed > 0 {
        told += &format!(", {removed} {done}removed");
    }
    told
}

fn too_large(size: usize) -> ApiError {
    let mb = |bytes: usize| bytes as f64 / 1e6;
    let (size, most) = (mb(size), mb(APPLY_BYTES_MAX));
    let message =
        format!("these documents are {size:.1} MB, and {most:.1} MB can be written at once");
    ApiError::new(ErrorCode::TooLarge, message).hint(
        "`--parts 1000` writes them in parts of so many documents; each part is then written whole \
         or not at all",
    )
}

/// The error, and what the parts before it wrote: those stay.
fn stopped_after(before: &Applied, error: ApiError) -> ApiError {
    let message = format!("{} (in the parts before it: {})", error.message, told(before));
    ApiError { message, ..error }
}

fn read(file: &Path, console: &mut Console) -> Result<Vec<Document>, Stop> {
    let name = file.display();
    let text = if name.to_string() == "-" {
        console.read_all()?
    } else {
        read_text(file, FILE_BYTES_MAX)?
    };
    // A string in JSON has no line break in it, so no line of a string looks like a comment.
    let text = text::without_comments(&text);
    values::sent(&text).map_err(|error| {
        let wrong = |message| ApiError::new(ErrorCode::BadRequest, message);
        match error {
            twice @ SentError::Twice(_) => wrong(format!("{name}: {twice}")),
            SentError::Altered(altered) => wrong(format!("{name}: {altered}")).hint(altered.hint()),
            SentError::Malformed(error) => {
                wrong(format!("{name} is not a list of documents: {error}"))
                    .hint("it should be as `peerage settings export` prints it")
            }
        }
        .into()
    })
}
