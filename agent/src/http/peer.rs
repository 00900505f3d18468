//! Who is at the other end of the socket, as the kernel and this host's files tell it.
//!
//! The kernel names the process, its user and its first group at the time it connected. Further
//! groups are those that the process has (as the kernel would judge a file) and those that
//! `/etc/group` lists for the user, so that a user who was just added need not log in again.

use std::fs;
use std::io;

use peerage_proto::access::{Caller, Policy};
use tokio::net::UnixStream;

/// A caller, with the policy as it is at the time of the connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) caller: Caller,
    pub(super) policy: Policy,
}

impl Peer {
    /// The process that made this connection. `group` is the name of the group that may write.
    pub(super) fn of(stream: &UnixStream, group: &str) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let uid = credentials.uid();
        let user = user_name(&read("/etc/passwd"), uid);
        let listed = Group::find(&read("/etc/group"), group);
        let mut groups = match credentials.pid() {
            Some(pid) => process_groups(&read(&format!("/proc/{pid}/status")), uid),
            None => Vec::new(),
        };
        if let (Some(listed), Some(user)) = (&listed, &user)
            && listed.members.contains(user)
        {
            groups.push(listed.id);
        }
        let policy = Policy {
            agent_uid: agent_uid(),
            group: group.to_owned(),
            group_id: listed.map(|listed| listed.id),
        };
        Ok(Self { caller: Caller { uid, gid: credentials.gid(), user, groups }, policy })
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

/// A line of group(5).
#[derive(Debug, PartialEq, Eq)]
struct Group {
    id: u32,
    members: Vec<String>,
}

impl Group {
    fn find(text: &str, name: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let id = fields.nth(1)?.parse().ok()?;
            let members = fields.next()?.split(',').filter(|member| !member.is_empty());
            Some(Self { id, members: members.map(str::to_owned).collect() })
        })
    }
}

/// The groups of a process, from the text of proc_pid_status(5). The process that connected may be
/// gone and its number taken: what does not run wholly as the user that the kernel named tells
/// nothing.
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
        let peer = Peer::of(&ours, "no-such-group-here").unwrap();
        assert_eq!(peer.caller.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.caller.gid, rustix::process::getegid().as_raw());
        assert_eq!(peer.policy.agent_uid, peer.caller.uid);
        assert_eq!(peer.policy.group_id, None);
    }

    #[test]
    fn names_and_members_are_found_in_the_hosts_files() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!(user_name(passwd, 1), None);
        let group = "root:x:0:\npeerage:x:990:alice,bob\nempty:x:7:\nodd:x:many:\n";
        let peerage = Group { id: 990, members: vec!["alice".into(), "bob".into()] };
        assert_eq!(Group::find(group, "peerage"), Some(peerage));
        assert_eq!(Group::find(group, "empty"), Some(Group { id: 7, members: vec![] }));
        assert_eq!(Group::find(group, "odd"), None);
        assert_eq!(Group::find(group, "peer"), None);
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
