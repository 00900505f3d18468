//! A data folder, opened: a key and a journal that belong together.
//!
//! Three files say who the node is: `node.key`, the journal's own first bytes and first record, and
//! `node.about`. The journal decides. The start fails when the key is missing, damaged or another
//! node's, or when the journal is missing or another node's. The agent never takes a lost file for
//! a new folder: the host would become another node, or a member whose acknowledged changes no
//! other member accepts.
//!
//! In a new folder the agent first writes the key under another name, then the journal, and then
//! renames the key to `node.key`. So where `node.key` is found, there was a journal, and where a
//! journal is found, there was a key.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerage_proto::id::NodeId;
use peerage_proto::identity::Keypair;
use peerage_proto::time::Now;
use tracing::warn;

use super::about::{self, About, Found};
use super::journal::{self, Journal};
use super::key::{self, KeyFile, NewKey};
use super::whose::{self, Trace};
use super::{Disk as _, Folder, Image, Store, StoreError, archive, files};

/// A data folder whose parts belong together.
#[derive(Debug)]
pub struct Home {
    /// The node's key.
    pub key: Keypair,
    /// The journal, on a thread of its own.
    pub store: Store,
    /// What the journal holds, and what of it is damaged.
    pub image: Image,
    /// The content of `node.about`; `None` where the file is missing, damaged or another node's.
    pub about: Option<About>,
    /// Whether the journal lost its end, and with it commits that had been acknowledged.
    pub is_behind: bool,
    /// Where it is.
    folder: PathBuf,
}

/// What [`Home::set_aside`] moved away, and where it is kept.
#[derive(Debug)]
pub struct SetAside {
    /// The node that the folder belonged to, where that could be read.
    pub was: Option<NodeId>,
    /// Where all but the key is kept.
    pub backup: PathBuf,
    /// Where the key's file is kept, if there was one.
    pub key: Option<PathBuf>,
    /// What the journal held, where it could be read.
    pub image: Option<Image>,
}

