//! The one place where it is decided who may do what.

use std::fmt;

use super::caller::{Caller, Process};
use super::policy::{Grant, Policy, Role, Subject};
use super::right::Right;

/// Decides whether the caller has this right.
///
/// It allocates no memory: the reason is written as text only when the decision is displayed.
pub fn decide<'a>(policy: &'a Policy, caller: &'a Caller, right: Right<'a>) -> Decision<'a> {
    let refused = Decision::Refused(Refusal { policy, caller, right });
    let Caller::Process(process) = caller else { return refused };
    if process.uid == 0 {
        return Decision::Allowed(Ground::Root);
    }
    if process.uid == policy.host.agent_uid {
        return Decision::Allowed(Ground::AgentsUser);
    }
    let held = policy.grants.iter().filter(|grant| grant.gives(right));
    let mut held = held.filter(|grant| grant.subject.includes(process, &policy.host));
    held.next().map_or(refused, |grant| Decision::Allowed(Ground::Granted(grant)))
}

/// The result of [`decide`]. Its `Display` text is the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// The caller has the right.
    Allowed(Ground<'a>),
    /// The caller does not have the right.
    Refused(Refusal<'a>),
}

impl Decision<'_> {
    /// Whether the caller has the right.
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(ground) => ground.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

/// Why a caller has a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground<'a> {
    /// Root of the host may do all.
    Root,
    /// The agent's own user may do all.
    AgentsUser,
    /// This grant gives the right.
    Granted(&'a Grant),
}

impl fmt::Display for Ground<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root may do everything on its host"),
            Self::AgentsUser => f.write_str("the user that the agent runs as may do everything"),
            Self::Granted(grant) => grant.fmt(f),
        }
    }
}

/// A refusal. Its `Display` text tells the caller which right is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    policy: &'a Policy,
    caller: &'a Caller,
    right: Right<'a>,
}

impl Refusal<'_> {
    /// What the caller can do to get the right.
    pub fn hint(&self) -> String {
        match self.caller {
            Caller::Process(process) => self.hint_for(process),
            Caller::User(_) | Caller::Forwarded(_) => {
                "ask on the host itself, on the agent's socket".to_owned()
            }
        }
    }

    fn hint_for(&self, process: &Process) -> String {
        let host = &self.policy.host;
        let group = &host.group;
        let of_group = |grant: &&Grant| grant.subject == Subject::LocalGroup;
        let group_would_help =
            self.policy.grants.iter().filter(of_group).any(|g| g.gives(self.right));
        match (host.group_id, &process.user) {
            _ if !group_would_help => "use sudo".to_owned(),
            (None, _) => format!("use sudo; this host has no group {group:?} whose members may"),
            (Some(_), None) => format!("use sudo; the members of the group {group} may, too"),
            (Some(_), Some(user)) => {
                format!("use sudo, or have root run: usermod -aG {group} {user}")
            }
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, right, .. } = self;
        match caller {
            Caller::Process(_) => {
                write!(f, "you ({caller}) may not do this: it takes {right}")?;
                match Role::ALL.into_iter().find(|role| role.has(right.verb)) {
                    Some(role) => write!(f, ", which is of the role {role}"),
                    None => Ok(()),
                }
            }
            Caller::User(user) => {
                write!(f, "{user} may not do this: this agent grants nothing to users yet")
            }
            Caller::Forwarded(forwarded) => write!(
                f,
                "{} may not do this through {}: this agent takes no forwarded calls yet",
                forwarded.asker,
                forwarded.by.short()
            ),
        }
    }
}
