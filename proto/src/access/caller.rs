//! The caller: the process, user or member that asks an agent for something.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, UserId};
use crate::replica::Actor;

/// A process, a user or a member that asks an agent for something, as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A process of the host, at the other end of the socket.
    Process(Process),
    /// A user of the Data Center, who has proven it to this agent.
    User(User),
    /// A member that forwards the call of a process or of a user. No call is forwarded twice, so
    /// [`Asker`] has no variant for a forwarded call.
    Forwarded(Forwarded),
}

/// A process of a host, as its kernel told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The effective user id of the process that connected.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
    /// The name of that user, where the host knows one.
    pub user: Option<String>,
    /// Its further groups, as far as they could be found out.
    pub groups: Vec<u32>,
}

/// A user of the Data Center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id, which never changes.
    pub id: UserId,
    /// The user's name.
    pub name: String,
    /// How the user proved who it is.
    pub by: Proof,
}

/// How a user proves to an agent who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The ticket of a session.
    Session,
    /// An API token, which has this id.
    Token(String),
    /// A code that is good once.
    Code,
}

/// A call that a member forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The member that forwards the call.
    pub by: NodeId,
    /// The process or user that asked that member. A process runs on that member's host.
    pub asker: Asker,
}

/// Who asked a member that forwards the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// A process of the member's host.
    Process(Process),
    /// A user of the Data Center.
    User(User),
}

impl Caller {
    /// The caller, and the way it came in, as a change records them: `socket`, `session`,
    /// `token ID`, `code`, or `node ID` where a member forwarded the call.
    pub fn actor(&self) -> Actor {
        let via = match self {
            Self::Process(_) => "socket".to_owned(),
            Self::User(user) => user.by.to_string(),
            Self::Forwarded(forwarded) => format!("node {}", forwarded.by),
        };
        Actor { who: self.to_string(), via }
    }
}

/// The caller's name as history and events show it. For a forwarded call they also show the member
/// that forwarded it.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::User(user) => user.fmt(f),
            Self::Forwarded(Forwarded { by, asker }) => write!(f, "{asker} via {}", by.short()),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::User(user) => user.fmt(f),
        }
    }
}

/// The user's name; where the host knows none, `root` or `uid 1000`.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(name) => f.write_str(name),
            None if self.uid == 0 => f.write_str("root"),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::Token(id) => write!(f, "token {id}"),
            Self::Code => f.write_str("code"),
        }
    }
}
