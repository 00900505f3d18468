//! Starts this program anew in place of itself. It stays the same process, so its supervisor sees
//! it go on, and the kernel takes back every lock, port and file that it had.
//!
//! The arguments of a process are open to every user of its host for as long as it runs. So Join
//! Information that stands in `--join` is handed on by stdin, from memory that no file names, and
//! `--join -` stands in its place: only the first moment of the process shows it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};

/// The option that is followed by Join Information.
const JOIN: &str = "--join";

/// The value of the option that means "read it from stdin".
pub const ON_STDIN: &str = "-";

/// How many bytes are read from stdin as Join Information.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// This program with its arguments.
pub fn again() -> Command {
    of(std::env::args_os())
}

/// Starts this program anew as it was started, but if the arguments hold a token, with `token` on
/// stdin in its place. Returns only where that failed; nothing has changed then.
pub fn with_token(token: &str) -> io::Error {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = of(without_token(&arguments).into_iter());
    // A token that came by the environment comes that way again.
    if arguments.iter().any(|argument| is_join(argument)) {
        match held(token) {
            Ok(memory) => command.stdin(memory),
            Err(error) => return error,
        };
    }
    command.exec()
}

/// The token on stdin. Stdin becomes `/dev/null` after that, so that no child process inherits it.
///
/// # Errors
/// What kept it from being read.
pub fn token_on_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_end(&mut bytes)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(bytes)
}

fn of(mut arguments: impl Iterator<Item = OsString>) -> Command {
    let mut again = Command::new("/proc/self/exe");
    again.arg0(arguments.next().unwrap_or_else(|| "peerage".into())).args(arguments);
    again
}

/// A file with this text that exists only in memory.
fn held(text: &str) -> io::Result<File> {
    let mut memory = File::from(memfd_create("peerage", MemfdFlags::CLOEXEC)?);
    memory.write_all(text.as_bytes())?;
    memory.rewind()?;
    Ok(memory)
}

/// The arguments, with [`ON_STDIN`] in place of a token.
fn without_token(arguments: &[OsString]) -> Vec<OsString> {
    let mut is_token = false;
    let without = |argument: &OsString| {
        let before = std::mem::replace(&mut is_token, argument == JOIN);
        match value_of_join(argument) {
            _ if before => ON_STDIN.into(),
            Some(_) => OsString::from_vec([JOIN.as_bytes(), b"=", ON_STDIN.as_bytes()].concat()),
            None => argument.clone(),
        }
    };
    arguments.iter().map(without).collect()
}

fn is_join(argument: &OsStr) -> bool {
    argument == JOIN || value_of_join(argument).is_some()
}

/// The token in `--join=TOKEN`.
fn value_of_join(argument: &OsStr) -> Option<&[u8]> {
    argument.as_bytes().strip_prefix(JOIN.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_arguments_and_nothing_else_does() {
        for (given, left) in [
            ("agent --join T --name n", "agent --join - --name n"),
            ("agent --name n --join T", "agent --name n --join -"),
            ("agent --join=T", "agent --join=-"),
            ("agent --join-file T", "agent --join-file T"),
            ("agent --join - --name n", "agent --join - --name n"),
            ("agent", "agent"),
        ] {
            let words: Vec<OsString> = given.split(' ').map(Into::into).collect();
            assert_eq!(without_token(&words).join(OsStr::new(" ")), left, "{given}");
        }
    }

    #[test]
    fn what_is_held_in_memory_is_read_from_its_beginning() {
        let mut text = String::new();
        held("peerage1-x").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "peerage1-x");
    }
}
