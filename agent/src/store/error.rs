//! What can go wrong with a disk, and what its operator can do about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::header::FORMAT;

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
        /// The process that holds it, where that could be read.
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
    /// An older version of peerage wrote the file.
    #[error(
        "{} has format {found}, of an older version of peerage, and this version reads format \
         {FORMAT}: install the older version again; or {}",
        path.display(), new_node(folder)
    )]
    OlderFormat {
        /// The data folder.
        folder: PathBuf,
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// The files in the data folder do not make a node, or do not belong together.
    #[error(
        "{what}. {}{bring}; or {}",
        whose.as_ref().map(|whose| format!("The folder is that of {whose}. ")).unwrap_or_default(),
        new_node(folder)
    )]
    Unfit {
        /// The data folder.
        folder: PathBuf,
        /// What is missing, damaged or does not fit.
        what: String,
        /// Whose folder it is, as far as that can be read.
        whose: Option<String>,
        /// What would make it whole.
        bring: &'static str,
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
    /// The agent has no permission.
    Denied,
    /// The path is a symbolic link, or no plain file.
    Foreign,
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
            Self::Foreign => {
                "The agent follows no link in its data folder, and opens only plain files there: put \
                 the file itself in its place, or remove what is not the agent's."
            }
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
            Self::Unfit { bring, .. } => bring,
            _ => Failure::Device.hint(),
        }
    }

    /// An error for files in a data folder that do not make a node.
    pub(super) fn unfit(folder: &Path, what: String, bring: &'static str) -> Self {
        Self::Unfit { folder: folder.to_owned(), what, whose: None, bring }
    }

    /// The same error, which now also says whose the folder is, unless it says so already.
    pub(super) fn of(self, known: Option<String>) -> Self {
        match self {
            Self::Unfit { folder, what, whose, bring } => {
                Self::Unfit { folder, what, whose: whose.or(known), bring }
            }
            other => other,
        }
    }

    /// A file of another format than ours.
    pub(super) fn format(folder: &Path, path: PathBuf, found: u16) -> Self {
        match found > FORMAT {
            true => Self::NewerFormat { path, found, known: FORMAT },
            false => Self::OlderFormat { folder: folder.to_owned(), path, found },
        }
    }

    /// Whether every further start fails, too, until somebody changes the files in the folder.
    pub fn needs_somebody(&self) -> bool {
        match self {
            Self::Unfit { .. } | Self::OlderFormat { .. } | Self::NewerFormat { .. } => true,
            Self::Failed { failure, .. } => *failure == Failure::Foreign,
            _ => false,
        }
    }

    /// An error of the operating system, with its chain of causes.
    pub(crate) fn io(attempt: &'static str, path: &Path, error: &io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Full,
            io::ErrorKind::FileTooLarge => Failure::TooLarge,
            io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly,
            io::ErrorKind::PermissionDenied => Failure::Denied,
            // Our own code makes this error, without an OS code, for what is no plain file; the
            // kernel's EINVAL means something else.
            io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => Failure::Foreign,
            _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Failure::Foreign,
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

/// How a host becomes a new node, whatever lies in its folder.
fn new_node(folder: &Path) -> String {
    format!(
        "make this host a new node by `peerage reset --identity --data-dir {}`, which keeps all that \
         lies there in its backup; it then joins again (`peerage join --replace` takes the old name \
         over)",
        folder.display()
    )
}

/// What to do about a data folder, or a file in it, that belongs to another user. Root is not told
/// to take it over: the service that uses the folder could not start any more.
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
