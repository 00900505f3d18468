//! How files in the data folder are opened: only plain ones, and never through a symbolic link.
//!
//! Somebody who could once write to the folder could have left a link there, and the agent would
//! then read or overwrite the file to which the link points.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// How large a small file may be, such as the key or `node.about`.
const SMALL_BYTES_MAX: u64 = 4096;

/// Opens a plain file.
///
/// # Errors
/// The errors of the operating system; `ELOOP` for a symbolic link, `InvalidInput` for what is no
/// plain file.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Without NONBLOCK a pipe that lies there would hold the agent up for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = options.custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    Ok(file)
}

/// What a small file holds; `None` where there is none.
pub(super) fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes a file that does not exist yet, for our user alone. Its content is durable when this
/// returns; its name is durable once the folder is synced.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = open(path, options.write(true).create_new(true).mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file by a whole new one; a crash leaves the old file or the new one.
pub(super) fn replace(path: &Path, fresh: &Path, bytes: &[u8]) -> io::Result<()> {
    remove(fresh)?;
    write_new(fresh, bytes)?;
    fs::rename(fresh, path)?;
    sync_folder_of(path)
}

/// Makes the names in a folder durable: a created or renamed file is found after a power cut only
/// once its folder was synced.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(parent)?.sync_all()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether there is anything of that name, a dangling link included.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A small text file, closed by a line with a checksum over its purpose and its text.
pub(super) fn sealed(purpose: &str, text: &str) -> String {
    format!("{text}check {}\n", check(purpose, text))
}

/// The text of a small file whose checksum holds.
pub(super) fn opened<'t>(purpose: &str, file: &'t [u8]) -> Option<&'t str> {
    let file = std::str::from_utf8(file).ok()?;
    let (text, sum) = file.split_at(file.strip_suffix('\n')?.rfind("check ")?);
    (sum.strip_prefix("check ")?.strip_suffix('\n')? == check(purpose, text)).then_some(text)
}

fn check(purpose: &str, text: &str) -> String {
    let hash = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(text).finalize();
    data_encoding::HEXLOWER.encode(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_small_file_shows() {
        let whole = sealed("node.key", "peerage\nseed 00ff\n");
        assert_eq!(opened("node.key", whole.as_bytes()), Some("peerage\nseed 00ff\n"));
        assert_eq!(opened("node.about", whole.as_bytes()), None, "a file is what its name says");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened("node.key", &bytes), None, "bit {bit}");
        }
        for len in 0..whole.len() {
            assert_eq!(opened("node.key", &whole.as_bytes()[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = open(&link, OpenOptions::new().read(true).write(true)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert_eq!(read_small(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(write_new(&link, b"x").is_err() && fs::read(&target).unwrap() == b"kept");
    }
}
