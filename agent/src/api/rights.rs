//! Who may do what, as it stands at each moment.
//!
//! The rights are not frozen while a connection or a stream is open: a user whom root takes out of
//! the group may do no more from the next call on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_proto::access::{Caller, Decision, Grant, Host, Policy, Right, decide};
use peerage_proto::api::{ApiError, ErrorCode, Item};

/// For how long a file may be written again without a new time of its change: the kernel's clock for
/// files ticks every few milliseconds.
const TICK: Duration = Duration::from_secs(1);

/// The rights on this agent. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Rights(Arc<Sources>);

/// Where the rights come from.
#[derive(Debug)]
struct Sources {
    /// The name of the group whose members get grants of their own.
    group: String,
    /// Where the host lists its groups, as of group(5).
    groups: PathBuf,
    agent_uid: u32,
    grants: Vec<Grant>,
    known: Mutex<Option<Known>>,
}

/// The policy, as of one reading of the host's file of groups.
#[derive(Debug)]
struct Known {
    policy: Arc<Policy>,
    file: Option<Version>,
}

/// One version of a file, as far as its inode tells versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Rights {
    /// The rights that these grants give to the users of this host. `group` is the name of the
    /// group that is told apart, as the file `groups` lists it. A file that cannot be read tells
    /// nothing, and then nothing is granted to that group.
    pub fn of_host(group: String, groups: PathBuf, grants: Vec<Grant>) -> Self {
        let agent_uid = rustix::process::geteuid().as_raw();
        Self(Arc::new(Sources { group, groups, agent_uid, grants, known: Mutex::default() }))
    }

    /// The policy as it stands now. The host's file is read where it has changed.
    pub fn policy(&self) -> Arc<Policy> {
        let sources = &self.0;
        let mut known = sources.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = Version::of(&sources.groups).ok();
        match &*known {
            Some(known) if known.file.is_some() && known.file == file => known.policy.clone(),
            _ => {
                let policy = Arc::new(sources.read());
                // If the file was changed just now, its next change might not show in the inode: so
                // this version is not kept.
                let file = file.filter(Version::is_settled);
                *known = Some(Known { policy: policy.clone(), file });
                policy
            }
        }
    }
}

impl Sources {
    fn read(&self) -> Policy {
        let text = fs::read_to_string(&self.groups).unwrap_or_default();
        let listed = Group::find(&text, &self.group);
        let host = Host {
            agent_uid: self.agent_uid,
            group: self.group.clone(),
            group_id: listed.as_ref().map(|listed| listed.id),
            members: listed.map(|listed| listed.members).unwrap_or_default(),
        };
        Policy { host, grants: self.grants.clone() }
    }
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let changed = (found.ctime(), found.ctime_nsec());
        Ok(Self { inode: found.ino(), bytes: found.len(), changed })
    }

    /// Whether a further change of the file would show in its inode.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        now > changed + 2 * TICK
    }
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

/// Checks that the caller has this right.
///
/// # Errors
/// [`ErrorCode::Forbidden`], with the right that is missing and the way to get it.
pub fn admit(policy: &Policy, caller: &Caller, right: Right<'_>) -> Result<(), ApiError> {
    match decide(policy, caller, right) {
        Decision::Allowed(_) => Ok(()),
        Decision::Refused(refusal) => {
            let error = ApiError::new(ErrorCode::Forbidden, refusal.to_string());
            Err(error.hint(refusal.hint()))
        }
    }
}

/// Which items of a list or a stream a caller gets to see.
#[derive(Debug, Clone)]
pub struct Sight {
    policy: Arc<Policy>,
    caller: Arc<Caller>,
}

impl Sight {
    /// What this caller sees by this policy.
    pub fn new(policy: Arc<Policy>, caller: Arc<Caller>) -> Self {
        Self { policy, caller }
    }

    /// Whether an item is shown.
    pub fn shows(&self, item: &impl Item) -> bool {
        item.right().is_none_or(|right| decide(&self.policy, &self.caller, right).allows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_the_hosts_file() {
        let group = "root:x:0:\npeerage:x:990:alice,bob\nempty:x:7:\nodd:x:many:\n";
        let peerage = Group { id: 990, members: vec!["alice".into(), "bob".into()] };
        assert_eq!(Group::find(group, "peerage"), Some(peerage));
        assert_eq!(Group::find(group, "empty"), Some(Group { id: 7, members: vec![] }));
        assert_eq!(Group::find(group, "odd"), None);
        assert_eq!(Group::find(group, "peer"), None);
    }

    #[test]
    fn the_policy_is_that_of_the_file_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("group");
        let rights = Rights::of_host("peerage".into(), file.clone(), Grant::defaults());
        assert_eq!(rights.policy().host.group_id, None, "there is no file");
        // The texts have one length, and are written within one tick of the kernel's clock for
        // files.
        for id in [990, 991, 992] {
            fs::write(&file, format!("peerage:x:{id}:alice\n")).unwrap();
            assert_eq!(rights.policy().host.group_id, Some(id));
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(rights.policy().host.group_id, None);
    }

    #[test]
    fn a_file_that_has_settled_is_read_once() {
        let version = |seconds: u64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let changed = i64::try_from(now.as_secs() - seconds).unwrap();
            Version { inode: 1, bytes: 1, changed: (changed, 0) }
        };
        assert!(!version(0).is_settled() && version(60).is_settled());
        let ahead = Version { changed: (i64::MAX, 0), ..version(0) };
        assert!(!ahead.is_settled());
    }
}
