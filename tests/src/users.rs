//! Users of a host, as the kernel tells them apart at a socket, and how one of them can be a burden.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::client::{Answer, Connection};
use crate::patience::SOON;
use crate::{Agent, Ran, binary, command, skipped};

/// The first of the ids that our users have; no other user has them.
const FIRST: u32 = 61_000;

/// A user without any rights on this host, or root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User(u32);

impl User {
    /// Root, who these tests run as.
    pub const ROOT: Self = Self(0);

    /// One of many users without rights; `None` where this process cannot be anyone else.
    pub fn nth(number: u32) -> Option<Self> {
        rustix::process::geteuid().is_root().then_some(Self(FIRST + number))
    }

    /// Lets all users get to the agent's socket and, for [`User::cli`], to a copy of the binary.
    ///
    /// # Panics
    /// When the folder of a test cannot be written.
    pub fn let_all_in(agent: &Agent) {
        let binary = agent.file("peerage");
        fs::copy(binary::peerage(), &binary).expect("the binary can be copied");
        let home = binary.parent().expect("a file lies in a folder");
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    }

    /// Connects as this user.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(self, socket: &Path) -> io::Result<UnixStream> {
        if self == Self::ROOT {
            return UnixStream::connect(socket);
        }
        // A thread of its own, since only the thread that connects becomes someone else.
        thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let (uid, gid) = (Uid::from_raw(self.0), Gid::from_raw(self.0));
                set_thread_groups(&[])?;
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                UnixStream::connect(socket)
            });
            connecting.join().expect("a thread that connects does not panic")
        })
    }

    /// Opens so many connections, and sends nothing. Connections that are refused at once are left
    /// out.
    pub fn idle(self, agent: &Agent, connections: usize) -> Vec<UnixStream> {
        let socket = agent.socket();
        (0..connections).filter_map(|_| self.connect(&socket).ok()).collect()
    }

    /// Sends this request on so many connections, and reads no answer.
    pub fn unread(self, agent: &Agent, path: &str, times: usize) -> Vec<UnixStream> {
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: peerage\r\n\r\n");
        let mut open = self.idle(agent, times);
        open.retain_mut(|stream| stream.write_all(request.as_bytes()).is_ok());
        open
    }

    /// Asks with GET, on a connection of its own.
    ///
    /// # Errors
    /// The connection broke.
    pub fn get(self, agent: &Agent, path: &str) -> io::Result<Answer> {
        Connection::over(self.connect(&agent.socket())?)?.ask("GET", path, None, &[])
    }

    /// The command line as this user. [`User::let_all_in`] comes first.
    pub fn cli(self, agent: &Agent, args: &[&str]) -> Ran {
        let mut command = Command::new(agent.file("peerage"));
        command::clean(&mut command);
        command.uid(self.0).gid(self.0);
        Ran::run(command.arg("--socket").arg(agent.socket()).args(args), "")
    }
}

/// Whether something has come that was not read.
///
/// # Panics
/// When the socket cannot be set to block or not to.
pub fn is_answered(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).expect("a socket is as it was");
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = rustix::net::recv(stream, &mut byte, rustix::net::RecvFlags::PEEK);
    stream.set_nonblocking(false).expect("a socket is as it was");
    // No byte at the end of the stream is no answer.
    matches!(peeked, Ok((_, 1..)))
}

/// The first line that comes; empty where none does.
///
/// # Panics
/// When the connection takes no timeout.
pub fn first_line(mut stream: &UnixStream) -> String {
    stream.set_read_timeout(Some(SOON)).expect("a socket is as it was");
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stream.read(&mut byte).is_ok_and(|length| length == 1) {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("a socket is as it was")
}

/// An agent that other users of this host reach. `None`, with a word on it, where there can be
/// none.
pub fn open_agent() -> Option<Agent> {
    if User::nth(0).is_none() {
        skipped("only root can be other users of the host");
        return None;
    }
    let agent = Agent::start("pve-1");
    User::let_all_in(&agent);
    Some(agent)
}
