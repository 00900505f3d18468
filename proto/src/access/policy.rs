//! The policy: which role was granted to whom, and on which path.

use std::fmt;

use super::caller::Process;
use super::right::{Deed, Right, Verb};

/// The rules that [`decide`](super::decide) applies. The agent makes a new policy when a part of it
/// changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How this host's users are told apart.
    pub host: Host,
    /// The grants. A caller has the rights of all grants whose subject includes it.
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
    /// The names of the users that the host lists as members of that group.
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
    /// Who gets the role.
    pub subject: Subject,
    /// The role.
    pub role: Role,
    /// The path that it is granted on, such as `/` or `/settings/storage`.
    pub path: String,
    /// Whether the grant also holds below that path.
    pub propagate: bool,
}

impl Grant {
    /// The grants of a host for which no others were made: the group may do everything, all other
    /// users may look.
    pub fn defaults() -> Vec<Self> {
        let all = |subject, role| Self { subject, role, path: "/".into(), propagate: true };
        vec![
            all(Subject::LocalGroup, Role::Administrator),
            all(Subject::LocalOthers, Role::Auditor),
        ]
    }

    /// Whether this grant gives the right to its subject.
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

/// Who a role is granted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The members of one group of this host, `local:group`.
    LocalGroup,
    /// Every process of this host, `local:others`.
    LocalOthers,
}

impl Subject {
    /// Whether the subject includes this process of the host.
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
    /// Has every verb.
    Administrator,
}

impl Role {
    /// All roles, the one with the fewest verbs first.
    pub const ALL: [Self; 2] = [Self::Auditor, Self::Administrator];

    /// Whether the role contains the verb.
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
