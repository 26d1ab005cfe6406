//! Writing a file that nobody else can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::dir;
use super::error::PrivateError;
use super::read::{Rule, contents, text};

/// Makes the file `path` with these contents, and its directory if that is missing; it is all
/// there or not at all. Of several that do this at once, one succeeds.
///
/// # Errors
/// It cannot be written; of kind `AlreadyExists` when it is there.
pub fn create(path: &Path, contents: &[u8]) -> Result<(), PrivateError> {
    dir::make(dir::of(path))?;
    let written = put(&temp_beside(path), path, contents, publish_new);
    written.map_err(PrivateError::io(path, "written"))
}

/// Adds to the text file `path`, which is made if it is missing, what `more` makes of its text.
/// Whoever else does this waits meanwhile.
///
/// # Errors
/// It is not as `rule` has it, it cannot be written, or `more` fails.
pub fn append<E: From<PrivateError>>(
    path: &Path,
    rule: &Rule,
    more: impl FnOnce(&str) -> Result<String, E>,
) -> Result<(), E> {
    dir::make(dir::of(path))?;
    let failed = |error: io::Error| PrivateError::io(path, "written")(error);
    // A fifo must not keep us waiting for its other end.
    let mut options = options(OFlags::NONBLOCK);
    let file = options.read(true).append(true).create(true).open(path);
    let mut file = file.map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    let added = more(&text(contents(&file, path, rule)?.bytes, path)?)?;
    // One write, so that nobody reads half of it.
    file.write_all(added.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(())
}

/// Writes `temp`, has `publish` call it `path`, and makes both last.
pub(super) fn put(
    temp: &Path,
    path: &Path,
    contents: &[u8],
    publish: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let done = write_new(temp, contents).and_then(|()| publish(temp, path));
    if done.is_err() {
        // Half of a secret, or one that nobody uses.
        dir::remove(temp);
    }
    done?;
    File::open(dir::of(path))?.sync_all()
}

/// For a file that, if it is made, nobody else can open.
pub(super) fn options(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(flags.bits() as i32);
    options
}

fn write_new(temp: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = options(OFlags::NOFOLLOW).write(true).create_new(true).open(temp)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn publish_new(temp: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
        // The file system cannot: a link fails as well when the name is taken.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(temp, path)?;
            fs::remove_file(temp)
        }
        done => Ok(done?),
    }
}

fn temp_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    name.into()
}
