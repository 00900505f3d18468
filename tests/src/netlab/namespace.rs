//! One network namespace, known by a handle alone.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Why there is no lab.
#[derive(Debug)]
pub enum LabError {
    /// This machine, or this user, cannot have one.
    Unavailable(String),
    /// A command of the lab's failed: its words.
    Failed(String),
}

impl std::error::Error for LabError {}

impl std::fmt::Display for LabError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "no hosts in network namespaces here: {why}"),
            Self::Failed(what) => f.write_str(what),
        }
    }
}

/// A network namespace. It lasts while this value, or a process in it, does.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new namespace, with nothing in it but a loopback that is down.
    ///
    /// # Errors
    /// [`LabError::Unavailable`], mostly for want of root.
    pub fn new() -> Result<Arc<Self>, LabError> {
        // A thread of its own moves, so that this process stays where it is.
        let made = thread::spawn(Self::of_this_thread).join().expect("the thread does not panic");
        let unavailable = |error| LabError::Unavailable(format!("{error} (root is needed)"));
        made.map(|file| Arc::new(Self(file))).map_err(unavailable)
    }

    #[allow(unsafe_code)]
    fn of_this_thread() -> io::Result<File> {
        // SAFETY: what may not be unshared by one thread alone is its table of files; its network
        // is the thread's own matter, and the thread ends after this.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        File::open("/proc/thread-self/ns/net")
    }

    /// Lets a command start inside. It keeps the file system and all else of this process.
    #[allow(unsafe_code)]
    pub fn enter(self: &Arc<Self>, command: &mut Command) {
        let namespace = self.clone();
        let move_in = move || Ok(namespace.move_in()?);
        // SAFETY: between fork and exec only async-signal-safe functions may run; this is one
        // system call on a file that the closure keeps open.
        unsafe { command.pre_exec(move_in) };
    }

    /// Shows a command, and nobody else, this file as `/etc/hosts`. What is written into the file later
    /// shows, too. Needs root.
    ///
    /// # Panics
    /// When the path has a zero byte.
    #[allow(unsafe_code)]
    pub fn show_hosts(command: &mut Command, hosts: &Path) {
        let hosts = CString::new(hosts.as_os_str().as_bytes()).expect("a path of a test");
        let show = move || {
            // SAFETY: the command is a process of one thread here, just forked, which shares its
            // table of files with nobody.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change(c"/", private)?;
            Ok(mount_bind(hosts.as_c_str(), c"/etc/hosts")?)
        };
        // SAFETY: between fork and exec only async-signal-safe functions may run; these are three
        // system calls with paths that were made before.
        unsafe { command.pre_exec(show) };
    }

    /// Runs this inside, on a thread of its own. A socket that it opens stays in the namespace.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.move_in().expect("a thread can move into a namespace that this process made");
                run()
            });
            inside.join().expect("what runs inside does not panic")
        })
    }

    /// Runs commands of `ip`, one per line.
    ///
    /// # Errors
    /// [`LabError::Failed`] with what it said.
    pub fn ip(self: &Arc<Self>, commands: &str) -> Result<(), LabError> {
        self.run("ip", &["-batch", "-"], commands).map(drop)
    }

    /// How many of its cards are up, with a peer that is up too.
    ///
    /// # Errors
    /// As [`Namespace::ip`].
    pub(super) fn cards_up(self: &Arc<Self>) -> Result<usize, LabError> {
        let cards = self.run("ip", &["-oneline", "link", "show", "type", "veth", "up"], "")?;
        Ok(cards.lines().filter(|card| card.contains(" state UP ")).count())
    }

    /// Lets `nft` carry out a script, all of it or nothing.
    ///
    /// # Errors
    /// As [`Namespace::ip`].
    pub fn nft(self: &Arc<Self>, script: &str) -> Result<(), LabError> {
        self.run("nft", &["-f", "-"], script).map(drop)
    }

    /// A path by which other processes of root find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    fn move_in(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
    }

    fn run(self: &Arc<Self>, tool: &str, args: &[&str], script: &str) -> Result<String, LabError> {
        let failed =
            |what: String| LabError::Failed(format!("{tool}: {what}, asked to:\n{script}"));
        let mut command = Command::new(tool);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.enter(&mut command);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut input = child.stdin.take().expect("it was piped");
        // A tool that stops at an error leaves the rest unread; its words tell why.
        let _ = input.write_all(script.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }
}

/// Makes sure that a tool is there.
pub(super) fn find_tool(tool: &str, package: &str) -> Result<(), LabError> {
    let mut command = Command::new(tool);
    command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok();
    there
        .then_some(())
        .ok_or_else(|| LabError::Unavailable(format!("no {tool} (package {package})")))
}
