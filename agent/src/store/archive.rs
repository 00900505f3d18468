//! Sets a replica aside: what a node had when it left, or was removed, is kept as a backup.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::files::sync_folder_of;
use super::{Disk, Image, StoreError, Write, journal};

/// How many backups are kept; the oldest goes first.
pub const BACKUPS_MAX: usize = 5;

/// The folder of the backups, in the data folder.
pub(super) const BACKUPS: &str = "backup";

/// The folder of a backup that is being written. Where a crash left one, the next backup removes
/// it.
const PARTIAL: &str = ".partial";

/// Copies all that the disk holds into `backups/name`, then forgets the replica.
pub(super) fn archive(
    disk: &mut impl Disk,
    backups: &Path,
    name: &str,
) -> Result<PathBuf, StoreError> {
    let partial = write_partial(disk, backups)?;
    let backup = publish(&partial, backups, name)?;
    disk.commit(&[Write::ClearReplica])?;
    // The replica is set aside already, so an old backup too many is only warned of.
    if let Err(error) = prune(backups) {
        tracing::warn!(%error, "an old backup could not be removed");
    }
    Ok(backup)
}

/// Writes the copy, durably, into [`PARTIAL`], which `by_age` does not count as a backup.
fn write_partial(disk: &mut impl Disk, backups: &Path) -> Result<PathBuf, StoreError> {
    let partial = backups.join(PARTIAL);
    make_folder(backups)?;
    let attempt = || -> io::Result<()> {
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&partial)?;
        sync_folder_of(backups)
    };
    attempt().map_err(|e| StoreError::io("create", &partial, &e))?;
    disk.copy_to(&partial.join("journal"))?;
    Ok(partial)
}

/// Makes the folder of the backups where it is missing. A symbolic link in its place is an error.
fn make_folder(backups: &Path) -> Result<(), StoreError> {
    let attempt = || -> io::Result<()> {
        match fs::symlink_metadata(backups) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no folder")),
            Err(_) => {
                DirBuilder::new().recursive(true).mode(0o700).create(backups)?;
                sync_folder_of(backups)
            }
        }
    };
    attempt().map_err(|e| StoreError::io("use", backups, &e))
}

/// Gives the copy its name: from here on it is a backup, and a whole one.
fn publish(partial: &Path, backups: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let backup = free_name(backups, name);
    fs::rename(partial, &backup)
        .and_then(|()| sync_folder_of(&backup))
        .map_err(|e| StoreError::io("create", &backup, &e))?;
    Ok(backup)
}

/// Moves files of the data folder into a backup, whatever they hold. After a crash some files are
/// in one backup and the others still in the data folder; the next call moves those others into
/// another backup.
pub(super) fn set_aside(folder: &Path, name: &str, files: &[&str]) -> Result<PathBuf, StoreError> {
    let backups = folder.join(BACKUPS);
    make_folder(&backups)?;
    let backup = free_name(&backups, name);
    let attempt = || -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&backup)?;
        sync_folder_of(&backup)?;
        for file in files {
            match fs::rename(folder.join(file), backup.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder_of(&backup.join(PARTIAL))?;
        sync_folder_of(&backups)
    };
    attempt().map_err(|e| StoreError::io("move into", &backup, &e))?;
    if let Err(error) = prune(&backups) {
        tracing::warn!(%error, "an old backup could not be removed");
    }
    Ok(backup)
}

/// The path of a backup that is not there yet.
fn free_name(backups: &Path, name: &str) -> PathBuf {
    // The name is made from the Data Center's name, which any member can choose, so it must not
    // lead out of the folder of the backups.
    let name: String =
        name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let name: String = name.chars().take(64).collect();
    (1..)
        .map(|n| backups.join(if n == 1 { name.clone() } else { format!("{name}-{n}") }))
        .find(|path| !path.exists())
        .expect("at most BACKUPS_MAX + 1 names are taken")
}

/// The images of all backups that can be read, the newest first.
pub(super) fn images(backups: &Path) -> impl Iterator<Item = Image> + use<> {
    let kept = by_age(backups).unwrap_or_default();
    kept.into_iter().rev().filter_map(|path| journal::read(&path.join(journal::NAME)).ok())
}

/// Removes all but the newest.
fn prune(backups: &Path) -> Result<(), StoreError> {
    let attempt = || -> io::Result<()> {
        let mut kept = by_age(backups)?;
        let surplus = kept.len().saturating_sub(BACKUPS_MAX);
        kept.drain(..surplus).try_for_each(fs::remove_dir_all)
    };
    attempt().map_err(|e| StoreError::io("tidy", backups, &e))
}

/// The backups, the oldest first.
fn by_age(backups: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(backups)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != PARTIAL) {
            // A reset moves a journal here with its old time, or moves no journal at all, so the
            // time of the folder counts, too.
            let journal = fs::symlink_metadata(path.join("journal"));
            let made = fs::symlink_metadata(&path)?.modified()?;
            let written = journal.and_then(|journal| journal.modified()).unwrap_or(made);
            kept.push((made.max(written), path));
        }
    }
    kept.sort();
    Ok(kept.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::super::suite::{change, change_bytes, journal};
    use super::*;

    #[test]
    fn a_crash_at_any_step_leaves_the_old_state_or_the_new_and_a_whole_backup_or_none() {
        for steps in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let backups = dir.path().join("backup");
            let open = || journal(dir.path());
            let mut disk = open();
            disk.commit(&[change(1, 1), Write::Meta { name: "boot", value: vec![7] }]).unwrap();
            let before = disk.load().unwrap();
            if steps >= 1 {
                let partial = write_partial(&mut disk, &backups).unwrap();
                if steps >= 2 {
                    publish(&partial, &backups, "lab").unwrap();
                }
                if steps >= 3 {
                    disk.commit(&[Write::ClearReplica]).unwrap();
                }
            }
            drop(disk);
            let mut disk = open();
            let after = disk.load().unwrap();
            assert_eq!(after.changes.len(), usize::from(steps < 3), "after {steps} steps");
            assert_eq!(after.meta, before.meta);
            assert_eq!(backups.join("lab").exists(), steps >= 2);
            if steps >= 2 {
                assert_eq!(read_backup(&backups.join("lab")), before);
            }
            // Archiving works again, whatever the crash left.
            let again = archive(&mut disk, &backups, "lab").unwrap();
            assert!(again.exists() && !backups.join(PARTIAL).exists());
            assert!(disk.load().unwrap().changes.is_empty());
        }
    }

    #[test]
    fn only_the_newest_backups_stay() {
        let dir = tempfile::tempdir().unwrap();
        let backups = dir.path().join("backup");
        let mut disk = journal(dir.path());
        let mut made = Vec::new();
        for seq in 1..=BACKUPS_MAX as u64 + 2 {
            disk.commit(&[change(1, seq)]).unwrap();
            made.push(archive(&mut disk, &backups, "../lab").unwrap());
        }
        let left = fs::read_dir(&backups).unwrap().count();
        assert_eq!(left, BACKUPS_MAX);
        let newest = made.last().unwrap();
        assert!(newest.parent() == Some(&*backups), "a name never leads out of the folder");
        let seq = BACKUPS_MAX as u64 + 2;
        assert_eq!(read_backup(newest).changes, vec![change_bytes(1, seq)]);
    }

    /// A backup is a journal like any other.
    fn read_backup(backup: &Path) -> super::super::Image {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(backup.join("journal"), copy.path().join("journal")).unwrap();
        journal(copy.path()).load().unwrap()
    }
}
