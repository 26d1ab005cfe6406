//! Changing the files of a directory while nobody else does.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::error::PrivateError;
use super::{dir, write};

/// The right to change the files of a directory; given back when dropped.
#[derive(Debug)]
pub struct Locked {
    dir: PathBuf,
    _lock: File,
}

/// Makes `dir` if it is missing, for our user only, and waits for whoever else changes its files.
///
/// # Errors
/// Others can write to it, or it cannot be made or locked.
pub fn lock(dir: &Path) -> Result<Locked, PrivateError> {
    dir::make(dir)?;
    dir::require_safe(dir)?;
    // A file, as a directory cannot be locked over NFS.
    let mut options = write::options(OFlags::NOFOLLOW);
    let file = options.write(true).create(true).truncate(false).open(dir.join(".lock"));
    let file = file.map_err(PrivateError::io(dir, "written to"))?;
    flock(&file, FlockOperation::LockExclusive).map_err(PrivateError::io(dir, "locked"))?;
    Ok(Locked { dir: dir.to_owned(), _lock: file })
}

impl Locked {
    /// Puts a file with these contents in the place of what is called `name`; it is all there or
    /// not at all, also after a crash.
    ///
    /// # Errors
    /// As the system gives them; what was there stays.
    pub fn replace(&self, name: &str, contents: &[u8]) -> Result<(), PrivateError> {
        let path = self.dir.join(name);
        let temp = self.dir.join(format!(".{name}.new"));
        // Left by one that was killed: nobody else writes while we hold the lock.
        match std::fs::remove_file(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => write::put(&temp, &path, contents, |temp, path| std::fs::rename(temp, path)),
        }
        .map_err(PrivateError::io(&path, "written"))
    }
}
