//! What a host stores on: its root, which is the shared image with the host's own changes over it,
//! and a volume for the agent's data that can lose its power or be full.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::ioctl::{self, opcode};

use super::kit::system;
use crate::patience::POLL;

/// How often an unmount is tried: a host that has just ended holds the mount for a while.
const UNMOUNTS_MAX: u32 = 500;

/// The root of a host. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Lays a host's own layer in `folder` over the image.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn over(image: &Path, folder: &Path) -> Self {
        let [upper, work, root] = ["upper", "work", "root"].map(|name| folder.join(name));
        for made in [&upper, &work, &root] {
            fs::create_dir(made).expect("a folder of the test can be written");
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            upper.display(),
            work.display()
        );
        system("mount", &["-t", "overlay", "overlay", "-o", &layers, text(&root)]);
        Self { root }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.root);
    }
}

/// A file system of its own, in a file. Dropping it unmounts it.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    mounted: PathBuf,
}

impl Volume {
    /// Makes a file system of this size in `folder` and mounts it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(folder: &Path, megabytes: u64) -> Self {
        let (image, mounted) = (folder.join("volume.ext4"), folder.join("volume"));
        let file = File::create(&image).expect("a folder of the test can be written");
        file.set_len(megabytes << 20).expect("a file can be as long");
        system("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)]);
        fs::create_dir(&mounted).expect("a folder of the test can be written");
        let volume = Self { image, mounted };
        volume.mount();
        volume
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Ends all writing in this instant, as a power cut does: what was not synced is lost. Nothing
    /// works on it until [`Volume::restore`].
    #[allow(unsafe_code)]
    pub fn cut(&self) {
        /// `EXT4_IOC_SHUTDOWN`, without writing the file system's own journal first.
        const SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        const WITHOUT_FLUSH: u32 = 2;
        let folder = File::open(&self.mounted).expect("a mounted folder opens");
        // SAFETY: the request reads one u32 and changes no memory of ours.
        let done = unsafe {
            let request = ioctl::Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH);
            ioctl::ioctl(folder.as_fd(), request)
        };
        done.expect("a file system can be shut down");
    }

    /// Mounts it again, with what had reached it. The host must be off.
    ///
    /// # Panics
    /// When what is left cannot be mounted.
    pub fn restore(&mut self) {
        unmount(&self.mounted);
        // Other hosts may still hold the mount, which keeps the file system that was shut down
        // alive. So the volume goes on with a copy of what had reached the disk.
        let image = self.image.with_extension(format!("after-{}", super::kit::unique()));
        fs::copy(&self.image, &image).expect("a folder of the test can be written");
        self.image = image;
        self.mount();
    }

    fn mount(&self) {
        system("mount", &["-o", "loop", text(&self.image), text(&self.mounted)]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        unmount(&self.mounted);
    }
}

fn unmount(path: &Path) {
    for _ in 0..UNMOUNTS_MAX {
        let done = Command::new("umount").arg(path).output();
        let busy = |said: &[u8]| String::from_utf8_lossy(said).contains("busy");
        match done {
            Ok(done) if !done.status.success() && busy(&done.stderr) => thread::sleep(POLL),
            _ => return,
        }
    }
    eprintln!("{} is still in use", path.display());
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
