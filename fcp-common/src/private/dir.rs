//! The directories of the program's own files and sockets.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;

use super::error::{Fault, PrivateError};
use super::read::{foreign, is_ours};

/// Where sockets may be, best first: `fcp` in `xdg_runtime_dir` and in its usual place, and one in
/// `/tmp`. Each is to be checked with [`own_dir`] or [`require_own_dir`].
pub fn runtime_dirs(xdg_runtime_dir: Option<&Path>) -> Vec<PathBuf> {
    let uid = geteuid().as_raw();
    let usual = [format!("/run/user/{uid}/fcp").into(), format!("/tmp/fcp-{uid}").into()];
    xdg_runtime_dir.map(|dir| dir.join("fcp")).into_iter().chain(usual).collect()
}

/// Makes the directory `dir` if it is missing, but not the one that it is in, and makes sure that
/// nobody else can enter it.
///
/// # Errors
/// It cannot be made, or see [`require_own_dir`].
pub fn own_dir(dir: &Path) -> Result<(), PrivateError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(PrivateError::io(dir, "made")(error))
        }
        _ => require_own_dir(dir),
    }
}

/// Makes sure that `dir` is a directory itself, ours, and closed to everybody else: whoever could
/// write to it could put his own socket there.
///
/// # Errors
/// It is not, or is not there.
pub fn require_own_dir(dir: &Path) -> Result<(), PrivateError> {
    let stat = fs::symlink_metadata(dir).map_err(PrivateError::io(dir, "read"))?;
    if stat.is_dir() && is_ours(&stat, false) && stat.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    Err(PrivateError::new(dir, Fault::NotOwnDir))
}

/// As [`own_dir`], but makes also what it is in as far as that is missing.
///
/// # Errors
/// Those of [`own_dir`].
pub fn own_dirs(dir: &Path) -> Result<(), PrivateError> {
    make(dir)?;
    require_own_dir(dir)
}

/// The length in bytes of the file at `path`, which is to be a regular one of ours that others
/// cannot write; `None` when there is none. For files that something else opens by their path.
///
/// # Errors
/// It is not.
pub fn require_own_file(path: &Path) -> Result<Option<u64>, PrivateError> {
    let stat = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        stat => stat.map_err(PrivateError::io(path, "read"))?,
    };
    let fault = match stat.mode() & 0o777 {
        _ if stat.is_symlink() => Fault::Link,
        _ if !stat.is_file() => Fault::NotAFile,
        _ if !is_ours(&stat, false) => foreign(&stat),
        mode if mode & 0o022 != 0 => Fault::Writable { mode },
        _ => return Ok(Some(stat.len())),
    };
    Err(PrivateError::new(path, fault))
}

/// What is in `dir` and has not been changed for `age`; nothing when it cannot be read.
pub fn not_changed_for(age: Duration, dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_old = |entry: &fs::DirEntry| {
        let changed = entry.metadata().and_then(|stat| stat.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed > age))
    };
    entries.filter_map(Result::ok).filter(is_old).map(|entry| entry.path()).collect()
}

/// Removes a file or socket of ours. Somebody may have tidied up before, which is as good.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Makes `dir` and what it is in as far as they are missing, for our user only.
pub(super) fn make(dir: &Path) -> Result<(), PrivateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(PrivateError::io(dir, "made"))
}

/// The directory may be reached through links, as people keep their settings in all kinds of
/// places; where that ends, only root and we may write.
pub(super) fn require_safe(dir: &Path) -> Result<(), PrivateError> {
    check(dir, fs::metadata(dir), true, 0o022)
}

/// The directory itself is ours, and not everybody can write to it.
pub(super) fn require_ours(dir: &Path) -> Result<(), PrivateError> {
    check(dir, fs::symlink_metadata(dir), false, 0o002)
}

fn check(
    dir: &Path,
    stat: io::Result<Metadata>,
    or_root: bool,
    forbidden: u32,
) -> Result<(), PrivateError> {
    let stat = stat.map_err(PrivateError::io(dir, "read"))?;
    let fault = match stat.mode() & 0o777 {
        _ if stat.is_symlink() => Fault::Link,
        _ if !is_ours(&stat, or_root) => foreign(&stat),
        mode if mode & forbidden != 0 => Fault::WritableDir { mode },
        _ => return Ok(()),
    };
    Err(PrivateError::new(dir, fault))
}

/// The directory that `path` is in.
pub(super) fn of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => Path::new("/"),
    }
}
