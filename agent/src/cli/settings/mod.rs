//! `peerage settings`: one command per verb.

mod compact;
mod files;
mod show;
mod watch;
mod write;

use clap::{Args, Subcommand};
use peerage_proto::api::{Span, Wait};

use super::{Client, Console, Outcome, Stop};

/// Read and write the settings of the Data Center.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// List documents with their fields
    List(show::ListArgs),
    /// Print a document, or the bare value of one of its fields
    Get(show::GetArgs),
    /// Set fields of a document
    Set(write::SetArgs),
    /// Take fields of a document away, or the whole document
    Unset(write::UnsetArgs),
    /// Tell what was written to a document, the newest first
    History(show::HistoryArgs),
    /// Make a document what it was after an earlier change
    Revert(write::RevertArgs),
    /// List edits of one field of which none knew of the other
    Conflicts,
    /// Print each change as it comes
    Watch(watch::WatchArgs),
    /// Set what a file says, as `export` printed it
    Apply(files::ApplyArgs),
    /// Print all documents, for `apply`
    Export,
    /// Forget the history of the settings on this node, and give the disk's room back
    ///
    /// History yields by itself where settings need its room: this is for a disk that is short of
    /// space. What shows, and what is in a conflict, stays; `history` and `revert` have nothing
    /// earlier any more, on this node.
    Compact,
}

pub(super) async fn run(
    command: SettingsCommand,
    client: &Client,
    console: &mut Console,
) -> Outcome {
    match command {
        SettingsCommand::List(args) => show::list(args, client, console).await,
        SettingsCommand::Get(args) => show::get(args, client, console).await,
        SettingsCommand::Set(args) => write::set(args, client, console).await,
        SettingsCommand::Unset(args) => write::unset(args, client, console).await,
        SettingsCommand::History(args) => show::history(args, client, console).await,
        SettingsCommand::Revert(args) => write::revert(args, client, console).await,
        SettingsCommand::Conflicts => show::conflicts(client, console).await,
        SettingsCommand::Watch(args) => watch::watch(args, client, console).await,
        SettingsCommand::Apply(args) => files::apply(args, client, console).await,
        SettingsCommand::Export => files::export(client, console).await,
        SettingsCommand::Compact => compact::compact(client, console).await,
    }
}

/// How far a write must come before its command returns.
#[derive(Debug, Clone, Args)]
struct WaitArgs {
    /// Return once it is on: this node (local), more than half (majority), all, or N nodes
    #[arg(long, value_name = "local|majority|all|N", default_value = "local")]
    wait: Wait,
    /// How long to wait for that; then the command ends with 6
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    timeout: Span,
}
