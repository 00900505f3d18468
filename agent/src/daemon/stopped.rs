//! The data folder of an agent that does not run: whose it is, and another identity for its host.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use peerage_proto::api::node::IdentityReset;
use peerage_proto::api::{ApiError, ErrorCode, Named};

use super::again::again;
use crate::host::config;
use crate::node::reset_stopped;

/// Starts this command anew as the owner of a data folder, where root runs it: the files that it
/// writes there must belong to the agent, which is not root on a packaged host. Returns where this
/// process may go on as it is.
///
/// # Errors
/// The folder is no agent's, or may not be looked into; or this process could not go on as the
/// folder's owner. The error says what to do instead.
pub fn become_owner(folder: &Path) -> Result<(), ApiError> {
    let found = looked_into(folder)?;
    let owner = found.uid();
    if !rustix::process::geteuid().is_root() || owner == 0 {
        return Ok(());
    }
    // The new process has no rights of root any more: by default the groups of root are given up,
    // too.
    let error = again().uid(owner).gid(found.gid()).exec();
    let message = format!("{} belongs to user {owner}: {error}", folder.display());
    Err(ApiError::new(ErrorCode::Failed, message)
        .hint(format!("run this command as that user: `sudo -u '#{owner}' peerage reset ...`")))
}

/// Checks that a folder holds an agent's data. A folder that may not be looked into is another
/// error than one without data.
fn looked_into(folder: &Path) -> Result<Metadata, ApiError> {
    let shown = folder.display();
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            ApiError::new(ErrorCode::NotFound, format!("there is no folder {shown}"))
                .hint("`peerage config show` tells an agent's data_dir")
        }
        io::ErrorKind::PermissionDenied => {
            let message = format!("you may not look into {shown}, so what it holds is not known");
            ApiError::new(ErrorCode::Forbidden, message)
                .hint("run this as root (sudo); it acts there as the user whose folder it is")
        }
        io::ErrorKind::NotADirectory => {
            ApiError::new(ErrorCode::BadRequest, format!("{shown} is no folder"))
        }
        _ => ApiError::new(ErrorCode::Failed, format!("cannot look into {shown}: {error}")),
    };
    let names = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
    });
    let names = names.map_err(refused)?;
    let ours = ["node.key", "journal", "node.about", "node.key.new"];
    if !names.iter().any(|name| ours.iter().any(|ours| name == *ours)) {
        let message = format!("there is no agent's data in {shown}");
        return Err(ApiError::new(ErrorCode::NotFound, message)
            .hint("`peerage config show` tells an agent's data_dir"));
    }
    folder.metadata().map_err(refused)
}

/// Gives the host of a stopped agent's folder another identity.
///
/// # Errors
/// What kept it from that.
pub fn reset_identity(folder: &Path) -> Result<IdentityReset, ApiError> {
    let failed = |message: String| ApiError::new(ErrorCode::Failed, message);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let renewed = runtime.block_on(reset_stopped(folder)).map_err(|e| failed(e.to_string()))?;
    Ok(IdentityReset {
        node: Named { name: config::host_name(), id: renewed.is.to_string() },
        was: renewed.was.map(|was| was.to_string()),
        backup: renewed.backup.map(|backup| backup.display().to_string()),
        old_key: renewed.old_key.map(|key| key.display().to_string()),
    })
}
