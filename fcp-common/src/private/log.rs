//! A file that lines are added to, and that is put aside when it is long.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{Fault, PrivateError};
use super::{dir, write};

/// Opens the log `path` for adding to it, after a longer one than `max` bytes was put aside as
/// `.log.1`. It and its directory are made for our user only if they are missing.
///
/// # Errors
/// Others could put another file in its place, it is not a regular file, or cannot be written.
pub fn open_log(path: &Path, max: u64) -> Result<File, PrivateError> {
    let dir = dir::of(path);
    dir::make(dir)?;
    dir::require_ours(dir)?;
    let failed = PrivateError::io(path, "written");
    if fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() > max) {
        fs::rename(path, path.with_extension("log.1")).map_err(&failed)?;
    }
    let file = write::options(OFlags::NOFOLLOW).append(true).create(true).open(path);
    let file = file.map_err(&failed)?;
    // A fifo or a device that somebody left there would hold up every line.
    match file.metadata().map_err(&failed)?.is_file() {
        true => Ok(file),
        false => Err(PrivateError::new(path, Fault::NotAFile)),
    }
}
