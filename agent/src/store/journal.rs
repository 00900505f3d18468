//! The disk in life: one file to which each commit is appended and synced.
//!
//! An isolated commit is one `pwrite` and one `fdatasync`. What is superseded stays in the file
//! until that holds more than twice what counts and more than [`COMPACT_BYTES_MIN`], or until
//! someone asks; then what counts is copied into a new file, which takes the old one's place by a
//! rename. The new file is synced before, so a crash finds one or the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerage_proto::id::NodeId;

use super::about::{self, About, Label};
use super::files;
use super::folder::{self, Folder};
use super::header::{HEADER_LEN, Header};
use super::live::Live;
use super::record::{self, Place, Subject, Value};
use super::replay::Contents;
use super::scan::{Located, scan};
use super::{Disk, Failure, Image, Report, StoreError, Write};

/// Below this size a file is never compacted.
pub(super) const COMPACT_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The name of the file in the data folder.
pub(super) const NAME: &str = "journal";

/// The names beside it: a new file until it is whole, what was damaged, and an end that was cut off.
pub(super) const FRESH: &str = "journal.new";
pub(super) const DAMAGED: &str = "journal.damaged";
pub(super) const TORN: &str = "journal.torn";

/// What is said of a journal of which nothing is left.
pub(super) const LOST_ALL: &str =
    "it was cut off within its first records: all that it held is lost";

/// The journal of a data folder. It holds the folder, and so its lock.
#[derive(Debug)]
pub struct Journal {
    folder: Arc<Folder>,
    path: PathBuf,
    file: File,
    /// Whose it is; `None` where neither the header nor a record says so any more.
    owner: Option<NodeId>,
    /// What the node is called, once that is known.
    label: Option<Label>,
    /// Where the next commit goes: behind the last that counts.
    end: u64,
    /// The number of the last commit.
    commit: u64,
    /// What of it counts.
    live: Live,
    /// How long the file must be before it is rewritten again by itself: a disk that had no room
    /// for the copy is not asked again after every commit.
    rewritten_from: u64,
    /// Whether the last attempt to do that failed: the next one waits until so much more is there.
    rewrite_failed: bool,
    /// Something before `end` cannot be read.
    damaged: bool,
    /// How many bytes lie behind `end`: a commit that was never finished, or what was left of it.
    torn: u64,
    /// Whether a mark closes the file.
    is_marked: bool,
    /// Whether the file's own first bytes cannot be read.
    is_headless: bool,
    /// Whether the file ends before all that it began with.
    is_cut: bool,
    /// Set once it is unknown what reached the disk. After a failed sync the kernel may show
    /// bytes that the disk never got, so nothing more can be promised on top of them.
    failed: Option<StoreError>,
}

impl Journal {
    /// Makes the journal of a folder that has none, durably.
    pub(super) fn create(folder: &Folder, owner: &NodeId) -> Result<(), StoreError> {
        let (path, fresh) = (folder.path().join(NAME), folder.path().join(FRESH));
        files::remove(&fresh).map_err(|e| StoreError::io("remove", &fresh, &e))?;
        create(&fresh, owner, 0, &Contents::default(), |value: &Value| Ok(value.clone()))?;
        rename(&fresh, &path)
    }

    /// Opens the journal of a data folder. It changes nothing: what a power cut tore, which had not
    /// been acknowledged, is cut off by the first commit.
    ///
    /// # Errors
    /// [`StoreError`]: another format, a file that is no journal, or the operating system.
    pub fn open(folder: Arc<Folder>) -> Result<Self, StoreError> {
        let path = folder.path().join(NAME);
        let fail = |error: io::Error| StoreError::io("open", &path, &error);
        let file = files::open(&path, OpenOptions::new().read(true).write(true)).map_err(fail)?;
        let mut header = [0; HEADER_LEN];
        let read = read_up_to(&file, &mut header).map_err(fail)?;
        let mut journal = Self {
            folder,
            path: path.clone(),
            file,
            owner: None,
            label: None,
            end: 0,
            commit: 0,
            live: Live::default(),
            rewritten_from: COMPACT_BYTES_MIN,
            rewrite_failed: false,
            damaged: false,
            torn: 0,
            is_marked: false,
            is_cut: false,
            is_headless: false,
            failed: None,
        };
        let header = Header::parse(&header[..read]);
        if let Header::Format(found) = header {
            return Err(StoreError::format(journal.folder.path(), path, found));
        }
        let contents = journal.resume()?;
        journal.owner = match header {
            Header::Of(node) => Some(node),
            _ => contents.owner,
        };
        if journal.commit == 0 {
            return Err(match header {
                Header::Of(_) => journal.unfit(LOST_ALL),
                _ => journal.is_none(read)?,
            });
        }
        // What a file begins with was on disk as a whole before the file had its name.
        journal.is_cut = !contents.marked && !journal.damaged;
        journal.is_headless = header == Header::Damaged;
        journal.damaged |= journal.is_headless || contents.owner != journal.owner;
        Ok(journal)
    }

