//! The control groups of a host. Its init needs a group of its own in every hierarchy that systemd
//! uses, and by that group all of the host's processes are found and frozen together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::patience::{POLL, SOON, eventually};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// How often the removal of a group is tried while its last processes end.
const ENDS_MAX: u32 = 500;

/// The hierarchies in which a host needs a group, the unified one first.
///
/// # Errors
/// This machine mounts them in no way that a host can use.
pub(super) fn hierarchies() -> Result<Vec<PathBuf>, String> {
    let root = Path::new(ROOT);
    let (unified, named) = (root.join("unified"), root.join("systemd"));
    let found = if unified.join("cgroup.procs").exists() && named.join("cgroup.procs").exists() {
        vec![unified, named]
    } else if root.join("cgroup.procs").exists() {
        vec![root.to_owned()]
    } else {
        return Err(format!("no unified control groups under {ROOT}"));
    };
    // What counts is whether this process may make a group.
    let trial = found[0].join(super::kit::unique());
    fs::create_dir(&trial)
        .and_then(|()| fs::remove_dir(&trial))
        .map_err(|error| format!("control groups cannot be made: {error}"))?;
    Ok(found)
}

/// The groups of one host. Dropping them takes them away; their processes must have ended, or be
/// about to.
#[derive(Debug)]
pub struct Groups {
    /// One in each hierarchy, the unified one first.
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Makes groups of this name.
    ///
    /// # Panics
    /// When this machine does not let us.
    pub fn new(name: &str) -> Self {
        let hierarchies = hierarchies().expect("it was checked before");
        let folders: Vec<_> = hierarchies.iter().map(|root| root.join(name)).collect();
        for folder in &folders {
            fs::create_dir(folder).expect("a control group can be made");
        }
        Self { folders }
    }

    /// The files to which a process writes its id to enter.
    pub fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }

    /// The init of the host, once it is there.
    pub fn init(&self) -> Option<u32> {
        let name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        let processes = self.processes("payload/init.scope");
        processes.into_iter().find(|id| name(id) == "systemd\n")
    }

    /// The processes in a group of the host's own, such as that of a unit.
    pub fn processes(&self, below: &str) -> Vec<u32> {
        let processes = fs::read_to_string(self.unified().join(below).join("cgroup.procs"));
        let processes = processes.unwrap_or_default();
        processes.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Stops or resumes all processes at once, and returns when they are.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn freeze(&self, frozen: bool) {
        let (value, state) = if frozen { ("1", "frozen 1") } else { ("0", "frozen 0") };
        fs::write(self.unified().join("cgroup.freeze"), value).expect("a group can be frozen");
        eventually(&format!("the host is {state}"), SOON, || {
            let events = fs::read_to_string(self.unified().join("cgroup.events"));
            let events = events.map_err(|error| error.to_string())?;
            if events.contains(state) { Ok(()) } else { Err(events) }
        });
    }

    fn unified(&self) -> &Path {
        &self.folders[0]
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The last processes of a host end after its init.
            for _ in 0..ENDS_MAX {
                if remove(folder).is_ok() {
                    break;
                }
                thread::sleep(POLL.min(Duration::from_millis(10)));
            }
        }
    }
}

/// Removes a group and those in it.
fn remove(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
