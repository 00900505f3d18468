//! How a command gets Join Information: from an argument, from stdin, from a file, or from the
//! terminal.

use std::path::Path;

use peerage_proto::api::invites::{Progress, progress};
use peerage_proto::api::{ApiError, ErrorCode, text};

use super::source::read_text;
use super::{Console, Stop};

/// The longest file that is read as Join Information.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The Join Information from an argument, from stdin (`-`), from a file, or from the person at the
/// terminal. A terminal may have broken it into lines; it contains no white space of its own.
///
/// # Errors
/// No Join Information was given, or nobody can be asked for it.
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
            // A person who has pasted a part, and then an empty line, waits for an answer.
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
