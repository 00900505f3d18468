//! The file of the node's key, which is the node's identity.
//!
//! The file has a few lines of text: the Ed25519 seed, the id of its node, and a checksum over
//! both, so that a flipped bit never makes another node. A file that other users may read is closed
//! to them with a warning when the folder is opened, rather than refused, since the folder around
//! it belonged to us.
//!
//! The journal names its node, too, and decides which key is valid. So a new key is first written
//! under another name ([`NewKey`]), then the journal is made the new node's, and then the key gets
//! its final name. After a crash the next start finishes this.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use ring::rand::{SecureRandom, SystemRandom};

use super::header::FORMAT;
use super::{StoreError, files};

/// The name of the file in the data folder.
pub(super) const NAME: &str = "node.key";

/// The name of a new key until the journal belongs to its node.
pub(super) const FRESH: &str = "node.key.new";

/// The name of a new key's file until it is whole.
const PARTIAL: &str = "node.key.part";

/// The name under which a replaced key is kept; further ones are `node.key.old-2` and so on.
const KEPT: &str = "node.key.old";

/// How many replaced keys may be kept.
const KEPT_MAX: usize = 1000;

/// How a key's file was found.
#[derive(Debug)]
pub(super) enum KeyFile {
    Missing,
    /// Its checksum does not hold, or it is no key at all.
    Damaged,
    /// One line of 64 hex digits, as format 1 had it.
    Older,
    Whole(Box<Keypair>),
}

impl KeyFile {
    /// Looks at a file of the data folder.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let bytes = files::read_small(path).map_err(|e| StoreError::io("read", path, &e))?;
        Ok(match bytes {
            None => Self::Missing,
            Some(bytes) => match parse(&bytes) {
                Some(key) => Self::Whole(Box::new(key)),
                None if is_older(&bytes) => Self::Older,
                None => Self::Damaged,
            },
        })
    }

    /// The key, if it is whole and this node's.
    pub(super) fn of(&self, node: &NodeId) -> Option<&Keypair> {
        match self {
            Self::Whole(key) if key.node_id() == *node => Some(key),
            _ => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

/// A new key, on disk, that is not in its place yet.
#[derive(Debug)]
pub struct NewKey {
    key: Keypair,
    folder: PathBuf,
}

impl NewKey {
    /// Makes a key and writes it beside the present one. The folder must be locked.
    ///
    /// # Errors
    /// [`StoreError`]; the present key stays what it is.
    pub fn prepare(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FRESH);
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| {
            let none = io::Error::other("the operating system gave no random bytes");
            StoreError::io("create", &path, &none)
        })?;
        let key = Keypair::from_seed(seed);
        files::replace(&path, &folder.join(PARTIAL), text(&key).as_bytes())
            .map_err(|e| StoreError::io("create", &path, &e))?;
        Ok(Self { key, folder: folder.to_owned() })
    }

    /// The node that it makes.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Gives the key its final name, now that the journal belongs to its node. The key that was
    /// there is kept, under the returned path.
    ///
    /// # Errors
    /// [`StoreError`]; the next start then finishes the change.
    pub fn publish(self) -> Result<(Keypair, Option<PathBuf>), StoreError> {
        let kept = publish(&self.folder)?;
        Ok((self.key, kept))
    }
}

/// Gives the new key its final name; the key that was there is kept for good, under a name of its
/// own.
pub(super) fn publish(folder: &Path) -> Result<Option<PathBuf>, StoreError> {
    let (path, fresh) = (folder.join(NAME), folder.join(FRESH));
    let kept = keep(folder)?;
    fs::rename(&fresh, &path)
        .and_then(|()| files::sync_folder_of(&path))
        .map_err(|e| StoreError::io("create", &path, &e))?;
    Ok(kept)
}

/// Moves the key's file, whatever it holds, to the first free name of a replaced key.
pub(super) fn keep(folder: &Path) -> Result<Option<PathBuf>, StoreError> {
    let path = folder.join(NAME);
    let fail = |e: io::Error| StoreError::io("keep", &path, &e);
    if !files::is_there(&path).map_err(fail)? {
        return Ok(None);
    }
    for number in 1..=KEPT_MAX {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let kept = folder.join(format!("{KEPT}{suffix}"));
        if !files::is_there(&kept).map_err(fail)? {
            fs::rename(&path, &kept).and_then(|()| files::sync_folder_of(&kept)).map_err(fail)?;
            return Ok(Some(kept));
        }
    }
    let full = io::Error::other(format!("{KEPT_MAX} old keys are kept beside it: remove some"));
    Err(StoreError::io("replace", &path, &full))
}

fn text(key: &Keypair) -> String {
    let seed = HEXLOWER.encode(&key.seed());
    let node = key.node_id();
    files::sealed(NAME, &format!("peerage node key, format {FORMAT}\nseed {seed}\nnode {node}\n"))
}

fn parse(bytes: &[u8]) -> Option<Keypair> {
    let text = files::opened(NAME, bytes)?;
    let seed = text.lines().find_map(|line| line.strip_prefix("seed "))?;
    let seed = HEXLOWER.decode(seed.as_bytes()).ok()?.try_into().ok()?;
    Some(Keypair::from_seed(seed))
}

fn is_older(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii();
    text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::Folder;
    use super::*;

    #[test]
    fn a_key_is_ours_alone_and_not_in_its_place_before_it_is_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        fs::write(dir.path().join(PARTIAL), "half").unwrap();
        let made = NewKey::prepare(folder.path()).unwrap();
        assert!(KeyFile::read(&dir.path().join(NAME)).unwrap().is_missing());
        let (key, kept) = made.publish().unwrap();
        assert_eq!(kept, None);
        let found = KeyFile::read(&dir.path().join(NAME)).unwrap();
        assert_eq!(found.of(&key.node_id()).unwrap().seed(), key.seed());
        assert_eq!(fs::metadata(dir.path().join(NAME)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the lock and the key");
    }

    /// A second change of identity once overwrote the only copy of the first key.
    #[test]
    fn every_key_that_is_replaced_is_kept_beside_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (mut key, _) = NewKey::prepare(folder.path()).unwrap().publish().unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let (new, old) = NewKey::prepare(folder.path()).unwrap().publish().unwrap();
            let old = old.unwrap();
            assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o600);
            kept.push((old, std::mem::replace(&mut key, new)));
        }
        for (path, key) in &kept {
            let found = KeyFile::read(path).unwrap();
            assert!(found.of(&key.node_id()).is_some(), "{}", path.display());
        }
    }

    /// One flipped bit in the file once made another identity.
    #[test]
    fn no_flipped_bit_and_no_cut_makes_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        NewKey::prepare(folder.path()).unwrap().publish().unwrap();
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let is_damaged = |bytes: &[u8]| parse(bytes).is_none() && !is_older(bytes);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(&bytes), "bit {bit}");
        }
        assert!((0..whole.len()).all(|len| is_damaged(&whole[..len])));
        fs::write(&path, format!("{}\n", "ab".repeat(32))).unwrap();
        assert!(matches!(KeyFile::read(&path).unwrap(), KeyFile::Older));
    }
}
