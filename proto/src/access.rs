//! Who may do what on this agent.
//!
//! For now there is one rule: everyone on the host may read; root, the agent's own user and the
//! members of one group may write. The caller is what the kernel says of the other end of the
//! socket, so there is no password to check and nothing to guess.

use std::fmt;

/// Whoever is at the other end of the socket, as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The effective user id of the process that connected.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
    /// The name of that user, where the host knows one.
    pub user: Option<String>,
    /// Its further groups, as far as they could be found out.
    pub groups: Vec<u32>,
}

impl Caller {
    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

/// The name where there is one, else `uid 1000`: what history and events record as the actor.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(name) => f.write_str(name),
            None if self.uid == 0 => f.write_str("root"),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// What an operation does, as far as rights are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Looks, and changes nothing.
    Read,
    /// Changes this node or the Data Center.
    Write,
}

/// What [`decide`] goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The user that the agent runs as.
    pub agent_uid: u32,
    /// The name of the group whose members may write.
    pub group: String,
    /// The id of that group; `None` where the host has no such group.
    pub group_id: Option<u32>,
}

/// A refusal, in words for the one who was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("you ({caller}) may look, but not change anything here")]
pub struct Denied {
    /// Who asked.
    pub caller: String,
    /// What would help.
    pub hint: String,
}

/// Decides whether the caller may do this.
///
/// # Errors
/// [`Denied`], with the way to get the right.
pub fn decide(policy: &Policy, caller: &Caller, action: Action) -> Result<(), Denied> {
    let may = match action {
        Action::Read => true,
        Action::Write => {
            caller.uid == 0
                || caller.uid == policy.agent_uid
                || policy.group_id.is_some_and(|group| caller.is_in(group))
        }
    };
    if may {
        return Ok(());
    }
    let group = &policy.group;
    let hint = match policy.group_id {
        Some(_) => format!("use sudo, or have root run: usermod -aG {group} {caller}"),
        None => format!("use sudo; this host has no group {group:?} whose members may write"),
    };
    Err(Denied { caller: caller.to_string(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERAGE: u32 = 990;

    #[test]
    fn everyone_reads() {
        assert_eq!(decide(&policy(), &user(1000, 1000, &[]), Action::Read), Ok(()));
    }

    #[test]
    fn root_and_the_agents_own_user_write() {
        assert_eq!(decide(&policy(), &user(0, 0, &[]), Action::Write), Ok(()));
        assert_eq!(decide(&policy(), &user(991, 5, &[]), Action::Write), Ok(()));
    }

    #[test]
    fn the_group_writes_whether_it_is_the_first_or_a_further_one() {
        assert_eq!(decide(&policy(), &user(1000, PEERAGE, &[]), Action::Write), Ok(()));
        assert_eq!(decide(&policy(), &user(1000, 1000, &[27, PEERAGE]), Action::Write), Ok(()));
    }

    #[test]
    fn others_are_told_how_to_get_the_right() {
        let denied = decide(&policy(), &user(1000, 1000, &[27]), Action::Write).unwrap_err();
        assert_eq!(denied.to_string(), "you (alice) may look, but not change anything here");
        assert!(denied.hint.contains("usermod -aG peerage alice"), "{}", denied.hint);
    }

    #[test]
    fn where_the_group_is_missing_nobody_is_in_it() {
        let policy = Policy { group_id: None, ..policy() };
        let denied = decide(&policy, &user(1000, 1000, &[0]), Action::Write).unwrap_err();
        assert!(denied.hint.contains("no group \"peerage\""), "{}", denied.hint);
    }

    #[test]
    fn a_user_without_a_name_is_called_by_number() {
        assert_eq!(Caller { user: None, ..user(1000, 1, &[]) }.to_string(), "uid 1000");
        assert_eq!(Caller { user: None, ..user(0, 0, &[]) }.to_string(), "root");
    }

    fn policy() -> Policy {
        Policy { agent_uid: 991, group: "peerage".into(), group_id: Some(PEERAGE) }
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, user: Some("alice".into()), groups: groups.to_vec() }
    }
}
