//! What was granted to whom.

use std::fmt;

use super::caller::Process;
use super::right::{Deed, Right, Verb};

/// What [`decide`](super::decide) goes by. It is made anew when any of it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How this host's users are told apart.
    pub host: Host,
    /// What was granted. Rights are the union of what is granted to all that a caller is.
    pub grants: Vec<Grant>,
}

/// How a host's users are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The user that the agent runs as.
    pub agent_uid: u32,
    /// The name of the group whose members are [`Subject::LocalGroup`].
    pub group: String,
    /// The id of that group; `None` where the host has no such group.
    pub group_id: Option<u32>,
    /// The names of the users that the host lists as its members.
    pub members: Vec<String>,
}

impl Host {
    /// Whether a process is in the group: by the groups that it has, or by the host's list, so that a
    /// user who was just added need not log in again.
    pub fn has_in_group(&self, process: &Process) -> bool {
        let Some(id) = self.group_id else { return false };
        let is_listed = |user: &String| self.members.contains(user);
        process.gid == id
            || process.groups.contains(&id)
            || process.user.as_ref().is_some_and(is_listed)
    }
}

/// A role, granted to a subject on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub subject: Subject,
    /// What.
    pub role: Role,
    /// Where: `/`, `/settings/storage`.
    pub path: String,
    /// Whether below that path, too.
    pub propagate: bool,
}

impl Grant {
    /// What a host's users may where nobody says otherwise: the group everything, the others look.
    pub fn defaults() -> Vec<Self> {
        let all = |subject, role| Self { subject, role, path: "/".into(), propagate: true };
        vec![
            all(Subject::LocalGroup, Role::Administrator),
            all(Subject::LocalOthers, Role::Auditor),
        ]
    }

    /// Whether it gives this right to whom it is granted.
    pub fn gives(&self, right: Right<'_>) -> bool {
        self.role.has(right.verb) && right.on.lies_at(&self.path, self.propagate)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, role, path, .. } = self;
        write!(f, "{subject} has the role {role} on {path}")
    }
}

/// To whom something is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The members of one group of this host, `local:group`.
    LocalGroup,
    /// Every process of this host, `local:others`.
    LocalOthers,
}

impl Subject {
    /// Whether a process of this host is one of them.
    pub fn includes(self, process: &Process, host: &Host) -> bool {
        match self {
            Self::LocalGroup => host.has_in_group(process),
            Self::LocalOthers => true,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalGroup => "local:group",
            Self::LocalOthers => "local:others",
        })
    }
}

/// A set of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Looks at everything, and changes nothing.
    Auditor,
    /// Everything.
    Administrator,
}

impl Role {
    /// All there are, the smallest first.
    pub const ALL: [Self; 2] = [Self::Auditor, Self::Administrator];

    /// Whether a verb is one of it.
    pub fn has(self, verb: Verb) -> bool {
        match self {
            Self::Auditor => verb.deed == Deed::Audit,
            Self::Administrator => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auditor => "auditor",
            Self::Administrator => "administrator",
        })
    }
}
