//! What a command is given to read: a file that holds a text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use peerage_proto::api::{ApiError, ErrorCode, text};

/// The text of a file, whichever system it comes from.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, ApiError> {
    let wrong = |why: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::BadRequest, format!("cannot read {}: {why}", path.display()))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(&format_args!("it has more than {bytes_max} bytes")));
    }
    text::decoded(bytes).map_err(|error| wrong(&error))
}
