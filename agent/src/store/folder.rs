//! The data folder: only our user may read it, and only one agent uses it at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, files};

/// The folder of `fsck`, present where the data folder is a file system of its own. It belongs to
/// root, so the checks of ownership leave it out.
const LOST_AND_FOUND: &str = "lost+found";

/// How deep the data folder nests: `backup/NAME/journal`.
const DEPTH_MAX: usize = 3;

/// A data folder that this process has locked. The lock goes when this is dropped, or when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The lock file is never unlinked: the lock belongs to the file, so its name must always mean
    /// the same file.
    lock: File,
}

impl Folder {
    /// Opens a data folder, creating it where it is missing, and locks it. The folder is made
    /// 0700 and everything in it 0600 (folders 0700), with a warning where it was wider.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::WrongOwner`], or what the operating system says.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| StoreError::io("create", path, &e))?;
        keep_private(path, 0)?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = files::open(&lock_path, &mut options)
            .map_err(|e| StoreError::io("open", &lock_path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = files::read_small(&lock_path).ok().flatten();
                let text = text.and_then(|text| String::from_utf8(text).ok());
                let pid = text.and_then(|text| text.trim().parse().ok());
                return Err(StoreError::InUse { folder: path.to_owned(), pid });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &lock_path, &e)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| StoreError::io("write", &lock_path, &e))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    /// Unlocks explicitly. A child process that was just forked holds the same lock until it
    /// executes its program, so closing the file alone would keep the folder locked until then.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, path = %self.path.display(), "the data folder stays locked");
        }
    }
}

/// Refuses files and folders of another user, and closes ours to other users. It leaves symbolic
/// links alone, since the agent makes none.
fn keep_private(path: &Path, depth: usize) -> Result<(), StoreError> {
    let fail = |attempt, error: io::Error| StoreError::io(attempt, path, &error);
    let metadata = fs::symlink_metadata(path).map_err(|e| fail("look at", e))?;
    if metadata.is_symlink() && depth > 0 {
        return Ok(());
    }
    let metadata = fs::metadata(path).map_err(|e| fail("look at", e))?;
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(StoreError::WrongOwner { path: path.to_owned(), owner: metadata.uid(), us });
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "was open to other users; closed it to them");
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| fail("chmod", e))?;
    }
    if metadata.is_dir() && depth < DEPTH_MAX {
        for entry in fs::read_dir(path).map_err(|e| fail("read", e))? {
            let entry = entry.map_err(|e| fail("read", e))?;
            if depth > 0 || entry.file_name() != LOST_AND_FOUND {
                keep_private(&entry.path(), depth + 1)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_second_agent_is_refused_by_the_name_of_the_folder_and_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err();
        let pid = Some(std::process::id());
        assert_eq!(refused, StoreError::InUse { folder: path.clone(), pid });
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn nothing_in_the_folder_stays_open_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir_all(path.join("backup/old")).unwrap();
        fs::write(path.join("backup/old/journal"), "x").unwrap();
        for wide in ["", "backup", "backup/old"] {
            fs::set_permissions(path.join(wide), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(path.join("backup/old/journal"), Permissions::from_mode(0o644))
            .unwrap();
        let _folder = Folder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("backup/old")), 0o700);
        assert_eq!(mode(&path.join("backup/old/journal")), 0o600);
        assert_eq!(mode(&path.join("lock")), 0o600);
    }
}
