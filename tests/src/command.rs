//! The command line as a user runs it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::binary;

/// A command of the binary that is tested, without the settings of whoever runs the tests.
pub fn peerage() -> Command {
    let mut command = Command::new(binary::peerage());
    clean(&mut command);
    command
}

/// Takes away the settings of whoever runs the tests, so that only the test's own count.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PEERAGE_") {
            command.env_remove(name);
        }
    }
    // The agent must not take the test for a service manager.
    command.env_remove("NOTIFY_SOCKET");
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it printed for programs.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end, with this on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(command: &mut Command, stdin: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut input = child.stdin.take().expect("it was piped");
        // A command that does not read its input may be gone before it is written.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        child.wait_with_output().expect("the command ends").into()
    }

    /// Checks the exit code.
    ///
    /// # Panics
    /// When it is another, with all that was printed.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// What `--json` printed.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {:?}, stderr: {}", self.stdout, self.stderr),
        }
    }

    /// Checks that stderr tells the cause: each of `words` is in it, whatever its case.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        let text = self.stderr.to_lowercase();
        for word in words {
            assert!(text.contains(&word.to_lowercase()), "{word:?} is not in {:?}", self.stderr);
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
