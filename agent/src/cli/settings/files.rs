//! `export` and `apply`: all documents as one JSON text, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use peerage_proto::api::settings::{Document, Fields, GetDocument, ListDocuments, SetFields};
use peerage_proto::api::values::SentError;
use peerage_proto::api::{ApiError, ErrorCode, composed, text, values};
use serde::Serialize;

use super::super::source::read_text;
use super::write::reached;
use super::{Client, Console, Outcome, Stop, WaitArgs};

/// The largest file that is applied: far above all settings of a Data Center.
const FILE_BYTES_MAX: u64 = 1 << 30;

pub(super) async fn export(client: &Client, console: &mut Console) -> Outcome {
    let all = ListDocuments::default();
    let documents = console.attend("asking the agent", client.call(&all)).await?;
    // It is JSON with or without `--json`, and in lines, so that two of them can be compared.
    console.json_text(&documents)
}

/// Set what a file says.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file, as `export` printed it, or - for stdin: [{"path": PATH, "fields": {FIELD: VALUE}}].
    /// Lines that open with # are comments
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What was done to one document.
#[derive(Debug, Serialize)]
struct Applied {
    path: String,
    /// The stamp of the change; none where nothing differed.
    stamp: Option<String>,
    /// The fields that differed, and were set.
    set: Vec<String>,
}

/// Sets the fields that differ from what the file says. Fields and documents that the file does
/// not name stay as they are.
pub(super) async fn apply(args: ApplyArgs, client: &Client, console: &mut Console) -> Outcome {
    let documents = read(&args.file, console)?;
    let mut applied = Vec::new();
    let mut all_reached = Ok(());
    for document in documents {
        let path = document.path.clone();
        let work = apply_one(document, &args.wait, client);
        let (done, reached) = match console.attend(&format!("applying {path}"), work).await {
            Ok(done) => done,
            Err(error) => return Err(stopped_at(&path, &applied, error).into()),
        };
        if !console.wants_json() {
            console.say(told(&done));
        }
        applied.push(done);
        all_reached = all_reached.and(reached);
    }
    if console.wants_json() {
        console.json(&applied)?;
    }
    all_reached
}

fn read(file: &Path, console: &mut Console) -> Result<Vec<Document>, Stop> {
    let name = file.display();
    let text = if name.to_string() == "-" {
        console.read_all()?
    } else {
        read_text(file, FILE_BYTES_MAX)?
    };
    // No text in JSON has a line break in it, so no line of one looks like a comment.
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

/// Sets the fields of one document that differ.
async fn apply_one(
    document: Document,
    wait: &WaitArgs,
    client: &Client,
) -> Result<(Applied, Result<(), Stop>), ApiError> {
    let Document { path, fields: mut set, .. } = document;
    let there = fields_of(&path, client).await?;
    set.retain(|field, value| there.get(&*composed(field)) != Some(value));
    let names = set.keys().cloned().collect();
    if set.is_empty() {
        return Ok((Applied { path, stamp: None, set: names }, Ok(())));
    }
    let timeout = Some(wait.timeout);
    let request =
        SetFields { path: path.clone(), set, wait: wait.wait, timeout, ..SetFields::default() };
    let outcome = client.call(&request).await?;
    let reached = reached(&outcome);
    Ok((Applied { path, stamp: Some(outcome.stamp), set: names }, reached))
}

/// What the document holds; nothing where there is none.
async fn fields_of(path: &str, client: &Client) -> Result<Fields, ApiError> {
    let request = GetDocument { path: path.to_owned(), full: false };
    match client.call(&request).await {
        Ok(document) => Ok(document.fields),
        Err(error) if error.code == ErrorCode::NotFound => Ok(Fields::new()),
        Err(error) => Err(error),
    }
}

fn told(applied: &Applied) -> String {
    match applied.set.as_slice() {
        [] => format!("{}: nothing to change", applied.path),
        fields => format!("{}: set {}", applied.path, fields.join(", ")),
    }
}

/// The error, with how far it came: what was applied before stays.
fn stopped_at(path: &str, applied: &[Applied], error: ApiError) -> ApiError {
    let message = format!("{path}: {} ({} applied before it)", error.message, applied.len());
    ApiError { message, ..error }
}
