//! What must be there before hosts can be booted.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::cgroup::hierarchies;
use crate::skip::skipped;

/// The variables that name the package to install, and the image to boot (see `.ci/host-image`).
const PACKAGE: &str = "PEERAGE_DEB";
const IMAGE: &str = "PEERAGE_HOST_IMAGE";

/// The programs that make a host.
const TOOLS: &[&str] =
    &["systemd-nspawn", "nsenter", "ip", "nft", "mount", "mkfs.ext4", "dpkg-deb"];

/// An image, a package, and a machine that can put them to use.
#[derive(Debug, Clone)]
pub struct Kit {
    image: PathBuf,
    package: PathBuf,
}

impl Kit {
    /// What this machine offers. `None` where hosts cannot be booted here, which is then said.
    pub fn here() -> Option<Self> {
        let (Some(package), Some(image)) = (env::var_os(PACKAGE), env::var_os(IMAGE)) else {
            skipped(&format!(
                "real hosts: {PACKAGE} and {IMAGE} are not set, as .ci/run sets them"
            ));
            return None;
        };
        if let Err(why) = able() {
            skipped(&format!("real hosts: {why}"));
            return None;
        }
        Some(Self { image: image.into(), package: package.into() })
    }

    /// The folder that all hosts stand on.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The package that is tested.
    pub fn package(&self) -> &Path {
        &self.package
    }
}

/// Checks that this machine has what hosts need.
fn able() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can boot them".into());
    }
    for tool in TOOLS {
        let mut command = Command::new("sh");
        command.args(["-c", "command -v \"$0\"", tool]).stdout(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            return Err(format!("there is no {tool} here"));
        }
    }
    hierarchies().map(|_| ())
}

/// A name that no other test and no other process uses.
pub(super) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("pt{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command of the system to its end.
///
/// # Panics
/// When it fails, with what it said.
#[track_caller]
pub(super) fn system(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", args.join(" "));
}
