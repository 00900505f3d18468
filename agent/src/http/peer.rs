//! Who is at the other end of the socket, as the kernel and this host's files tell it.
//!
//! The kernel names the process, its user and its first group at the time it connected; its further
//! groups are those that the process has, as the kernel would judge a file.

use std::fs;
use std::io;
use std::sync::Arc;

use peerage_proto::access::{Caller, Process};
use tokio::net::UnixStream;

/// Who made a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// The user of the host from whose share of all bounds the connection takes.
    pub(super) uid: u32,
    /// The caller, by whom rights are judged.
    pub(super) caller: Arc<Caller>,
}

impl Peer {
    /// The process that made this connection.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let uid = credentials.uid();
        let user = user_name(&read("/etc/passwd"), uid);
        let groups = match credentials.pid() {
            Some(pid) => process_groups(&read(&format!("/proc/{pid}/status")), uid),
            None => Vec::new(),
        };
        let process = Process { uid, gid: credentials.gid(), user, groups };
        Ok(Self { uid, caller: Arc::new(Caller::Process(process)) })
    }
}

/// The user that this agent runs as.
pub(super) fn agent_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file that cannot be read tells nothing, which grants nothing.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The name of a user, from the text of passwd(5).
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The groups of a process, from the text of proc_pid_status(5). The process that connected may be
/// gone and another may have its number: so a process that does not run wholly as the user that the
/// kernel named tells no groups.
fn process_groups(status: &str, uid: u32) -> Vec<u32> {
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap_or_default().split_ascii_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    if numbers("Uid:") != [uid; 4] {
        return Vec::new();
    }
    numbers("Groups:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_the_caller() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        let Caller::Process(process) = &*peer.caller else { panic!("{peer:?}") };
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert_eq!(process.gid, rustix::process::getegid().as_raw());
        assert_eq!(peer.uid, process.uid);
    }

    #[test]
    fn names_are_found_in_the_hosts_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!(user_name(passwd, 1), None);
    }

    #[test]
    fn a_process_of_another_user_lends_no_groups() {
        let status = "Name:\tcurl\nUid:\t1000\t1000\t1000\t1000\nGroups:\t27 990 \n";
        assert_eq!(process_groups(status, 1000), [27, 990]);
        assert!(process_groups(status, 1001).is_empty());
        let setuid = status.replace("1000\t1000\t1000\t1000", "1000\t0\t0\t0");
        assert!(process_groups(&setuid, 1000).is_empty());
        assert!(process_groups("", 1000).is_empty());
    }
}
