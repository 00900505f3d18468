//! `set`, `unset` and `revert`.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use peerage_proto::api::settings::{RemoveDocument, Revert, SetFields, WriteOutcome};
use peerage_proto::api::{ApiError, ErrorCode, Operation};
use serde_json::Value;

use super::{Client, Console, Outcome, Stop, WaitArgs};

/// Set fields of a document.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The document, such as storage/nas1
    path: String,
    /// What to set. VALUE is JSON where it reads as JSON (1, true, [1], '"1.10"'), else a string
    #[arg(required = true, value_name = "FIELD=VALUE")]
    fields: Vec<Assignment>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// One `FIELD=VALUE`.
#[derive(Debug, Clone, PartialEq)]
struct Assignment {
    field: String,
    value: Value,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text.split_once('=').ok_or("there is no = in it")?;
        if field.is_empty() {
            return Err("there is no field before the =".to_owned());
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self { field: field.to_owned(), value })
    }
}

pub(super) async fn set(args: SetArgs, client: &Client, console: &mut Console) -> Outcome {
    let mut set = BTreeMap::new();
    for Assignment { field, value } in args.fields {
        if set.insert(field.clone(), value).is_some() {
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
    O: Operation<Output = WriteOutcome>,
{
    let outcome = console.attend("waiting for the nodes", client.call(request)).await?;
    if console.wants_json() {
        console.json(&outcome)?;
    } else {
        console.say(told(&outcome));
    }
    reached(&outcome)
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

/// Whether as many nodes as were asked for have it.
pub(super) fn reached(outcome: &WriteOutcome) -> Result<(), Stop> {
    let wait = &outcome.wait;
    if wait.met {
        return Ok(());
    }
    let missing = match wait.missing.as_slice() {
        [] => "which ones is not known".to_owned(),
        names => format!("not yet on {}", names.join(", ")),
    };
    let message = format!(
        "{} is written here, but {} was not reached in time: on {} of {} nodes, {missing}",
        outcome.path, wait.wanted, wait.reached, wait.of
    );
    let hint = "nothing needs to be done again: the others get it as soon as they can";
    Err(ApiError::new(ErrorCode::NotReached, message).hint(hint).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_json_where_it_reads_as_json() {
        let value = |text: &str| text.parse::<Assignment>().unwrap().value;
        assert_eq!(value("a=1"), json!(1));
        assert_eq!(value("a=true"), json!(true));
        assert_eq!(value("a=[1, \"x\"]"), json!([1, "x"]));
        assert_eq!(value("a=\"1\""), json!("1"));
        assert_eq!(value("a=10.0.0.5"), json!("10.0.0.5"));
        assert_eq!(value("a="), json!(""));
        assert_eq!(value("a=b=c"), json!("b=c"));
        assert!("a".parse::<Assignment>().is_err());
        assert!("=a".parse::<Assignment>().is_err());
    }
}
