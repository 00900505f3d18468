//! The socket file: made, guarded against a second agent, and taken away again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use peerage_proto::api::SOCKET_PATH_BYTES_MAX;
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Everyone may connect; what they may do is decided per request.
const SOCKET_MODE: u32 = 0o666;

/// The mode of the socket's folder, where the agent has to make it.
const FOLDER_MODE: u32 = 0o755;

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers on it.
    #[error("an agent{} already answers on {}", of_process(.pid), .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The process that listens, where the kernel tells.
        pid: Option<i32>,
    },
    /// What is there is not a socket, so it is left alone.
    #[error("{} is there already and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel takes no path of this length.
    #[error(
        "the socket's path is {} bytes long, and Linux takes {SOCKET_PATH_BYTES_MAX} at most: {}; \
         give a shorter one with --socket",
        .0.as_os_str().len(), .0.display()
    )]
    TooLong(PathBuf),
    /// The file system said no.
    #[error("the socket {} cannot be made", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

fn of_process(pid: &Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A listening unix socket. Dropping it takes its file away, unless another file has taken its
/// place since.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file as it was made.
    file: (u64, u64),
    /// Whether the last connection found no file descriptor.
    refused: watch::Sender<bool>,
}

impl Socket {
    /// Listens on `path`. Its folder is made where it is missing; a file that a dead agent left
    /// behind is replaced.
    ///
    /// # Errors
    /// [`BindError`]; what was there before is still there.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let io_error = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)
                .map_err(io_error)?;
        }
        clear_the_way(path).await?;
        let listener = UnixListener::bind(path).map_err(io_error)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(io_error)?;
        let file = identity(path).map_err(io_error)?;
        Ok(Self { listener, path: path.to_owned(), file, refused: watch::Sender::new(false) })
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the last connection that came found no file descriptor left.
    pub fn refused(&self) -> watch::Receiver<bool> {
        self.refused.subscribe()
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let accepted = self.listener.accept().await.map(|(stream, _)| stream);
        let errno = accepted.as_ref().err().and_then(Errno::from_io_error);
        let is_refused = matches!(errno, Some(Errno::MFILE | Errno::NFILE));
        self.refused
            .send_if_modified(|refused| std::mem::replace(refused, is_refused) != is_refused);
        accepted
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // If the file stays, the next agent finds that nobody answers on it, and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket that a dead agent left at `path`, and nothing else.
async fn clear_the_way(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
            Err(BindError::InUse { path: path.to_owned(), pid })
        }
        // Another agent listens, and its queue is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::InUse { path: path.to_owned(), pid: None })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_may_connect_and_the_file_goes_with_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/peerage/s");
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, SOCKET_MODE);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, FOLDER_MODE);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_agent_is_named_and_left_in_peace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = Socket::bind(&path).await.unwrap();
        let error = Socket::bind(&path).await.unwrap_err();
        let process = format!("(process {})", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        assert!(UnixStream::connect(first.path()).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_dead_agent_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Socket::bind(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "dear diary").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
    }

    /// The path is refused before anything is made, such as its folder.
    #[tokio::test]
    async fn a_path_that_is_too_long_is_refused_with_its_length() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("x".repeat(SOCKET_PATH_BYTES_MAX));
        let path = folder.join("s");
        let error = Socket::bind(&path).await.unwrap_err().to_string();
        let length = path.as_os_str().len();
        assert!(error.contains(&format!("{length} bytes long")), "{error}");
        assert!(error.contains("107 at most") && error.contains("--socket"), "{error}");
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_not_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let old = Socket::bind(&path).await.unwrap();
        fs::rename(&path, folder.path().join("aside")).unwrap();
        let _new = Socket::bind(&path).await.unwrap();
        drop(old);
        assert!(path.exists());
    }
}
