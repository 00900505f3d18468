//! `list`, `get`, `history` and `conflicts`.

use std::collections::BTreeMap;

use clap::Args;
use peerage_proto::api::settings::{
    Conflict, Edit, FieldMeta, Fields, GetDocument, GetHistory, ListConflicts, ListDocuments,
    LosingEdit,
};
use peerage_proto::api::{ApiError, ErrorCode, composed};

use super::super::table::Table;
use super::super::text::{bare, change, count, one_line, printable, value};
use super::{Client, Console, Outcome};

/// List documents with their fields.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only documents whose path begins so, letter by letter: g for g1 and gateway/lan, storage/
    /// for all below storage
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Tell of each field who wrote it and when
    #[arg(long)]
    full: bool,
}

pub(super) async fn list(args: ListArgs, client: &Client, console: &mut Console) -> Outcome {
    let request = ListDocuments { prefix: args.prefix, full: args.full };
    let documents = console.attend("asking the agent", client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&documents);
    }
    if documents.is_empty() {
        console.say("no documents");
    }
    for document in &documents {
        console.line(&one_line(&document.path))?;
        console.table(&fields(&document.fields, document.meta.as_ref()).indented(2))?;
    }
    Ok(())
}

/// A row for each field, with the field's origin where that was asked for.
fn fields(fields: &Fields, meta: Option<&BTreeMap<String, FieldMeta>>) -> Table {
    let mut table = match meta {
        Some(_) => Table::new(&["FIELD", "VALUE", "STAMP", "WRITER", "ACTOR"]),
        None => Table::default(),
    };
    for (field, shown) in fields {
        let shown = value(shown);
        match meta.map(|meta| meta.get(field)) {
            None => table.row([field, &shown]),
            Some(None) => table.row([field, &shown, "-", "-", "-"]),
            Some(Some(meta)) => {
                table.row([field, &shown, &meta.stamp, &meta.writer, &meta.actor]);
            }
        }
    }
    table
}

/// Print a document, or the bare value of one of its fields.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The document
    path: String,
    /// One of its fields
    field: Option<String>,
    /// Tell of each field who wrote it and when
    #[arg(long, conflicts_with = "field")]
    full: bool,
}

pub(super) async fn get(args: GetArgs, client: &Client, console: &mut Console) -> Outcome {
    let request = GetDocument { path: args.path, full: args.full };
    let document = client.call(&request).await?;
    let Some(field) = args.field else {
        if console.wants_json() {
            return console.json(&document);
        }
        return console.table(&fields(&document.fields, document.meta.as_ref()));
    };
    let Some(found) = document.fields.get(&*composed(&field)) else {
        let message = format!("there is no field {field:?} in {}", document.path);
        let fields: Vec<&str> = document.fields.keys().map(String::as_str).collect();
        let hint = format!("it has: {}", fields.join(", "));
        return Err(ApiError::new(ErrorCode::NotFound, message).hint(hint).into());
    };
    match (console.wants_json(), console.shows_to_a_person()) {
        (true, _) => console.json(found),
        (false, true) => console.line(&printable(&bare(found))),
        (false, false) => console.line(&bare(found)),
    }
}

/// Tell what was written to a document.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The document
    path: String,
}

pub(super) async fn history(args: HistoryArgs, client: &Client, console: &mut Console) -> Outcome {
    let entries = client.call(&GetHistory { path: args.path }).await?;
    if console.wants_json() {
        return console.json(&entries);
    }
    let mut table = Table::new(&["STAMP", "AT", "WRITER", "ACTOR", "SHOWS", "CHANGE"]);
    for entry in &entries {
        let mut said = change(&entry.set, &entry.unset, entry.removed);
        if !entry.left_out.is_empty() {
            let fields = entry.left_out.join(", ");
            said = format!("{said} (and values of {fields}, which history has let go)");
        }
        table.row([
            entry.stamp.as_str(),
            &entry.at,
            &entry.writer,
            &entry.actor,
            if entry.current { "yes" } else { "no" },
            said.trim_start(),
        ]);
    }
    console.table(&table)
}

pub(super) async fn conflicts(client: &Client, console: &mut Console) -> Outcome {
    let conflicts = client.call(&ListConflicts {}).await?;
    if console.wants_json() {
        return console.json(&conflicts);
    }
    if conflicts.is_empty() {
        console.say("no conflicts");
        return Ok(());
    }
    for conflict in &conflicts {
        let Conflict { path, field, .. } = conflict;
        console.line(&one_line(&format!("{path} {field}")))?;
        console.table(&sides(conflict))?;
    }
    let conflicts = count(conflicts.len() as u64, "conflict");
    console.say(format_args!("{conflicts}; to settle one: peerage settings set PATH FIELD=VALUE"));
    Ok(())
}

fn sides(Conflict { winner, losers, .. }: &Conflict) -> Table {
    let mut table = Table::default().indented(2);
    table.row(edit("shows", winner, ""));
    for LosingEdit { edit: lost, change: written } in losers {
        let written = change(&written.set, &written.unset, written.removed);
        table.row(edit("lost", lost, &format!("with: {written}")));
    }
    table
}

fn edit(role: &str, edit: &Edit, note: &str) -> [String; 5] {
    let shown = edit.value.as_ref().map_or("(unset)".to_owned(), value);
    let by = format!("by {} on {}", edit.actor, edit.writer);
    [role.to_owned(), shown, by, edit.at.clone(), note.to_owned()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conflict_shows_both_edits_and_the_whole_change_that_lost() {
        let edit = |stamp: &str, value: u32| {
            json!({"stamp": stamp, "value": value, "writer": "pve-1", "actor": "root",
                   "at": "2026-01-02T03:04:05Z"})
        };
        let mut lost = edit("1.0", 9);
        lost["change"] = json!({"set": {"size": 9, "tier": "b"}});
        let conflict: Conflict = serde_json::from_value(json!({
            "path": "storage/nas1", "field": "size", "winner": edit("2.0", 8), "losers": [lost],
        }))
        .unwrap();
        let expected = "
  shows  8  by root on pve-1  2026-01-02T03:04:05Z
  lost   9  by root on pve-1  2026-01-02T03:04:05Z  with: set size=9 tier=b
";
        assert_eq!(sides(&conflict).to_string(), expected[1..]);
    }
}
