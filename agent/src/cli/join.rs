//! `peerage join`.

use std::path::{Path, PathBuf};

use clap::Args;
use peerage_proto::api::invites::{Inspect, Inspection, Progress, progress};
use peerage_proto::api::node::Join;
use peerage_proto::api::{ApiError, ErrorCode, text};

use super::invite;
use super::source::read_text;
use super::text::count;
use super::{Client, Console, Outcome, Stop};

/// The longest file that is read as Join Information.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Join the Data Center that Join Information speaks of.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The Join Information that `peerage invite` printed; - reads it from stdin, and without it a
    /// terminal is asked: all users of a host see the arguments of a command
    #[arg(conflicts_with = "file")]
    token: Option<String>,
    /// Read the Join Information from this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What this node shall be called [default: the name it has]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take the name over from a member that is down, which is removed by that: for a host that was
    /// installed anew
    #[arg(long)]
    replace: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn join(args: JoinArgs, client: &Client, console: &mut Console) -> Outcome {
    let token = token_of(args.token.as_deref(), args.file.as_deref(), console)?;
    let inspection = client.call(&Inspect { token: token.clone() }).await?;
    // What cannot be used is refused by the agent in full words; no need to ask before.
    if inspection.valid
        && !args.yes
        && console.can_ask()
        && !console.confirm(&invite::table(&inspection), "Join?")?
    {
        return Err(ApiError::new(ErrorCode::Refused, "not joined: you said no").into());
    }
    // To meet members takes no secret.
    let password = match inspection.secret || inspection.already {
        true => None,
        false => Some(password(console)?),
    };
    let doing = format!("contacting {}", seeds(&inspection));
    let request = Join { token, name: args.name, password, replace: args.replace };
    let joined = console.attend(&doing, client.call(&request)).await?;
    if console.wants_json() {
        return console.json(&joined);
    }
    let (datacenter, node, seed) = (&joined.datacenter.name, &joined.node.name, &joined.seed);
    if joined.already {
        console.say(format_args!("{node} is a member of {datacenter} already, and met {seed}"));
        return Ok(());
    }
    let members = count(joined.members.into(), "node");
    console.say(format_args!("{node} joined {datacenter} by {seed}; it has {members} now"));
    Ok(())
}

/// The secret that the token is without.
fn password(console: &mut Console) -> Result<String, Stop> {
    let mut password = console.secret("Password that `peerage invite` printed")?;
    while !console.can_ask() && password.as_deref().is_some_and(text::says_nothing) {
        password = console.read_line()?;
    }
    let password = password.map(|password| password.trim().to_owned());
    password.filter(|password| !password.is_empty()).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "this Join Information is without its secret")
            .hint("give the password that `peerage invite` printed, on a line of stdin")
            .into()
    })
}

fn seeds(inspection: &Inspection) -> String {
    let addresses = inspection.seeds.iter().filter_map(|seed| seed.addresses.first());
    let addresses: Vec<&str> = addresses.map(String::as_str).collect();
    if addresses.is_empty() { "the seeds".to_owned() } else { addresses.join(", ") }
}

/// The Join Information from an argument, from stdin (`-`), from a file, or from whoever sits at the
/// terminal. A terminal may have broken it into lines; it contains no white space of its own.
///
/// # Errors
/// That there is none, also where nobody can be asked.
pub(super) fn token_of(
    argument: Option<&str>,
    file: Option<&Path>,
    console: &mut Console,
) -> Result<String, Stop> {
    let text = match (argument, file) {
        (_, Some(file)) => read_text(file, TOKEN_FILE_BYTES_MAX)?,
        (Some("-"), None) => lines_of_token(console)?,
        (Some(token), None) => token.to_owned(),
        (None, None) if console.can_ask() => {
            console.say("Paste the Join Information that `peerage invite` printed:");
            lines_of_token(console)?
        }
        (None, None) => {
            let message = "no Join Information was given, and there is no terminal to ask for it";
            let hint = "`-` in its place reads it from stdin; `--help` tells what else it can be";
            return Err(ApiError::new(ErrorCode::BadRequest, message).hint(hint).into());
        }
    };
    let token = text::one_word(&text);
    if token.is_empty() {
        let message = "there is no Join Information";
        let hint = "run `peerage invite` on a member, and give what it prints";
        return Err(ApiError::new(ErrorCode::BadRequest, message).hint(hint).into());
    }
    Ok(token)
}

/// Reads stdin line by line until the Join Information is whole, however a terminal has wrapped it;
/// no further, so that an answer or a password can follow it.
fn lines_of_token(console: &mut Console) -> Result<String, Stop> {
    let mut text = String::new();
    while let Some(line) = console.read_line()? {
        if text::says_nothing(&line) {
            // Who sits there and has pasted a part waits for an answer.
            if console.can_ask() && !text.is_empty() {
                break;
            }
            continue;
        }
        text.push_str(&line);
        if progress(&text) != Progress::More {
            break;
        }
        if console.can_ask() {
            console.say("that is a part of it: paste the rest, or press Enter to give up");
        }
    }
    Ok(text)
}
