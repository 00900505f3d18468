//! Why no agent could be reached on a socket, and what to do: `connect` alone tells only four
//! different errors apart, and a person has to do eight different things.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use peerage_proto::api::{ApiError, ErrorCode, SOCKET_PATH_BYTES_MAX};
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// What to do where no agent runs.
const START: &str = "start it with `systemctl start peerage` or `peerage agent`; if it uses \
                     another socket, name it with --socket or PEERAGE_SOCKET";

/// What to do where the path cannot be an agent's socket.
const NAME_ANOTHER: &str = "name the agent's socket with --socket or PEERAGE_SOCKET; \
                            `peerage config show` tells where this host's configuration has it";

/// Why a client does not reach an agent.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// The path is longer than the kernel takes.
    TooLong(usize),
    /// This folder does not exist.
    NoFolder(PathBuf),
    /// This is on the path and is no folder.
    NotAFolder(PathBuf),
    /// This folder may not be entered.
    Closed(PathBuf),
    /// The folder exists, and holds nothing of that name.
    NoSocket,
    /// A symbolic link that leads nowhere, or in a circle.
    LinkToNowhere,
    /// There is something else at the path: "a folder", "a file".
    NotASocket(&'static str),
    /// A socket that this user may not write to.
    NotAllowed,
    /// A socket that nobody listens on.
    Stale,
    /// More callers wait for the agent than its queue has room for.
    Full,
    /// What the kernel said, where the cause is none of these.
    Other(String),
}

/// What a client says after this error kept it from reaching an agent on this socket.
pub(super) fn unreachable(socket: &Path, error: &io::Error) -> ApiError {
    let path = socket.display();
    let (message, hint) = match obstacle(socket, error) {
        Obstacle::TooLong(found) => (
            format!(
                "the socket's path is {found} bytes long, and Linux takes {SOCKET_PATH_BYTES_MAX} \
                 at most: {path}"
            ),
            "give the agent a shorter one, and name it here: --socket or PEERAGE_SOCKET".to_owned(),
        ),
        Obstacle::NoFolder(folder) => (
            format!(
                "no agent runs here: there is no folder {} for the socket {path}",
                folder.display()
            ),
            START.to_owned(),
        ),
        Obstacle::NoSocket => {
            (format!("no agent runs here: there is no socket {path}"), START.to_owned())
        }
        Obstacle::Stale => (
            format!(
                "no agent runs here: an earlier one left the socket {path} behind, and nobody \
                 answers on it"
            ),
            START.to_owned(),
        ),
        Obstacle::Closed(folder) => (
            format!(
                "you ({}) may not enter the folder {}, which is on the way to the agent's socket {path}",
                me(),
                folder.display()
            ),
            way_in(&folder, 0o010),
        ),
        Obstacle::NotAllowed => (
            format!(
                "you ({}) may not speak to the agent: the socket {path} is closed to you",
                me()
            ),
            way_in(socket, 0o020),
        ),
        Obstacle::NotAFolder(found) => (
            format!("{path} cannot be a socket: {} is no folder", found.display()),
            NAME_ANOTHER.to_owned(),
        ),
        Obstacle::LinkToNowhere => (
            format!("no agent can be reached on {path}: it is a link that leads nowhere"),
            NAME_ANOTHER.to_owned(),
        ),
        Obstacle::NotASocket(what) => (
            format!("no agent can be reached on {path}: it is {what}, and not an agent's socket"),
            NAME_ANOTHER.to_owned(),
        ),
        Obstacle::Full => {
            (format!("the agent on {path} has as many callers as it takes"), "try again".to_owned())
        }
        Obstacle::Other(cause) => {
            (format!("the agent cannot be reached on the socket {path}: {cause}"), START.to_owned())
        }
    };
    ApiError::new(ErrorCode::Unreachable, message).hint(hint)
}

fn obstacle(socket: &Path, error: &io::Error) -> Obstacle {
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Obstacle::TooLong(length);
    }
    let said = error.raw_os_error().map(Errno::from_raw_os_error);
    if said == Some(Errno::AGAIN) {
        return Obstacle::Full;
    }
    if let Some(obstacle) = on_the_way(socket) {
        return obstacle;
    }
    match fs::metadata(socket) {
        Ok(found) if found.is_dir() => Obstacle::NotASocket("a folder"),
        Ok(found) if !found.file_type().is_socket() => Obstacle::NotASocket("a file"),
        // A datagram socket, which some log daemons have.
        Ok(_) if said == Some(Errno::PROTOTYPE) => Obstacle::NotASocket("another kind of socket"),
        Ok(_) if said == Some(Errno::CONNREFUSED) => Obstacle::Stale,
        Ok(_) if matches!(said, Some(Errno::ACCESS | Errno::PERM)) => Obstacle::NotAllowed,
        Ok(_) => Obstacle::Other(error.to_string()),
        Err(_) if fs::symlink_metadata(socket).is_ok() => Obstacle::LinkToNowhere,
        Err(found) if found.kind() == io::ErrorKind::NotFound => Obstacle::NoSocket,
        Err(found) => Obstacle::Other(found.to_string()),
    }
}

