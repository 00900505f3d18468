//! The file of the node's key: what makes the node the one that it is.
//!
//! One line of 64 hex digits, the Ed25519 seed. A file that others could read is closed to them
//! with a warning when the folder is opened, rather than refused: the folder around it was ours.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use peerage_proto::identity::Keypair;
use ring::rand::{SecureRandom, SystemRandom};

use super::StoreError;
use super::folder::{self, Folder};

/// The name of the file in the data folder.
const NAME: &str = "node.key";

/// The name of a new one until it is whole.
const FRESH: &str = "node.key.new";

/// Under which names those that were replaced are kept: this one, then `node.key.old-2` and on.
const KEPT: &str = "node.key.old";

/// How many may be kept.
const KEPT_MAX: usize = 1000;

/// The node's key: the one in the folder, or a new one that is there from now on, durably. A crash
/// while it is made leaves a whole key or none.
///
/// # Errors
/// [`StoreError`]. A file that is no key is never overwritten.
pub fn node_key(folder: &Folder) -> Result<Keypair, StoreError> {
    let path = folder.path().join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path),
        Err(error) => Err(StoreError::io("read", &path, &error)),
    }
}

/// Puts another key in the place of the folder's; tells where the old one is kept. Each that is
/// replaced is kept under a name of its own, for good. The folder must be locked. A crash leaves the
/// old key or the new one in its place, whole, and the old one kept before the new one is there.
///
/// # Errors
/// [`StoreError`]; then the key is the old one.
pub fn replace_key(folder: &Path, old: &Keypair) -> Result<(Keypair, PathBuf), StoreError> {
    let kept = keep(folder, old)?;
    Ok((create(&folder.join(NAME))?, kept))
}

/// Keeps a key that is to be replaced, where that was not done before a crash.
fn keep(folder: &Path, old: &Keypair) -> Result<PathBuf, StoreError> {
    for number in 1..=KEPT_MAX {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("{KEPT}{suffix}"));
        match fs::read_to_string(&path) {
            Ok(text) if parse(&path, &text).is_ok_and(|kept| kept.seed() == old.seed()) => {
                return Ok(path);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&path, &old.seed()).map_err(|e| StoreError::io("create", &path, &e))?;
                return Ok(path);
            }
            Err(error) => return Err(StoreError::io("read", &path, &error)),
        }
    }
    let full = io::Error::other(format!("{KEPT_MAX} old keys are kept beside it: remove some"));
    Err(StoreError::io("replace", &folder.join(NAME), &full))
}

fn create(path: &Path) -> Result<Keypair, StoreError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| {
        let none = io::Error::other("the operating system gave no random bytes");
        StoreError::io("create", path, &none)
    })?;
    write(path, &seed).map_err(|e| StoreError::io("create", path, &e))?;
    Ok(Keypair::from_seed(seed))
}

fn parse(path: &Path, text: &str) -> Result<Keypair, StoreError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    let seed = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    seed.map(Keypair::from_seed).ok_or_else(|| StoreError::Damaged {
        path: path.to_owned(),
        what: "a node's key is one line of 64 hex digits".into(),
        hint: "Bring it back from a backup; or move it away, and the node is a new one that has \
               to join again.",
    })
}

fn write(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let fresh = path.with_file_name(FRESH);
    // A crash may have left one.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{}", data_encoding::HEXLOWER.encode(seed))?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    folder::sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        fs::write(dir.path().join("node.key.new"), "half").unwrap();
        let made = node_key(&folder).unwrap();
        assert_eq!(node_key(&folder).unwrap().seed(), made.seed());
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!dir.path().join("node.key.new").exists());
    }

    /// The second new identity was written over the only copy of the first key.
    #[test]
    fn every_key_that_is_replaced_is_kept_beside_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let mut key = node_key(&folder).unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let (new, old) = replace_key(folder.path(), &key).unwrap();
            assert_eq!(node_key(&folder).unwrap().seed(), new.seed());
            assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o600);
            kept.push((old, std::mem::replace(&mut key, new)));
        }
        for (path, key) in &kept {
            let found = parse(path, &fs::read_to_string(path).unwrap()).unwrap();
            assert_eq!(found.seed(), key.seed(), "{}", path.display());
        }
    }

    /// What a crash leaves after the old key was kept, and while the new one is made.
    #[test]
    fn a_crash_leaves_the_old_key_in_its_place_and_replacing_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let old = node_key(&folder).unwrap();
        keep(folder.path(), &old).unwrap();
        fs::write(dir.path().join(FRESH), "half").unwrap();
        assert_eq!(node_key(&folder).unwrap().seed(), old.seed());

        let (new, kept) = replace_key(folder.path(), &old).unwrap();

        assert_eq!(node_key(&folder).unwrap().seed(), new.seed());
        assert_eq!(kept, dir.path().join(KEPT), "it is kept once");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "the lock and the two keys");
    }

    #[test]
    fn a_damaged_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        fs::write(dir.path().join(NAME), "beef").unwrap();
        let refused = node_key(&folder).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), "beef");
    }
}
