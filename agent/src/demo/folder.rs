//! A temporary folder that is removed even when this process is killed.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

/// A shell script that removes the folder once this process has ended. The script reads from a pipe
/// that only this process holds open, so the kernel tells it of the end, however this process
/// ended. The agents die at the same time and may still write for a moment, so the script tries
/// again, a bounded number of times.
const SWEEP: &str = r#"cat; n=0; while [ -e "$0" ] && [ $n -lt 100 ]; do rm -rf "$0"; n=$((n+1)); \
[ -e "$0" ] && sleep 0.1; done"#;

/// The folder. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Folder {
    path: TempDir,
    sweeper: Child,
    pipe: Option<ChildStdin>,
}

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        let path = tempfile::Builder::new().prefix("peerage-demo-").tempdir()?;
        let mut sweeper = Command::new("sh")
            .args(["-c", SWEEP])
            .arg(path.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C on the terminal must stop the demo, but not the process that cleans up after
            // it.
            .process_group(0)
            .spawn()?;
        let pipe = sweeper.stdin.take();
        Ok(Self { path, sweeper, pipe })
    }

    pub(super) fn path(&self) -> &Path {
        self.path.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // The sweeper removes the folder; when it has ended, nothing is left.
        let _ = self.sweeper.wait();
    }
}
