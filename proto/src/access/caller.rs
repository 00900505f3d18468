//! Whoever asks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, UserId};
use crate::replica::Actor;

/// Whoever asks an agent for something, as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// A process of the host, at the other end of the socket.
    Process(Process),
    /// A user of the Data Center, who has proven it to this agent.
    User(User),
    /// A member asks for one of these, who asked it. A call is never forwarded twice, so what it
    /// asks for is not itself a call that was forwarded.
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
    /// Who it is; it never changes.
    pub id: UserId,
    /// What it is called.
    pub name: String,
    /// What it was known by.
    pub by: Proof,
}

/// What a user is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The ticket of a session.
    Session,
    /// The API token of this id.
    Token(String),
    /// A code that is good once.
    Code,
}

/// A call that a member forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The member.
    pub by: NodeId,
    /// Who asked it. A process is one of that member's host.
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
    /// Who asked, and by which door, as it is written down with a change: `socket`, `session`,
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

/// What history and events call it: its name, and where it was forwarded by whom.
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

/// The name where there is one, else `uid 1000`.
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
