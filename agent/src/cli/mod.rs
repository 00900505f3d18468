//! The command line: words in, requests to the agent, words out.
//!
//! It knows the agent's api and the agent's socket, and nothing of the agent's insides. Data goes
//! to stdout, words to stderr; with `--json` the data is what the agent answered, and a failure is
//! one JSON object on stderr. [`Exit`] tells how a command ended.

mod agent;
mod answerer;
mod client;
pub mod config;
mod console;
mod create;
mod demo;
mod events;
mod follow;
mod inspect;
mod invite;
mod join;
mod leave;
mod links;
mod meet;
mod members;
mod qr;
mod reaching;
mod reset;
mod settings;
mod source;
mod sse;
mod status;
mod table;
mod text;
mod token;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use peerage_proto::api::{ApiError, ErrorCode, Exit};

pub use agent::AgentArgs;
pub use client::Client;
pub use console::{Console, Terminal};
pub use demo::DemoArgs;
pub use reset::reset_stopped;

/// The three lines that lead in.
const WAY_IN: &str = "  \
  peerage create NAME     on one host: found a Data Center
  peerage invite          there, or on any host that joined: print what to paste
  peerage join            on each further host: join, with what was printed";

/// Behind a command's own options in its help.
const LAST: usize = 1000;

const ABOUT: &str = "peerage makes a fleet of Linux hosts one Data Center, without a master.";

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 usage; 3 not found; 4 refused; 5 the agent cannot be reached;
6 done here, but --wait was not reached in time.
To see it work on this host alone: peerage demo";

/// The command line, parsed.
#[derive(Debug, Parser)]
#[command(
    name = "peerage",
    version,
    about = ABOUT,
    before_help = format!("{ABOUT}\n\n{WAY_IN}"),
    help_template = "{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// The agent's socket [default: PEERAGE_SOCKET, or what the configuration says]
    #[arg(long, global = true, value_name = "FILE", display_order = LAST)]
    pub socket: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true, display_order = LAST)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent, in the foreground
    Agent(AgentArgs),
    /// Found a Data Center on this node
    Create(create::CreateArgs),
    /// Print Join Information for another node
    Invite(invite::InviteArgs),
    /// Tell what Join Information says, without using it
    Inspect(inspect::InspectArgs),
    /// Join the Data Center that Join Information speaks of
    Join(join::JoinArgs),
    /// Meet members that this node does not find any more, by Join Information of one of them
    Meet(meet::MeetArgs),
    /// Tell how this node is doing
    Status,
    /// List the members of the Data Center
    Members(members::MembersArgs),
    /// Tell where this node and the others are reached
    ///
    /// A node has up to 16 links, and the others use the best that works. Where its operator says
    /// nothing they are the addresses of the host's interfaces, as they come and go. The
    /// configuration may name others (`[[link]]`, `advertise`), and `peerage links set` overrules
    /// both until `peerage links auto`.
    Links(links::LinksArgs),
    /// Give a member another name
    Rename(members::RenameArgs),
    /// Put a member out of the Data Center, for good
    Remove(members::RemoveArgs),
    /// Leave the Data Center
    Leave(leave::LeaveArgs),
    /// Give this host an identity of its own, after its disk was copied or it was removed
    Reset(reset::ResetArgs),
    /// Read and write the settings of the Data Center
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Tell what happened
    Events(events::EventsArgs),
    /// Show real agents at work on this host
    Demo(DemoArgs),
    /// Tell about the agent's configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

impl CommandLine {
    /// Parses the arguments, of which the first is the program's name. Where they make no sense, or
    /// ask for help, it says so and gives back how to end.
    ///
    /// # Errors
    /// The exit to end with; everything has been said.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        Self::try_parse_from(&arguments).map_err(|error| {
            if !error.use_stderr() {
                // Help and the version were asked for, so this is no failure; if the pipe is
                // closed, its reader has read enough.
                let _ = error.print();
                return Exit::Done;
            }
            if arguments.iter().any(|argument| argument == "--json") {
                let text = error.render().to_string();
                let text = text.trim_start_matches("error: ").trim();
                let (message, hint) = text.split_once("\n\n").unwrap_or((text, "peerage --help"));
                let error = ApiError::new(ErrorCode::BadRequest, message).hint(hint);
                return Console::of_this_process(true).end(Err(Stop::Failed(error)));
            }
            let _ = error.print();
            Exit::Usage
        })
    }
}

/// Carries out a command by asking the agent on this socket. Commands that need no agent (`agent`,
/// `demo`, `config`) do not belong here and are refused.
pub async fn run(command: Command, socket: &Path, console: &mut Console) -> Exit {
    let client = Client::new(socket);
    let outcome = match command {
        Command::Create(args) => create::create(args, &client, console).await,
        Command::Invite(args) => invite::invite(args, &client, console).await,
        Command::Inspect(args) => inspect::inspect(args, &client, console).await,
        Command::Join(args) => join::join(args, &client, console).await,
        Command::Meet(args) => meet::meet(args, &client, console).await,
        Command::Status => status::status(&client, console).await,
        Command::Members(args) => members::members(args, &client, console).await,
        Command::Links(args) => links::links(args, &client, console).await,
        Command::Rename(args) => members::rename(args, &client, console).await,
        Command::Remove(args) => members::remove(args, &client, console).await,
        Command::Reset(args) => reset::reset(args, &client, console).await,
        Command::Leave(args) => leave::leave(args, &client, console).await,
        Command::Settings(command) => settings::run(command, &client, console).await,
        Command::Events(args) => events::events(args, &client, console).await,
        Command::Agent(_) | Command::Demo(_) | Command::Config(_) => {
            Err(ApiError::new(ErrorCode::Internal, "this command asks no agent").into())
        }
    };
    console.end(outcome)
}

/// Says how to begin.
pub fn show_way_in(console: &mut Console) -> Exit {
    let shown = console.line(&format!("{ABOUT}\n\n{WAY_IN}\n\npeerage --help tells the rest."));
    console.end(shown)
}

/// Why a command ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// The command failed, for a reason that its user must hear.
    Failed(ApiError),
    /// The reader of its output has read enough (`| head`).
    PipeClosed,
}

/// How a command ends.
type Outcome = Result<(), Stop>;

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::Failed(ApiError::new(ErrorCode::Failed, format!("cannot write: {error}")))
    }
}
