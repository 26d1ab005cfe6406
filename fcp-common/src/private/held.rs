//! Files of ours that one process at a time holds, for as long as it keeps them or lives: the kernel
//! gives them back however it ends.
//!
//! [`Held::create`] makes one of a new name that grows, and [`Held::take_over`] tells those of the
//! dead from the others; [`hold`] locks one of a name that everybody knows, and says in it who has
//! it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::error::{Fault, PrivateError};
use super::read::is_ours;
use super::{dir, write};

/// The longest note of a holder that is read, in bytes.
const MAX_NOTE: u64 = 4096;

/// Never through a link, and never waiting for the other end of a pipe.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// A file that is ours alone and locked for as long as this is kept, or the process lives.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: File,
    /// It holds nothing but a note of who holds it.
    is_noted: bool,
}

impl Held {
    /// Makes the file `path`, and its directory if that is missing, for our user only.
    ///
    /// # Errors
    /// It is there already, or cannot be made or locked.
    pub fn create(path: &Path) -> Result<Held, PrivateError> {
        own_dir(path)?;
        let file = write::options(FLAGS).append(true).create_new(true).open(path);
        let file = file.map_err(PrivateError::io(path, "written"))?;
        lock(&file).map_err(PrivateError::io(path, "locked"))?;
        Ok(Held { path: path.to_owned(), file, is_noted: false })
    }

    /// Takes over a file that nobody holds, with its first `max` bytes; `None` when somebody does,
    /// when it is gone, or when it is not such a file.
    pub fn take_over(path: &Path, max: u64) -> Option<(Held, Vec<u8>)> {
        let file = write::options(FLAGS).read(true).append(true).open(path).ok()?;
        lock(&file).ok()?;
        let stat = file.metadata().ok()?;
        // Whoever held it may have removed it just before letting go.
        if !stat.is_file() || !is_ours(&stat, false) || stat.nlink() == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        (&file).take(max).read_to_end(&mut bytes).ok()?;
        Some((Held { path: path.to_owned(), file, is_noted: false }, bytes))
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

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_noted {
            // Nobody is to read that we hold it when we do not. The file stays: another process
            // may have opened it already, and two files of one name would be two locks.
            let _ = self.file.set_len(0);
        }
    }
}

/// Holds the file `path`, which is made if it is missing, and writes `note` into it for whoever
/// comes meanwhile. `Err(note)` inside tells what its holder wrote.
///
/// # Errors
/// It cannot be made, locked or written.
pub fn hold(path: &Path, note: &str) -> Result<Result<Held, String>, PrivateError> {
    own_dir(path)?;
    let mut options = write::options(FLAGS);
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.map_err(PrivateError::io(path, "opened"))?;
    let stat = file.metadata().map_err(PrivateError::io(path, "read"))?;
    if !Metadata::is_file(&stat) {
        return Err(PrivateError::new(path, Fault::NotAFile));
    }
    match lock(&file) {
        Err(Errno::WOULDBLOCK) => return Ok(Err(note_of(&mut file))),
        locked => locked.map_err(PrivateError::io(path, "locked"))?,
    }
    let written = file.set_len(0).and_then(|()| file.write_all(note.as_bytes()));
    written.map_err(PrivateError::io(path, "written"))?;
    Ok(Ok(Held { path: path.to_owned(), file, is_noted: true }))
}

/// What the holder of the file `path` wrote, without holding it; `None` when nobody does, or when
/// it was killed and its note stayed: whoever reads it judges that.
pub fn holder(path: &Path) -> Option<String> {
    let mut file = write::options(FLAGS).read(true).open(path).ok()?;
    Some(note_of(&mut file)).filter(|note| !note.is_empty())
}

/// What is in `dir` and has a name that begins with `prefix`; nothing when it cannot be read.
pub fn named(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_wanted =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
    entries.filter_map(Result::ok).filter(is_wanted).map(|entry| entry.path()).collect()
}

fn own_dir(path: &Path) -> Result<(), PrivateError> {
    let dir = dir::of(path);
    dir::make(dir)?;
    dir::require_ours(dir)
}

fn lock(file: &File) -> Result<(), Errno> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

fn note_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(MAX_NOTE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
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

    #[test]
    fn one_at_a_time_holds_a_file_and_says_who() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("made/lock");
        let held = hold(&path, "first").unwrap().unwrap();
        assert_eq!(hold(&path, "second").unwrap().unwrap_err(), "first");
        assert_eq!(holder(&path).unwrap(), "first");
        drop(held);
        assert_eq!(holder(&path), None, "nobody reads of who let go");
        assert!(path.exists());
        hold(&path, "third").unwrap().unwrap();
        assert!(hold(temp.path(), "a directory").is_err());
    }
}
