//! `set`, `unset` and `revert`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fs, mem};

use clap::Args;
use peerage_proto::api::settings::{RemoveDocument, Revert, SetFields, WriteOutcome};
use peerage_proto::api::{ApiError, ErrorCode, Operation, WaitOutcome, Whole, values};
use serde_json::Value;

use super::{Client, Console, Outcome, Stop, WaitArgs};

/// Set fields of a document.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The document, such as storage/nas1
    path: String,
    /// What to set. VALUE is JSON where it reads as JSON (true, [1], {"a": 1}), a number only where it
    /// prints back as it is typed (1.5, not 1.50), else a text. FIELD=@FILE sets the text of the file
    /// as it is, FIELD=- that of stdin; '"@x"' is a text that begins so
    #[arg(required = true, value_name = "FIELD=VALUE")]
    fields: Vec<Assignment>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// One `FIELD=VALUE`.
#[derive(Debug, Clone, PartialEq)]
struct Assignment {
    field: String,
    given: Given,
}

/// Where the value of an assignment is.
#[derive(Debug, Clone, PartialEq)]
enum Given {
    /// In the argument itself.
    Typed(Value),
    /// The text of this file.
    File(PathBuf),
    /// The text of stdin.
    Stdin,
}

impl Given {
    fn value(self, console: &mut Console) -> Result<Value, Stop> {
        match self {
            Self::Typed(value) => Ok(value),
            Self::Stdin => Ok(Value::String(console.read_all()?)),
            // The file is kept to the last byte: a program reads later what was put in.
            Self::File(path) => match fs::read_to_string(&path) {
                Ok(text) => Ok(Value::String(text)),
                Err(error) => {
                    let message = format!("cannot read {}: {error}", path.display());
                    Err(ApiError::new(ErrorCode::BadRequest, message).into())
                }
            },
        }
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text.split_once('=').ok_or("there is no = in it")?;
        if field.is_empty() {
            return Err("there is no field before the =".to_owned());
        }
        let given = match value.strip_prefix('@') {
            Some(file) if !file.is_empty() => Given::File(file.into()),
            _ if value == "-" => Given::Stdin,
            _ => Given::Typed(values::typed(value).map_err(|error| error.to_string())?),
        };
        Ok(Self { field: field.to_owned(), given })
    }
}

pub(super) async fn set(args: SetArgs, client: &Client, console: &mut Console) -> Outcome {
    let mut set = BTreeMap::new();
    let mut stdin_is_read = false;
    for Assignment { field, given } in args.fields {
        if given == Given::Stdin && mem::replace(&mut stdin_is_read, true) {
            let message = "stdin can be the value of one field only";
            return Err(ApiError::new(ErrorCode::BadRequest, message).into());
        }
        if set.insert(field.clone(), given.value(console)?).is_some() {
            let message = format!("the field {field:?} is set twice");
            return Err(ApiError::new(ErrorCode::BadRequest, message).into());
        }
    }
    let request = SetFields {
        path: args.path,
        set,
        wait: args.wait.wait,
        timeout: Some(args.wait.timeout),
        ..SetFields::default()
    };
    write(&request, client, console).await
}

/// Take fields of a document away, or the whole document.
#[derive(Debug, Args)]
pub struct UnsetArgs {
    /// The document
    path: String,
    /// The fields; without any, the whole document
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn unset(args: UnsetArgs, client: &Client, console: &mut Console) -> Outcome {
    let UnsetArgs { path, fields, wait: WaitArgs { wait, timeout } } = args;
    let timeout = Some(timeout);
    if fields.is_empty() {
        let request = RemoveDocument { path, wait, timeout, if_match: None };
        return write(&request, client, console).await;
    }
    let request = SetFields { path, unset: fields, wait, timeout, ..SetFields::default() };
    write(&request, client, console).await
}

/// Make a document what it was after an earlier change.
#[derive(Debug, Args)]
pub struct RevertArgs {
    /// The document
    path: String,
    /// The stamp of that change, as `history` tells it
    stamp: String,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn revert(args: RevertArgs, client: &Client, console: &mut Console) -> Outcome {
    let RevertArgs { path, stamp, wait: WaitArgs { wait, timeout } } = args;
    write(&Revert { path, stamp, wait, timeout: Some(timeout) }, client, console).await
}

async fn write<O>(request: &O, client: &Client, console: &mut Console) -> Outcome
where
    O: Operation<Answer = Whole<WriteOutcome>>,
{
    let outcome = console.attend("waiting for the nodes", client.call(request)).await?;
    if console.wants_json() {
        console.json(&outcome)?;
    } else {
        console.say(told(&outcome));
    }
    reached(&outcome.path, &outcome.wait)
}

/// What a write did, for people.
fn told(outcome: &WriteOutcome) -> String {
    let WriteOutcome { path, wait, .. } = outcome;
    match (outcome.changed, wait.of) {
        (false, _) => format!("{path}: nothing to change"),
        (true, 0 | 1) => format!("{path}: written"),
        (true, of) => format!("{path}: written, on {} of {of} nodes so far", wait.reached),
    }
}

/// Whether as many nodes hold what was written as the caller asked for.
pub(super) fn reached(what: &str, wait: &WaitOutcome) -> Result<(), Stop> {
    if wait.met {
        return Ok(());
    }
    let missing = match wait.missing.as_slice() {
        [] => "which ones is not known".to_owned(),
        names => format!("not yet on {}", names.join(", ")),
    };
    let mut message = format!(
        "{what} is written here, but {} was not reached in time: on {} of {} nodes, {missing}",
        wait.wanted, wait.reached, wait.of
    );
    for reason in &wait.reasons {
        message = format!("{message}; {reason}");
    }
    let hint = "nothing needs to be done again: the others get it as soon as they can";
    Err(ApiError::new(ErrorCode::NotReached, message).hint(hint).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_json_where_it_reads_as_json_and_prints_back() {
        let given = |text: &str| text.parse::<Assignment>().unwrap().given;
        for (text, value) in [
            ("a=1", json!(1)),
            ("a=true", json!(true)),
            ("a=[1, \"x\"]", json!([1, "x"])),
            ("a=\"1\"", json!("1")),
            ("a=1.10", json!("1.10")),
            ("a=10.0.0.5", json!("10.0.0.5")),
            ("a=", json!("")),
            ("a=b=c", json!("b=c")),
            ("a=@", json!("@")),
            ("a=\"@x\"", json!("@x")),
            ("a=\"-\"", json!("-")),
        ] {
            assert_eq!(given(text), Given::Typed(value), "{text}");
        }
        assert_eq!(given("a=@/b"), Given::File("/b".into()));
        assert_eq!(given("a=-"), Given::Stdin);
        for wrong in ["a", "=a", "a={\"b\":1,}", "a=[1.10]"] {
            assert!(wrong.parse::<Assignment>().is_err(), "{wrong}");
        }
    }
}
