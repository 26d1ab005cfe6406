//! A file that lines are added to, and that is put aside when it is long.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::dir;
use super::error::{Fault, PrivateError};
use super::read::{foreign, is_ours};

/// Opens the log `path` for adding to it, after a longer one than `max` bytes was put aside as
/// `.log.1`. It and its directory are made for our user only if they are missing.
///
/// # Errors
/// Others could put another file in its place, it is not a regular file, or cannot be written.
pub fn open_log(path: &Path, max: u64) -> Result<File, PrivateError> {
    let dir = dir::of(path);
    dir::make(dir)?;
    require_ours(dir)?;
    let failed = PrivateError::io(path, "written");
    if fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() > max) {
        fs::rename(path, path.with_extension("log.1")).map_err(&failed)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(path).map_err(&failed)?;
    // A fifo or a device that somebody left there would hold up every line.
    match file.metadata().map_err(&failed)?.is_file() {
        true => Ok(file),
        false => Err(PrivateError::new(path, Fault::NotAFile)),
    }
}

fn require_ours(dir: &Path) -> Result<(), PrivateError> {
    let stat = fs::symlink_metadata(dir).map_err(PrivateError::io(dir, "read"))?;
    let fault = match stat.mode() & 0o777 {
        _ if !is_ours(&stat, false) => foreign(&stat),
        _ if !stat.is_dir() => Fault::Link,
        mode if mode & 0o002 != 0 => Fault::WritableDir { mode },
        _ => return Ok(()),
    };
    Err(PrivateError::new(dir, fault))
}