/// The first of the folders above a path that is not there, is none, or may not be entered.
fn on_the_way(path: &Path) -> Option<Obstacle> {
    let mut folders: Vec<&Path> =
        path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.reverse();
    folders.into_iter().find_map(|folder| match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Some(Obstacle::NotAFolder(folder.to_owned())),
        Ok(_) => {
            access(folder, Access::EXEC_OK).is_err().then(|| Obstacle::Closed(folder.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(Obstacle::NoFolder(folder.to_owned()))
        }
        Err(error) => Some(Obstacle::Other(error.to_string())),
    })
}

/// How this user gets access to a path that is closed to it: as root, and by the group of the file,
/// if the group's bit in the mode would help.
fn way_in(path: &Path, group_bit: u32) -> String {
    let found = fs::metadata(path).ok().filter(|found| found.mode() & group_bit != 0);
    let group = found.and_then(|found| name_in("/etc/group", found.gid()));
    match group.filter(|group| group != "root") {
        Some(group) => format!(
            "do this as root (sudo), or have root run `usermod -aG {group} {}`, and log in again",
            me()
        ),
        None => "do this as root (sudo), or as the user that the agent runs as".to_owned(),
    }
}

/// The name of this user, or its number.
fn me() -> String {
    let uid = rustix::process::geteuid().as_raw();
    name_in("/etc/passwd", uid).unwrap_or_else(|| format!("uid {uid}"))
}

/// The name that passwd(5) or group(5) has for a number.
fn name_in(file: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    /// What is in the way to a socket, after it was really tried.
    fn found(socket: &Path) -> Obstacle {
        obstacle(socket, &UnixStream::connect(socket).expect_err("nobody is there"))
    }

    #[test]
    fn each_reason_for_reaching_nobody_is_told_from_the_others() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("file"), "").unwrap();
        drop(UnixListener::bind(at("stale")).unwrap());
        let _log = UnixDatagram::bind(at("log")).unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        symlink(at("circle"), at("circle")).unwrap();
        symlink(at("folder"), at("link")).unwrap();

        assert_eq!(found(&at("none/s")), Obstacle::NoFolder(at("none")));
        assert_eq!(found(&at("none/deep/s")), Obstacle::NoFolder(at("none")));
        assert_eq!(found(&at("file/s")), Obstacle::NotAFolder(at("file")));
        assert_eq!(found(&at("folder/s")), Obstacle::NoSocket);
        assert_eq!(found(&at("link/s")), Obstacle::NoSocket);
        assert_eq!(found(&at("folder")), Obstacle::NotASocket("a folder"));
        assert_eq!(found(&at("file")), Obstacle::NotASocket("a file"));
        assert_eq!(found(&at("log")), Obstacle::NotASocket("another kind of socket"));
        assert_eq!(found(&at("stale")), Obstacle::Stale);
        assert_eq!(found(&at("dangling")), Obstacle::LinkToNowhere);
        assert_eq!(found(&at("circle")), Obstacle::LinkToNowhere);
        let long = at(&"x".repeat(SOCKET_PATH_BYTES_MAX));
        assert_eq!(found(&long), Obstacle::TooLong(long.as_os_str().len()));
    }

    #[test]
    fn a_path_that_is_too_long_is_told_with_its_length_and_the_way_out() {
        let path = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX)));
        let error = UnixStream::connect(&path).unwrap_err();
        let said = unreachable(&path, &error);
        assert!(said.message.contains("108 bytes"), "{}", said.message);
        assert!(said.message.contains("107 at most"), "{}", said.message);
        assert!(said.hint.unwrap().contains("--socket"));
    }

    #[test]
    fn one_byte_less_is_a_path_like_any_other() {
        let path = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX - 1)));
        assert_eq!(found(&path), Obstacle::NoSocket);
    }

    #[test]
    fn a_group_that_would_not_help_is_not_named() {
        let home = tempfile::tempdir().unwrap();
        assert!(!way_in(home.path(), 0o010).contains("usermod"), "nobody but its owner may enter");
    }
}
