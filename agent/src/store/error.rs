//! What can go wrong with a disk, and what its operator can do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store refused. The same answer goes to all who waited for one commit, so it can be
/// cloned; causes are kept as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another agent runs on the data folder.
    #[error(
        "another agent {}uses the data folder {}: stop it first, or choose another folder with --data-dir",
        pid.map(|pid| format!("(pid {pid}) ")).unwrap_or_default(), folder.display()
    )]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// Who holds it, where that could be read.
        pid: Option<u32>,
    },
    /// The data folder, or a file in it, is another user's.
    #[error(
        "{} belongs to user {owner}, and peerage runs as user {us}: {}",
        path.display(), of_another(path, *owner, *us)
    )]
    WrongOwner {
        /// What belongs to someone else.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Ours.
        us: u32,
    },
    /// A newer version of peerage wrote the file.
    #[error(
        "{} has format {found}, and this version of peerage reads formats up to {known}: install the newer version again",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest that we know.
        known: u16,
    },
    /// A file is not what it should be, as a whole.
    #[error("{} is damaged: {what}. {hint}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What the operator can do.
        hint: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {attempt} {}: {cause}. {}", path.display(), failure.hint())]
    Failed {
        /// What was tried: `write`, `create`.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Which kind of failure it is.
        failure: Failure,
        /// The chain of causes, as text.
        cause: String,
    },
    /// The caller handed in more than a record can hold.
    #[error("{what} of {found} bytes is larger than the {bound} bytes that a record can hold")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The bound.
        bound: usize,
    },
    /// The store was closed, or its thread ended.
    #[error("the store is closed")]
    Closed,
}

/// Kinds of failure that ask the operator for different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No space, or no quota, is left. Writing goes on by itself when there is some.
    Full,
    /// The process may not make its files so large.
    TooLarge,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The agent may not.
    Denied,
    /// The device failed, or something that we do not know better.
    Device,
}

impl Failure {
    /// What to do about it, as a whole sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Full => "Free some space on that file system; nothing else needs doing.",
            Self::TooLarge => {
                "The size of the agent's files is limited: allow more by `systemctl edit peerage`, \
                 LimitFSIZE=infinity."
            }
            Self::ReadOnly => {
                "The file system is read-only, often after a disk error: see `dmesg`, repair and \
                 remount it, then restart the agent. Or the agent's unit does not let it write \
                 there: `systemctl edit peerage`, and name the folder in ReadWritePaths=."
            }
            Self::Denied => "Give the agent's user access to it, then restart the agent.",
            Self::Device => {
                "See `dmesg` for the health of the disk; restart the agent when it is well."
            }
        }
    }
}

impl StoreError {
    /// What happened, without what to do about it.
    pub fn what(&self) -> String {
        match self {
            Self::Failed { attempt, path, cause, .. } => {
                format!("the agent cannot {attempt} {}: {cause}", path.display())
            }
            other => other.to_string(),
        }
    }

    /// What the operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Failed { failure, .. } => failure.hint(),
            Self::Damaged { hint, .. } => hint,
            _ => Failure::Device.hint(),
        }
    }

    /// An error of the operating system, with its chain of causes.
    pub(crate) fn io(attempt: &'static str, path: &Path, error: &io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Full,
            io::ErrorKind::FileTooLarge => Failure::TooLarge,
            io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly,
            io::ErrorKind::PermissionDenied => Failure::Denied,
            _ => Failure::Device,
        };
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause.push_str(": ");
            cause.push_str(&error.to_string());
            source = error.source();
        }
        Self::Failed { attempt, path: path.to_owned(), failure, cause }
    }
}

/// What to do about a data folder, or a file in it, that is another user's. Root makes nothing its
/// own: the service that the folder is for would not start any more.
fn of_another(path: &Path, owner: u32, us: u32) -> String {
    if us == 0 {
        format!("run it as that user, `sudo -u '#{owner}' peerage ...`")
    } else {
        format!(
            "as root, give it to this one: `chown -R {us} {}`; or run it as that user",
            path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_take_the_folder_from_its_service() {
        let of = |us| StoreError::WrongOwner { path: "/data".into(), owner: 997, us }.to_string();
        assert!(of(0).contains("sudo -u '#997' peerage") && !of(0).contains("chown"), "{}", of(0));
        assert!(of(1000).contains("chown -R 1000 /data"), "{}", of(1000));
    }

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let text = StoreError::io("write", Path::new("/data/journal"), &full).to_string();
        assert!(text.starts_with("cannot write /data/journal: "), "{text}");
        assert!(text.contains("Free some space"), "{text}");
        let used = StoreError::InUse { folder: "/data".into(), pid: Some(7) }.to_string();
        assert!(used.contains("(pid 7)") && used.contains("/data"), "{used}");
    }
}
