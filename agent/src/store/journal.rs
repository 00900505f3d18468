//! The disk in life: one file to which each commit is appended and synced.
//!
//! An isolated commit is one `pwrite` and one `fdatasync`. What is superseded stays in the file
//! until that holds more than twice what counts and more than [`COMPACT_BYTES_MIN`]; then what
//! counts is copied into a new file, which takes the old one's place by a rename. The new file is
//! synced before, so a crash finds one or the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{self, Folder};
use super::record::{self, FILE_HEADER, FORMAT, Place, Subject, Value};
use super::replay::Contents;
use super::scan::{Located, scan};
use super::{Disk, Failure, Image, Report, StoreError, Write};

/// Below this size a file is never compacted.
pub(super) const COMPACT_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The name of the file in the data folder.
const NAME: &str = "journal";

/// The journal of a data folder. It holds the folder, and so its lock.
#[derive(Debug)]
pub struct Journal {
    folder: Arc<Folder>,
    path: PathBuf,
    file: File,
    /// Where the next commit goes: behind the last that counts.
    end: u64,
    /// The number of the last commit.
    commit: u64,
    /// The size of what counted when the file was last loaded or compacted.
    live: u64,
    /// Something before `end` cannot be read.
    damaged: bool,
    /// Set once it is unknown what reached the disk. After a failed sync the kernel may show
    /// bytes that the disk never got, so nothing more can be promised on top of them.
    failed: Option<StoreError>,
}

impl Journal {
    /// Opens the journal of a data folder, or creates it. Drops what a power cut tore: it had not
    /// been acknowledged.
    ///
    /// # Errors
    /// [`StoreError`]: a newer format, a file that is no journal, or the operating system.
    pub fn open(folder: Arc<Folder>) -> Result<Self, StoreError> {
        let path = folder.path().join(NAME);
        let fail = |error: io::Error| StoreError::io("open", &path, &error);
        let fresh = fresh_name(&path);
        if let Err(error) = fs::remove_file(&fresh)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(StoreError::io("remove", &fresh, &error));
        }
        if !path.try_exists().map_err(fail)? {
            create(&fresh, &Contents::default(), |value: &Value| Ok(value.clone()))?;
            rename(&fresh, &path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        let mut header = [0; FILE_HEADER.len()];
        let read = file.read_at(&mut header, 0).map_err(fail)?;
        match u16::from_be_bytes([header[14], header[15]]) {
            _ if read < header.len() || header[..14] != FILE_HEADER[..14] => {
                return Err(no_journal(&path));
            }
            // The readers of older formats have their place here, each turning its own into the
            // next, before the file is scanned.
            FORMAT => {}
            found if found > FORMAT => {
                return Err(StoreError::NewerFormat { path, found, known: FORMAT });
            }
            _ => return Err(no_journal(&path)),
        }
        let mut journal =
            Self { folder, path, file, end: 0, commit: 0, live: 0, damaged: false, failed: None };
        journal.resume()?;
        Ok(journal)
    }

    /// Finds the end of what counts, and cuts off what lies behind it.
    fn resume(&mut self) -> Result<(), StoreError> {
        let len = self.file.metadata().map_err(|e| self.error("read", &e))?.len();
        let scanned = scan(&self.file, len, |_, l| l).map_err(|e| self.error("read", &e))?;
        let replay = scanned.replay;
        if replay.end < len {
            tracing::warn!(
                path = %self.path.display(),
                bytes = len - replay.end,
                "dropped the end of the journal: a commit that was never finished"
            );
            self.file.set_len(replay.end).map_err(|e| self.error("write", &e))?;
            self.file.sync_all().map_err(|e| self.error("write", &e))?;
        }
        self.end = replay.end;
        self.commit = replay.commit;
        self.damaged = !replay.contents.damage().is_none();
        self.live = live_bytes(&replay.contents);
        Ok(())
    }

    /// Puts a file that holds only what counts in the place of the present one. A damaged one is
    /// kept aside for whoever wants to look at it.
    fn compact(&mut self) -> Result<(), StoreError> {
        let fresh = fresh_name(&self.path);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &fresh, &error));
            }
            _ => self.copy_to(&fresh)?,
        }
        if self.damaged {
            let aside = self.path.with_extension("damaged");
            fs::copy(&self.path, &aside).map_err(|e| StoreError::io("write", &aside, &e))?;
        }
        // From the rename on, the old file has no name: what cannot open the new one must stop.
        let swapped = rename(&fresh, &self.path).and_then(|()| {
            let file = OpenOptions::new().read(true).write(true).open(&self.path);
            self.file = file.map_err(|e| self.error("open", &e))?;
            self.resume()
        });
        self.failed = swapped.as_ref().err().cloned();
        swapped
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
        Ok(image(scanned.replay.contents))
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(last) = writes.len().checked_sub(1) else { return Ok(()) };
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
        if let Err(error) = self.file.write_all_at(&out, self.end) {
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

    fn check(&mut self) -> Result<Report, StoreError> {
        let scanned = scan(&self.file, self.end, |_, _| ()).map_err(|e| self.error("read", &e))?;
        let mut damage = scanned.replay.contents.damage();
        // All up to `end` was acknowledged, also the last commit: here it cannot be torn.
        damage.unnamed += usize::from(scanned.replay.end < self.end);
        Ok(Report { records: scanned.records, bytes: self.end, damage })
    }

    fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        let scanned = scan(&self.file, self.end, |_, l| l).map_err(|e| self.error("read", &e))?;
        create(path, &scanned.replay.contents, |located: &Located| {
            let mut bytes = vec![0; located.len];
            self.file.read_exact_at(&mut bytes, located.at)?;
            Ok(bytes.into())
        })
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        let grown = self.end > COMPACT_BYTES_MIN && self.end / 2 > self.live;
        if self.failed.is_none() && (grown || self.damaged) {
            self.compact()?;
        }
        Ok(())
    }
}

/// Writes a new journal file, durable when this returns. Each record is a commit of its own, so
/// that later damage to one spares the others, and a mark shows the last to be whole.
pub(super) fn create<V>(
    path: &Path,
    contents: &Contents<V>,
    mut fetch: impl FnMut(&V) -> io::Result<Value>,
) -> Result<(), StoreError> {
    let mut attempt = || -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::new(&file);
        out.write_all(&FILE_HEADER)?;
        let (mut at, mut commit) = (FILE_HEADER.len() as u64, 0);
        let mut put = |subject: Subject, value: &[u8]| {
            let mut bytes = Vec::new();
            commit += 1;
            let place = Place { commit, index: 0, last: true };
            record::append(&mut bytes, at, place, &subject, value);
            at += bytes.len() as u64;
            out.write_all(&bytes)
        };
        for (name, value) in &contents.meta {
            put(Subject::Meta(name.clone()), &fetch(value)?)?;
        }
        for (dot, value) in &contents.changes {
            put(Subject::Put(*dot), &fetch(value)?)?;
        }
        for (writer, seq) in contents.seen() {
            put(Subject::Seen(writer, seq), &[])?;
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

fn live_bytes(contents: &Contents<Located>) -> u64 {
    let values = contents.changes.values().chain(contents.meta.values());
    values.map(|located| (record::HEAD_AND_KEY_MAX + located.len) as u64).sum()
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to)
        .and_then(|()| folder::sync_folder_of(to))
        .map_err(|e| StoreError::io("create", to, &e))
}

fn fresh_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn no_journal(path: &Path) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        what: "it does not begin as a journal of peerage does".into(),
        hint: "Move it away and start the agent: the node keeps its key, and gets what was decided \
               from the others when it joins again.",
    }
}