    /// Why a file without a header and without any record is no journal.
    fn is_none(&self, read: usize) -> Result<StoreError, StoreError> {
        let mut begin = [0; 16];
        read_up_to(&self.file, &mut begin).map_err(|e| self.error("read", &e))?;
        Ok(match read {
            0 => self.unfit("it is empty: all that it held is lost"),
            _ if Header::is_of_format_1(&begin) => {
                StoreError::format(self.folder.path(), self.path.clone(), 1)
            }
            _ => self.unfit("it does not begin as a journal of peerage does"),
        })
    }

    pub(super) fn unfit(&self, what: &str) -> StoreError {
        let what = format!("{} is damaged: {what}", self.path.display());
        StoreError::unfit(
            self.folder.path(),
            what,
            "Bring the file back from a backup of this host",
        )
    }

    /// Finds the end of what counts.
    fn resume(&mut self) -> Result<Contents<Located>, StoreError> {
        let len = self.file.metadata().map_err(|e| self.error("read", &e))?.len();
        let scanned = scan(&self.file, len, |_, l| l).map_err(|e| self.error("read", &e))?;
        let replay = scanned.replay;
        self.torn = len.saturating_sub(replay.end);
        self.end = replay.end;
        self.commit = replay.commit;
        self.damaged = !replay.contents.damage().is_none();
        self.live = Live::of(&replay.contents);
        self.is_marked = false;
        Ok(replay.contents)
    }

    /// Cuts off what lies behind the last commit, and keeps it aside: if it was no power cut that
    /// left it, it is what the disk made of commits that were acknowledged.
    fn cut_off(&mut self) -> Result<(), StoreError> {
        if self.torn == 0 {
            return Ok(());
        }
        let kept = self.folder.path().join(TORN);
        let keep = || -> io::Result<()> {
            files::remove(&kept)?;
            let mut options = OpenOptions::new();
            let mut to = files::open(&kept, options.write(true).create_new(true).mode(0o600))?;
            let mut from = files::open(&self.path, OpenOptions::new().read(true))?;
            from.seek(SeekFrom::Start(self.end))?;
            io::copy(&mut from, &mut to)?;
            to.sync_all()
        };
        if let Err(error) = keep() {
            // It counts for nothing: no reason to stand still on a disk that is full.
            tracing::warn!(%error, path = %kept.display(), "the torn end could not be kept");
        }
        self.file.set_len(self.end).map_err(|e| self.error("write", &e))?;
        self.file.sync_all().map_err(|e| self.error("write", &e))?;
        self.torn = 0;
        Ok(())
    }

    /// Whose it is, where that can still be read.
    pub(super) fn owner(&self) -> Option<NodeId> {
        self.owner
    }

    /// Says whose it is, where its own word was lost.
    pub(super) fn belongs_to(&mut self, node: NodeId) {
        self.owner = Some(node);
    }

    /// How many commits there were, compacted ones included.
    pub(super) fn commits(&self) -> u64 {
        self.commit
    }

    /// Whether it ends before all that it began with, which no power cut does.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many bytes lie behind the last commit that counts.
    pub(super) fn torn(&self) -> u64 {
        self.torn
    }