impl Home {
    /// Opens a data folder, and makes a new node in a new one. The call blocks while it reads, so
    /// the agent makes it only at its start.
    ///
    /// # Errors
    /// [`StoreError`]; the key and the journal that were there are kept. Damage is no error as long
    /// as it is certain which node the folder belongs to; the image then names the damage.
    pub fn open(folder: Arc<Folder>) -> Result<Self, StoreError> {
        let path = folder.path().to_owned();
        let about = About::read(&path)?;
        let key = KeyFile::read(&path.join(key::NAME))?;
        let has_journal = is_there(&path.join(journal::NAME))?;
        if key.is_missing() && !has_journal && about == Found::Missing {
            make(&folder)?;
            return Self::open(folder);
        }
        if let KeyFile::Older = key {
            return Err(StoreError::format(&path, path.join(key::NAME), 1));
        }
        if !has_journal {
            return Err(no_journal(&path, &key, &about));
        }
        let journal = Journal::open(folder);
        let mut journal = journal.map_err(|e| e.of(whose::words(None, id_of(&key), &about)))?;
        let image = journal.load()?;
        if journal.owner().is_none()
            && let Some(node) = vouched(&image, &key, &about)
        {
            journal.belongs_to(node);
        }
        let key = fitting_key(&path, key, &journal, &image, &about)?;
        let about = match about {
            Found::Whole(about) if about.node == key.node_id() => Some(about),
            Found::Missing => None,
            Found::Whole(_) | Found::Damaged => {
                let file = path.join(about::NAME);
                let what = "is damaged, or another node's; key and journal say whose folder it is, \
                            and it is written anew";
                warn!("{} {what}", file.display());
                None
            }
        };
        let commits = journal.commits();
        let is_behind = journal.is_cut() || about.as_ref().is_some_and(|a| a.commit > commits);
        tell(&journal, &image, is_behind);
        let store = Store::start(journal, path.join(archive::BACKUPS))?;
        Ok(Self { key, store, image, about, is_behind, folder: path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// What the backups hold that can be read, the newest first.
    pub fn backups(&self) -> impl Iterator<Item = Image> + use<> {
        archive::images(&self.folder.join(archive::BACKUPS))
    }

    /// The error for a start that must stop because too little of the journal's contents is left.
    pub fn lost(&self, what: &str) -> StoreError {
        let journal = self.folder.join(journal::NAME);
        let about = self.about.clone().map_or(Found::Missing, Found::Whole);
        let whose = whose::words(Some(&self.image), Some(self.key.node_id()), &about);
        let what = format!("{} is damaged: {what}", journal.display());
        StoreError::unfit(&self.folder, what, BRING_JOURNAL).of(whose)
    }

    /// Moves all files that make the folder's node into a backup of that name, whatever state they
    /// are in. The key's file stays in the folder, under a name of its own. After a crash some files
    /// are still in their place, and the next call moves them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_aside(folder: &Arc<Folder>, name: &str) -> Result<SetAside, StoreError> {
        let path = folder.path();
        let about = About::read(path).ok();
        let key = KeyFile::read(&path.join(key::NAME)).unwrap_or(KeyFile::Damaged);
        let journal = Journal::open(folder.clone()).ok();
        let image_and_owner = journal.and_then(|mut j| Some((j.load().ok()?, j.owner())));
        let (image, owner) = image_and_owner.unzip();
        let of_about = about.and_then(|about| match about {
            Found::Whole(about) => Some(about.node),
            _ => None,
        });
        let was = owner.flatten().or(of_about).or(id_of(&key));
        let files = [
            journal::NAME,
            journal::FRESH,
            journal::DAMAGED,
            journal::TORN,
            about::NAME,
            about::FRESH,
            key::FRESH,
        ];
        let backup = archive::set_aside(path, name, &files)?;
        let place = path.join(key::NAME);
        if is_there(&place)? {
            // The backup is complete only with a copy of the key.
            let copied = fs::symlink_metadata(&place).and_then(|found| match found.is_file() {
                true => fs::copy(&place, backup.join(key::NAME)).map(drop),
                false => Ok(()),
            });
            copied.map_err(|e| StoreError::io("copy", &place, &e))?;
        }
        Ok(SetAside { was, backup, key: key::keep(path)?, image })
    }
}

const BRING_JOURNAL: &str = "Bring the journal back from a backup of this host";
const BRING_KEY: &str = "Bring node.key back from a backup of this host";

/// Makes a new folder a node's.
fn make(folder: &Folder) -> Result<(), StoreError> {
    let new = NewKey::prepare(folder.path())?;
    Journal::create(folder, &new.node_id())?;
    new.publish().map(drop)
}

/// The key of the node that the journal belongs to. Finishes a change of the key that a crash cut
/// off.
fn fitting_key(
    path: &Path,
    found: KeyFile,
    journal: &Journal,
    image: &Image,
    about: &Found,
) -> Result<Keypair, StoreError> {
    let whose = |owner| whose::words(Some(image), owner, about);
    let file = path.join(key::NAME);
    let Some(owner) = journal.owner() else {
        let what = "it does not say any more whose it is, and nothing else in the folder does";
        return Err(journal.unfit(what).of(whose(id_of(&found))));
    };
    let fresh = path.join(key::FRESH);
    if let Some(key) = found.of(&owner) {
        files::remove(&fresh).map_err(|e| StoreError::io("remove", &fresh, &e))?;
        return Ok(key.clone());
    }
    if let Some(key) = KeyFile::read(&fresh)?.of(&owner) {
        warn!(node = %owner.short(), "a change of this host's key was cut off, and is finished now");
        key::publish(path)?;
        return Ok(key.clone());
    }
    let of_key = id_of(&found);
    if let (Found::Whole(about), Some(node)) = (about, of_key)
        && about.node == node
    {
        let what = format!(
            "{} is another node's ({}): node.key and node.about beside it are those of {}",
            path.join(journal::NAME).display(),
            owner.short(),
            node.short()
        );
        return Err(StoreError::unfit(path, what, BRING_JOURNAL).of(whose::words(
            None,
            of_key,
            &Found::Whole(about.clone()),
        )));
    }
    let what = match &found {
        KeyFile::Missing => format!("{} is missing, and the journal is there", file.display()),
        KeyFile::Whole(key) => format!(
            "{} and the journal beside it belong to different nodes: the key makes {}, the journal is \
             that of {}",
            file.display(),
            key.node_id().short(),
            owner.short()
        ),
        _ => format!("{} is damaged: its checksum does not hold", file.display()),
    };
    Err(StoreError::unfit(path, what, BRING_KEY).of(whose(Some(owner))))
}

fn no_journal(path: &Path, key: &KeyFile, about: &Found) -> StoreError {
    let whose = whose::words(None, id_of(key), about);
    let journal = path.join(journal::NAME);
    let (what, bring) = match key {
        KeyFile::Missing => (
            format!("node.key and the journal are missing in {}, and were there", path.display()),
            "Bring both back from a backup of this host",
        ),
        KeyFile::Damaged => (
            format!("{} is missing, and node.key beside it is damaged", journal.display()),
            "Bring both back from a backup of this host",
        ),
        _ => (format!("{} is missing, and node.key had one", journal.display()), BRING_JOURNAL),
    };
    StoreError::unfit(path, what, bring).of(whose)
}

/// The owner of a journal whose own word for it is lost: the node of the key, if `node.about` or
/// the signed changes name the same node.
fn vouched(image: &Image, key: &KeyFile, about: &Found) -> Option<NodeId> {
    let KeyFile::Whole(key) = key else { return None };
    let node = key.node_id();
    let by_about = matches!(about, Found::Whole(about) if about.node == node);
    let now = Now { mono: std::time::Duration::ZERO, wall_ms: 0 };
    let by_changes = || Trace::all(image, key, now).iter().any(|t| t.roster.is_current(&node));
    (by_about || by_changes()).then_some(node)
}

fn id_of(key: &KeyFile) -> Option<NodeId> {
    match key {
        KeyFile::Whole(key) => Some(key.node_id()),
        _ => None,
    }
}

fn is_there(path: &Path) -> Result<bool, StoreError> {
    files::is_there(path).map_err(|e| StoreError::io("look at", path, &e))
}

/// Warns of bytes at the journal's end that are no whole commit, unless the journal is known to
/// have lost acknowledged commits.
fn tell(journal: &Journal, image: &Image, is_behind: bool) {
    let (torn, changes) = (journal.torn(), image.changes.len());
    if torn > 0 && !is_behind {
        warn!(
            "the last {torn} bytes of the journal are no whole commit, and are kept as journal.torn; \
             {changes} changes are left. After a power cut or a crash that is a commit that nobody \
             was told of, and nothing is missing; else the disk lost it, and what it said comes back \
             from the other members"
        );
    }
}
