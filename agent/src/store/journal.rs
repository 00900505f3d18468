//! The disk in life: one file to which each commit is appended and synced.
//!
//! An isolated commit is one `pwrite` and one `fdatasync`. Superseded records stay in the file
//! until it is more than twice as large as the records that still count and larger than
//! [`COMPACT_BYTES_MIN`], or until a caller asks. Then the records that count are copied into a new
//! file, which is synced and renamed over the old one, so that a crash leaves the old file or the
//! new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peerage_proto::id::NodeId;

use super::about::{self, About, Label};
use super::files;
use super::folder::Folder;
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

/// The message for a journal whose records are all lost.
pub(super) const LOST_ALL: &str =
    "it was cut off within its first records: all that it held is lost";

/// The journal of a data folder. It holds the folder, and so its lock.
#[derive(Debug)]
pub struct Journal {
    folder: Arc<Folder>,
    path: PathBuf,
    file: File,
    /// The node that the journal belongs to; `None` where neither the header nor a record names it
    /// any more.
    owner: Option<NodeId>,
    /// What the node is called, once that is known.
    label: Option<Label>,
    /// The offset of the next commit, behind the last one that counts.
    end: u64,
    /// The number of the last commit.
    commit: u64,
    /// The sizes of the records that still count.
    live: Live,
    /// `tidy` rewrites the file only when it is longer than this, in bytes. A failed rewrite raises
    /// it, so that a disk without room for the copy is not asked again after every commit.
    rewritten_from: u64,
    /// Whether the last rewrite failed. The next one waits until the file is longer than
    /// `rewritten_from`.
    rewrite_failed: bool,
    /// Something before `end` cannot be read.
    damaged: bool,
    /// How many bytes lie behind `end`: the remains of a commit that was never finished, or of
    /// commits that the disk damaged.
    torn: u64,
    /// Whether a mark closes the file.
    is_marked: bool,
    /// Whether the file's own first bytes cannot be read.
    is_headless: bool,
    /// Whether the file has lost a part of what it was created with.
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

    /// Opens the journal of a data folder. It does not change the file: a commit that a power cut
    /// tore was not acknowledged, and the next commit cuts it off.
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
        // A new file ends with a mark and is synced before it gets its name. A file without any
        // mark has lost a part of that.
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

    /// Scans the file for the end of the last commit that counts.
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

    /// Cuts off the bytes behind the last commit, and keeps them in a file aside: if no power cut
    /// left them, they are the remains of acknowledged commits that the disk damaged.
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
            // The torn end counts for nothing, so a full disk without room for it does not stop the
            // commit.
            tracing::warn!(%error, path = %kept.display(), "the torn end could not be kept");
        }
        self.file.set_len(self.end).map_err(|e| self.error("write", &e))?;
        self.file.sync_all().map_err(|e| self.error("write", &e))?;
        self.torn = 0;
        Ok(())
    }

    /// The node that the journal belongs to, where that is known.
    pub(super) fn owner(&self) -> Option<NodeId> {
        self.owner
    }

    /// Sets the node that the journal belongs to, where the journal's own word for it was lost.
    pub(super) fn belongs_to(&mut self, node: NodeId) {
        self.owner = Some(node);
    }

    /// How many commits there were, compacted ones included.
    pub(super) fn commits(&self) -> u64 {
        self.commit
    }

    /// Whether the file has lost a part of what it was created with, which no power cut can do.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many bytes lie behind the last commit that counts.
    pub(super) fn torn(&self) -> u64 {
        self.torn
    }

    /// Replaces the journal by a new file that holds only the records that still count. A copy of a
    /// damaged journal is kept aside for the operator.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        self.cut_off()?;
        let fresh = self.folder.path().join(FRESH);
        files::remove(&fresh).map_err(|e| StoreError::io("remove", &fresh, &e))?;
        if let Err(error) = self.copy_to(&fresh) {
            // The partial copy would take room on a disk that may be full.
            let _ = files::remove(&fresh);
            return Err(error);
        }
        if self.damaged {
            let aside = self.folder.path().join(DAMAGED);
            self.copy_damaged(&aside).map_err(|e| StoreError::io("write", &aside, &e))?;
        }
        // After the rename the old file has no name. If the new file cannot be opened, the journal
        // must take no more commits.
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

    /// Writes `node.about`: whose journal this is, and how many commits it has.
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
            // After a lack of room the journal can go on without a new start, if no half commit is
            // left in it.
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
        // Everything before `end` was acknowledged, also the last commit, so an end that is missing
        // here is damage and no torn commit.
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
        // The label and `node.about` were those of the node before.
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
            // `node.about` does not count the mark, so a mark that gets lost does not look like a
            // lost commit.
            self.write_about(before)?;
        }
        Ok(())
    }
}

/// The contents of a journal file that no agent writes to any more.
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
        files::sync_folder_of(path)
    };
    attempt().map_err(|e| StoreError::io("create", path, &e))
}

/// The contents as an image.
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
        .and_then(|()| files::sync_folder_of(to))
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
