//! A data folder, opened: a key and a journal that belong together.
//!
//! Three files say who the node is: `node.key`, the journal's own first bytes and first record, and
//! `node.about`. The journal decides. A key that is missing, damaged or another node's, and a
//! journal that is missing or another node's, stop the start; nothing is read as "there is none",
//! for that would make the host another node, or a member that acknowledges what nobody takes.
//!
//! A new folder gets its key under another name first, then its journal, and then the key takes its
//! place. So a key in its place had a journal, and a journal had a key.

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
    /// What lies beside the journal about whose it is; `None` in a new folder, or where it was lost.
    pub about: Option<About>,
    /// Whether the journal lost its end: commits that had been acknowledged.
    pub is_behind: bool,
    /// Where it is.
    folder: PathBuf,
}

/// What was put aside of a folder that does not open.
#[derive(Debug)]
pub struct SetAside {
    /// The node that it was, where that could be read.
    pub was: Option<NodeId>,
    /// Where all but the key is kept.
    pub backup: PathBuf,
    /// Where the key's file is kept, if there was one.
    pub key: Option<PathBuf>,
    /// What the journal held, where it opens.
    pub image: Option<Image>,
}

impl Home {
    /// Opens a data folder; a new one becomes a node's. Blocks while it reads, so it is for the
    /// start.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then. Damage that leaves no doubt who the node is is no
    /// error, but in the image.
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

    /// Why a start that got this far stops: of the journal's contents too little is left.
    pub fn lost(&self, what: &str) -> StoreError {
        let journal = self.folder.join(journal::NAME);
        let about = self.about.clone().map_or(Found::Missing, Found::Whole);
        let whose = whose::words(Some(&self.image), Some(self.key.node_id()), &about);
        let what = format!("{} is damaged: {what}", journal.display());
        StoreError::unfit(&self.folder, what, BRING_JOURNAL).of(whose)
    }

    /// Moves all that makes a folder's node into a backup of that name, whatever state it is in; the
    /// key's file stays beside it under a name of its own. A crash leaves a folder that does not
    /// open either, and the next call goes on.
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
            // The backup is whole only with it.
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

/// The key that a journal belongs to, in its place.
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

/// The node whose journal it is, where the journal lost its own word: the key's, if one of the
/// others says so, too.
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

/// Says what a journal ends with that is no commit, where nothing shows that it was acknowledged.
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
