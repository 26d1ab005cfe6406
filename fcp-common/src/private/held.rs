//! Files of ours that grow while a process lives, and tell those of the dead from the others.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::error::PrivateError;
use super::read::is_ours;
use super::{dir, write};

/// A file that is ours alone and locked for as long as this is kept, or the process lives.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: File,
}

impl Held {
    /// Makes the file `path`, and its directory if that is missing, for our user only.
    ///
    /// # Errors
    /// It is there already, or cannot be made or locked.
    pub fn create(path: &Path) -> Result<Held, PrivateError> {
        dir::make(dir::of(path))?;
        dir::require_ours(dir::of(path))?;
        let options = write::options(OFlags::NOFOLLOW).append(true).create_new(true).open(path);
        let file = options.map_err(PrivateError::io(path, "written"))?;
        let lock = flock(&file, FlockOperation::NonBlockingLockExclusive);
        lock.map_err(PrivateError::io(path, "locked"))?;
        Ok(Held { path: path.to_owned(), file })
    }

    /// Takes over a file that nobody holds, with its first `max` bytes; `None` when somebody does,
    /// when it is gone, or when it is not such a file.
    pub fn take_over(path: &Path, max: u64) -> Option<(Held, Vec<u8>)> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = write::options(flags).read(true).append(true).open(path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let stat = file.metadata().ok()?;
        // Whoever held it may have removed it just before letting go.
        if !stat.is_file() || !is_ours(&stat, false) || stat.nlink() == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        (&file).take(max).read_to_end(&mut bytes).ok()?;
        Some((Held { path: path.to_owned(), file }, bytes))
    }

    /// Adds to its end. Written is not durable: a power cut may take it away.
    ///
    /// # Errors
    /// The system's.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    /// Removes the file, then lets go.
    pub fn remove(self) {
        dir::remove(&self.path);
    }
}

/// What is in `dir` and has a name that begins with `prefix`; nothing when it cannot be read.
pub fn named(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_wanted =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
    entries.filter_map(Result::ok).filter(is_wanted).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_holder_has_is_not_taken_and_what_a_dead_one_left_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("made/run-1");
        let held = Held::create(&path).unwrap();
        held.append(b"one\n").unwrap();
        assert!(Held::create(&path).is_err());
        assert!(Held::take_over(&path, 100).is_none());
        drop(held);
        assert_eq!(named(path.parent().unwrap(), "run-"), std::slice::from_ref(&path));
        let (held, bytes) = Held::take_over(&path, 100).unwrap();
        assert_eq!(bytes, b"one\n");
        held.append(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        held.remove();
        assert!(Held::take_over(&path, 100).is_none());
    }
}
