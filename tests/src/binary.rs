//! The agent's binary: built once per test process, in the profile of the tests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The variable that names a binary to test instead of building one.
const OVERRIDE: &str = "PEERAGE_BIN";

/// The path of the `peerage` binary, which is up to date with the sources.
///
/// # Panics
/// When it cannot be built.
pub fn peerage() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => built(),
    })
}

/// The top folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn built() -> PathBuf {
    let folder = profile_folder();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} is no folder of cargo's", folder.display()),
    };
    let target = folder.parent().expect("a profile's folder lies in the target folder");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", "peerage", "--bin", "peerage"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("peerage")
}

/// The folder of the profile in which this very process was built.
fn profile_folder() -> PathBuf {
    let here = env::current_exe().expect("a process knows its binary");
    let folder = here.parent().expect("a binary lies in a folder");
    // Tests lie one folder deeper than binaries.
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().expect("deps lies in a profile").into(),
        _ => folder.into(),
    }
}
