//! A file that one process at a time holds, for as long as it lives, and that says which.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::error::{Fault, PrivateError};
use super::{dir, write};

/// The longest note of a holder that is read, in bytes.
const MAX_NOTE: u64 = 4096;

/// A held file. The kernel gives it back when this is dropped, and when the process ends in any way.
#[derive(Debug)]
pub struct Hold {
    file: File,
}

/// Holds the file `path`, which is made if it is missing, and writes `note` into it for whoever
/// comes meanwhile. `Err(note)` inside tells what its holder wrote.
///
/// # Errors
/// It cannot be made, locked or written.
pub fn hold(path: &Path, note: &str) -> Result<Result<Hold, String>, PrivateError> {
    let dir = dir::of(path);
    dir::make(dir)?;
    dir::require_ours(dir)?;
    let mut options = write::options(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.map_err(PrivateError::io(path, "opened"))?;
    if !file.metadata().map_err(PrivateError::io(path, "read"))?.is_file() {
        return Err(PrivateError::new(path, Fault::NotAFile));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Err(note_of(&mut file))),
        locked => locked.map_err(PrivateError::io(path, "locked"))?,
    }
    file.set_len(0).and_then(|()| file.write_all(note.as_bytes())).map_err(write_failed(path))?;
    Ok(Ok(Hold { file }))
}

/// What the holder of the file `path` wrote, without holding it; `None` when nobody does, or when
/// it was killed and its note stayed: whoever reads it judges that.
pub fn holder(path: &Path) -> Option<String> {
    let mut options = write::options(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let mut file = options.read(true).open(path).ok()?;
    Some(note_of(&mut file)).filter(|note| !note.is_empty())
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Nobody is to read that we hold it when we do not. The file stays: another process may
        // have opened it already, and two files of one name would be two locks.
        let _ = self.file.set_len(0);
    }
}

fn note_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(MAX_NOTE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn write_failed(path: &Path) -> impl Fn(std::io::Error) -> PrivateError {
    PrivateError::io(path, "written")
}