    /// Puts a file that holds only what counts in the place of the present one. A damaged one is
    /// kept aside for whoever wants to look at it.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        self.cut_off()?;
        let fresh = self.folder.path().join(FRESH);
        files::remove(&fresh).map_err(|e| StoreError::io("remove", &fresh, &e))?;
        if let Err(error) = self.copy_to(&fresh) {
            // A part of a copy takes room that is short already.
            let _ = files::remove(&fresh);
            return Err(error);
        }
        if self.damaged {
            let aside = self.folder.path().join(DAMAGED);
            self.copy_damaged(&aside).map_err(|e| StoreError::io("write", &aside, &e))?;
        }
        // From the rename on, the old file has no name: what cannot open the new one must stop.
        let swapped = rename(&fresh, &self.path).and_then(|()| {
            let file = files::open(&self.path, OpenOptions::new().read(true).write(true));
            self.file = file.map_err(|e| self.error("open", &e))?;
            self.is_headless = false;
            self.resume().map(drop)
        });
        self.failed = swapped.as_ref().err().cloned();
        swapped
    }

    fn copy_damaged(&self, aside: &Path) -> io::Result<()> {
        files::remove(aside)?;
        let mut to =
            files::open(aside, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
        let mut from = files::open(&self.path, OpenOptions::new().read(true))?;
        io::copy(&mut from, &mut to).map(drop)
    }

    /// Writes beside the journal whose it is, and how many commits it has.
    fn write_about(&self, commit: u64) -> Result<(), StoreError> {
        match (&self.label, self.owner) {
            (Some(label), Some(node)) => {
                let about = About { node, commit, label: label.clone() };
                about.write(self.folder.path())
            }
            _ => Ok(()),
        }
    }

    /// Puts the records of one commit behind the last, durably.
    fn append(&mut self, out: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.file.write_all_at(out, self.end) {
            let error = self.error("write", &error);
            // A want of room passes without a new start, if no half commit is left.
            let passes = matches!(
                error,
                StoreError::Failed { failure: Failure::Full | Failure::TooLarge, .. }
            );
            if !passes || self.file.set_len(self.end).is_err() {
                self.failed = Some(error.clone());
            }
            return Err(error);
        }
        if let Err(error) = self.file.sync_data() {
            let error = self.error("sync", &error);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.end += out.len() as u64;
        self.commit += 1;
        Ok(())
    }

    fn error(&self, attempt: &'static str, error: &io::Error) -> StoreError {
        StoreError::io(attempt, &self.path, error)
    }

    /// The data folder.
    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }
}

impl Disk for Journal {
    fn load(&mut self) -> Result<Image, StoreError> {
        let scanned =
            scan(&self.file, self.end, |value, _| value).map_err(|e| self.error("read", &e))?;
        let mut image = image(scanned.replay.contents);
        image.damage.header = self.is_headless;
        Ok(image)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(last) = writes.len().checked_sub(1) else { return Ok(()) };
        self.cut_off()?;
        let mut out = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            let (subject, value) = record::parts(write)?;
            let place = Place {
                commit: self.commit + 1,
                index: u32::try_from(index).expect("a group is bounded by GROUP_BYTES_MAX"),
                last: index == last,
            };
            record::append(&mut out, self.end, place, &subject, value);
        }
        self.is_marked = false;
        self.append(&out)?;
        writes.iter().for_each(|write| self.live.note(write));
        Ok(())
    }

    fn check(&mut self) -> Result<Report, StoreError> {
        let scanned = scan(&self.file, self.end, |_, _| ()).map_err(|e| self.error("read", &e))?;
        let mut damage = scanned.replay.contents.damage();
        let mut header = [0; HEADER_LEN];
        let read = read_up_to(&self.file, &mut header).map_err(|e| self.error("read", &e))?;
        damage.header = match Header::parse(&header[..read]) {
            Header::Of(node) => Some(node) != self.owner,
            _ => true,
        };
        // All up to `end` was acknowledged, also the last commit: here it cannot be torn.
        damage.unnamed += usize::from(scanned.replay.end < self.end);
        Ok(Report { records: scanned.records, bytes: self.end, damage })
    }

    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        let scanned = scan(&self.file, self.end, |_, l| l).map_err(|e| self.error("read", &e))?;
        let owner = self.owner.unwrap_or(NodeId([0; 32]));
        create(path, &owner, self.commit, &scanned.replay.contents, |located: &Located| {
            let mut bytes = vec![0; located.len];
            self.file.read_exact_at(&mut bytes, located.at)?;
            Ok(bytes.into())
        })
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        let grown = self.end > self.rewritten_from && self.end / 2 > self.live.bytes();
        let waits = self.rewrite_failed && self.end <= self.rewritten_from;
        if self.failed.is_some() || waits || !(grown || self.damaged) {
            return Ok(());
        }
        let rewritten = self.rewrite();
        self.rewrite_failed = rewritten.is_err();
        self.rewritten_from = match rewritten {
            Ok(()) => COMPACT_BYTES_MIN,
            Err(_) => self.end + COMPACT_BYTES_MIN,
        };
        rewritten
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.rewrite(),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.end
    }

    fn label(&mut self, label: &Label) -> Result<(), StoreError> {
        self.label = Some(label.clone());
        self.write_about(self.commit)
    }

    fn rebind(&mut self, node: &NodeId) -> Result<(), StoreError> {
        let before = self.owner.replace(*node);
        let rebound = self.rewrite();
        if rebound.is_err() && self.failed.is_none() {
            self.owner = before;
        }
        // What it said of the other holds no more.
        self.label = None;
        let about = self.folder.path().join(about::NAME);
        rebound
            .and_then(|()| files::remove(&about).map_err(|e| StoreError::io("remove", &about, &e)))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.failed.is_none() && !self.is_marked {
            self.cut_off()?;
            let before = self.commit;
            let mut out = Vec::new();
            let place = Place { commit: before + 1, index: 0, last: true };
            record::append(&mut out, self.end, place, &Subject::Mark, &[]);
            self.append(&out)?;
            self.is_marked = true;
            // A mark that is lost is no loss.
            self.write_about(before)?;
        }
        Ok(())
    }
}

