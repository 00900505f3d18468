//! Agents whose wall clock a test sets, while they run too.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::agent::Agent;

/// The library that shifts a process's clock.
const LIBRARY: &str = "libfaketime.so.1";

/// What a test says that it skips for want of the library.
pub const MISSING: &str = "no libfaketime.so.1 here (package faketime) to shift a clock with";

/// Where the dynamic linker finds the clock-shifting library.
pub fn library() -> Option<String> {
    let found = Command::new("find").args(["/usr/lib", "-name", LIBRARY]).output().ok()?;
    String::from_utf8(found.stdout).ok()?.lines().next().map(str::to_owned)
}

impl Agent {
    /// Runs it with a clock of its own from its next start on, which is right at first. The
    /// monotonic clock stays the host's.
    #[must_use]
    pub fn with_clock(self, library: &str) -> Self {
        self.set_clock("+0s");
        let shift = self.shift_path().display().to_string();
        self.env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &shift)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }

    /// Sets the clock of [`Agent::with_clock`] off by so much: `+120s`, `-1d`. It holds at once,
    /// and over restarts.
    pub fn set_clock(&self, shift: &str) {
        let fresh = self.file("clock.new");
        fs::write(&fresh, shift).expect("a folder of the test can be written");
        fs::rename(&fresh, self.shift_path()).expect("a file of the test can be renamed");
    }

    fn shift_path(&self) -> PathBuf {
        self.file("clock")
    }
}
