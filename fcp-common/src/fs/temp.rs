//! Temporary files: beside the final name, private, and gone when nobody wants them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fcp_proto::path::Name;
use rustix::io::Errno;

use super::dir::Dir;
use super::file::File;
use super::sys;
pub use crate::journal::names::{RunId, is_reserved};

/// Owner only, until `publish` sets the final mode.
pub(crate) const PRIVATE: u32 = 0o600;

/// Names in one directory that exist already and that we step over before we give up.
///
/// The run id is random, so one collision is already somebody's doing.
const TRIES: usize = 128;

/// Makes the temp names of one run. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct TempNames {
    run: RunId,
    counter: AtomicU64,
}

impl TempNames {
    /// The names of this run, from counter 0.
    pub fn new(run: RunId) -> TempNames {
        TempNames { run, counter: AtomicU64::new(0) }
    }

    /// The run whose names these are.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// A name that this run has not used yet.
    pub fn next(&self) -> Name {
        self.run.temp_name(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates an empty temp (0600) in `dir`, under a name that nothing had.
    ///
    /// A journal that shall clean it up after a crash must know `dir` before.
    pub fn create(&self, dir: &Arc<Dir>) -> io::Result<Temp> {
        let (name, file) = self.try_names(|name| dir.create_new(name, PRIVATE))?;
        Ok(Temp { file, entry: TempEntry::new(Arc::clone(dir), name) })
    }

    /// Creates a symlink that holds `target` under a temp name.
    pub(super) fn create_symlink(&self, dir: &Arc<Dir>, target: &[u8]) -> io::Result<TempEntry> {
        let (name, ()) = self.try_names(|name| dir.symlink(target, name))?;
        Ok(TempEntry::new(Arc::clone(dir), name))
    }

    fn try_names<T>(&self, create: impl Fn(&Name) -> io::Result<T>) -> io::Result<(Name, T)> {
        let mut tries = 1;
        loop {
            let name = self.next();
            match create(&name) {
                Err(error) if sys::is(&error, Errno::EXIST) && tries < TRIES => tries += 1,
                done => return done.map(|made| (name, made)),
            }
        }
    }
}

/// An open temp file; unlinked when dropped, unless it was kept or published.
#[derive(Debug)]
pub struct Temp {
    file: File,
    entry: TempEntry,
}

impl Temp {
    /// Takes over a temp that exists already under `name`.
    pub(crate) fn adopted(file: File, name: Name, dir: Arc<Dir>) -> Temp {
        Temp { file, entry: TempEntry::new(dir, name) }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its name in [`Temp::dir`].
    pub fn name(&self) -> &Name {
        &self.entry.name
    }

    /// The directory that holds it.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.entry.dir
    }

    /// Leaves the file where it is, for a later run to resume.
    pub fn keep(mut self) {
        self.entry.armed = false;
    }

    pub(super) fn into_entry(self) -> TempEntry {
        self.entry
    }
}

/// A temp name in a directory; what has it is unlinked on drop, unless it was renamed away.
#[derive(Debug)]
pub(super) struct TempEntry {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Name,
    armed: bool,
}

impl TempEntry {
    fn new(dir: Arc<Dir>, name: Name) -> TempEntry {
        TempEntry { dir, name, armed: true }
    }

    /// The name is gone: what it held has its final name now.
    pub(super) fn renamed(&mut self) {
        self.armed = false;
    }
}

impl Drop for TempEntry {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        match self.dir.unlink(&self.name) {
            Err(error) if !sys::is(&error, Errno::NOENT) => {
                tracing::warn!("cannot remove the temporary file {}: {error}", self.name);
            }
            _ => {}
        }
    }
}