/// What a journal file holds that nobody writes to any more.
pub(super) fn read(path: &Path) -> io::Result<Image> {
    let file = files::open(path, OpenOptions::new().read(true))?;
    let scanned = scan(&file, file.metadata()?.len(), |value, _| value)?;
    Ok(image(scanned.replay.contents))
}

/// Writes a new journal file, durable when this returns. Each record is a commit of its own, so
/// that later damage to one spares the others, and a mark shows the last to be whole. The commits
/// are numbered on from `before`, so that their number never falls.
pub(super) fn create<V>(
    path: &Path,
    owner: &NodeId,
    before: u64,
    contents: &Contents<V>,
    mut fetch: impl FnMut(&V) -> io::Result<Value>,
) -> Result<(), StoreError> {
    let mut attempt = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = files::open(path, options.write(true).create_new(true).mode(0o600))?;
        let mut out = BufWriter::new(&file);
        out.write_all(&Header::bytes(owner))?;
        let (mut at, mut commit) = (HEADER_LEN as u64, before);
        let mut put = |subject: Subject, value: &[u8]| {
            let mut bytes = Vec::new();
            commit += 1;
            let place = Place { commit, index: 0, last: true };
            record::append(&mut bytes, at, place, &subject, value);
            at += bytes.len() as u64;
            out.write_all(&bytes)
        };
        put(Subject::Owner(*owner), &[])?;
        for (name, value) in &contents.meta {
            put(Subject::Meta(name.clone()), &fetch(value)?)?;
        }
        for (dot, value) in &contents.changes {
            put(Subject::Put(*dot), &fetch(value)?)?;
        }
        for (writer, seq) in contents.seen() {
            put(Subject::Seen(writer, seq), &[])?;
        }
        for scar in contents.scars() {
            put(scar, &[])?;
        }
        put(Subject::Mark, &[])?;
        out.flush()?;
        file.sync_all()?;
        folder::sync_folder_of(path)
    };
    attempt().map_err(|e| StoreError::io("create", path, &e))
}

/// What is held as an image.
pub(super) fn image(contents: Contents<Value>) -> Image {
    Image {
        seen: contents.seen(),
        damage: contents.damage(),
        changes: contents.changes.into_values().collect(),
        meta: contents.meta.into_iter().map(|(name, value)| (name, value.to_vec())).collect(),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to)
        .and_then(|()| folder::sync_folder_of(to))
        .map_err(|e| StoreError::io("create", to, &e))
}

/// Reads the beginning of a file, as much of it as there is.
fn read_up_to(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    loop {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => return Ok(read),
            more => read += more,
        }
    }
}
