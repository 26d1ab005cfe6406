//! A file that lines are added to, by several processes at the same time, and that is put aside
//! now and then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::error::{Fault, PrivateError};
use super::read::{foreign, is_ours};
use super::{dir, write};

/// The open file.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    id: (u64, u64),
    torn: bool,
}

impl Appender {
    /// Opens `path`, which is made for our user only if it is missing, as is its directory; a
    /// directory that is there is used as it is.
    ///
    /// # Errors
    /// It is a link, no regular file, somebody else's, or cannot be written.
    pub fn open(path: &Path) -> Result<Appender, PrivateError> {
        dir::make(dir::of(path))?;
        let failed = PrivateError::io(path, "written");
        // A fifo must not keep us waiting for its reader.
        let mut options = write::options(OFlags::NOFOLLOW | OFlags::NONBLOCK);
        let file = options.append(true).create(true).open(path).map_err(|error| {
            match error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
                true => PrivateError::new(path, Fault::Link),
                false => failed(error),
            }
        })?;
        let stat = file.metadata().map_err(&failed)?;
        match () {
            () if !stat.is_file() => Err(PrivateError::new(path, Fault::NotAFile)),
            () if !is_ours(&stat, false) => Err(PrivateError::new(path, foreign(&stat))),
            () => {
                let id = (stat.dev(), stat.ino());
                Ok(Appender { path: path.to_owned(), file, id, torn: false })
            }
        }
    }

    /// When it was last written to; `None` when nothing is in it.
    pub fn written(&self) -> Option<SystemTime> {
        let stat = self.file.metadata().ok().filter(|stat| stat.len() > 0)?;
        stat.modified().ok()
    }

    /// Whether the path still leads to it: another process may have put it aside.
    pub fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|stat| (stat.dev(), stat.ino()) == self.id)
    }

    /// Gives it the first of these names that is free, unless another process just did so.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn put_aside(self, names: impl Iterator<Item = PathBuf>) -> Result<(), PrivateError> {
        let failed = PrivateError::io(&self.path, "renamed");
        // Of several that want it, one finds it current.
        flock(&self.file, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        if !self.is_current() {
            return Ok(());
        }
        for name in names {
            match rename_new(&self.path, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done.map_err(&failed),
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Adds `line` and a line's end, in one write, so that lines of several processes do not mix.
    ///
    /// # Errors
    /// As the system gives them; half of the line may be there, and the next one begins afresh.
    pub fn line(&mut self, line: &str) -> Result<(), PrivateError> {
        let start = if self.torn { "\n" } else { "" };
        let whole = format!("{start}{line}\n");
        let done = self.file.write_all(whole.as_bytes());
        self.torn = done.is_err();
        done.map_err(PrivateError::io(&self.path, "written"))
    }
}

/// The names in `dir` and when each was last changed; nothing when it cannot be read.
pub fn names(dir: &Path) -> Vec<(OsString, SystemTime)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let seen = |entry: fs::DirEntry| {
        let stat = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((entry.file_name(), stat.modified().ok()?))
    };
    entries.filter_map(Result::ok).filter_map(seen).collect()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system cannot: a link fails as well when the name is taken.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
