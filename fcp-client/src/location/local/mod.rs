//! Folders of this machine.

mod clock;
mod dirs;
mod error;
mod file;
mod open;
mod small;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fcp_common::fs::{Dir, DirEntry, Kind, Stat};
use fcp_proto::path::{Name, RelPath};

pub use file::{LocalPieces, LocalSink, LocalSource};

use crate::location::{
    Capabilities, Clock, Digest, DigestKind, Entry, Listing, LocationError, Meta, Op, Refused,
    Result, SetMeta,
};

/// What a directory of ours is created with, less the umask.
const DIR_MODE: u32 = 0o777;
/// FAT counts modification times in steps of this.
const FAT_GRAIN: Duration = Duration::from_secs(2);

/// A base directory, opened once: it stays the same one wherever it is moved. Symlinked
/// directories below it are followed while they stay below it.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: Dir,
    name: Arc<str>,
    dirs: dirs::Dirs,
    /// All content is in memory.
    memory: bool,
    /// A call may wait for another machine.
    far: bool,
    grain: Duration,
}

impl Local {
    /// The folder `path`, which must be there, as it was typed.
    ///
    /// # Errors
    /// [`Reason::NotFound`](crate::location::Reason::NotFound) and others.
    pub fn new(path: &Path) -> Result<Local> {
        let name = open::name_of(path);
        match Dir::open_user(path) {
            Ok(base) => Ok(Local::over(base, name)),
            Err(error) => Err(error::failed(&name, Op::Open, b"", &error)),
        }
    }

    /// The folder `path`, made with those above it where it is not there.
    ///
    /// # Errors
    /// As [`Local::new`].
    pub fn make(path: &Path) -> Result<Local> {
        let name = open::name_of(path);
        match open::open_or_make(path, DIR_MODE) {
            Ok(base) => Ok(Local::over(base, name)),
            Err(error) => Err(error::failed(&name, Op::MakeDir, b"", &error)),
        }
    }

    fn over(base: Dir, name: Arc<str>) -> Local {
        let system = base.fs_magic().map_or(open::System::Near, open::System::of);
        let grain = if system == open::System::Fat { FAT_GRAIN } else { Duration::from_nanos(1) };
        let far = system == open::System::Far;
        let (dirs, memory) = (dirs::Dirs::default(), system == open::System::Memory);
        Local { inner: Arc::new(Inner { base, name, dirs, memory, far, grain }) }
    }

    /// One that is treated as if it lay behind a network.
    #[cfg(test)]
    pub(crate) fn as_if_far(path: &Path) -> Local {
        let (name, grain) = (open::name_of(path), Duration::from_nanos(1));
        #[allow(clippy::unwrap_used)]
        let base = Dir::open_user(path).unwrap();
        let (dirs, memory) = (dirs::Dirs::default(), false);
        Local { inner: Arc::new(Inner { base, name, dirs, memory, far: true, grain }) }
    }

    /// As [`super::Location::capabilities`].
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtime_grain: self.inner.grain,
            replaces: true,
            durable: true,
            symlinks: true,
            near: true,
        }
    }

    /// As [`super::Location::name`].
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// As [`super::Location::list`].
    pub async fn list(&self, dir: &RelPath) -> Result<Listing> {
        let (inner, path) = (Arc::clone(&self.inner), dir.clone());
        let listed = off(move || list(&open_dir(&inner.base, &path)?)).await;
        listed.map_err(|error| self.failed(Op::List, dir, &error))
    }

    /// As [`super::Location::stat`].
    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        let stat = if path.is_root() {
            self.inner.base.own_stat().map(Some)
        } else {
            self.at_raw(path, |dir, name| dir.stat(name)).await
        };
        match stat {
            Ok(stat) => Ok(stat.map(Meta::from)),
            // A name below nothing is nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(Op::Stat, path, &error)),
        }
    }

    /// As [`super::Location::open`].
    pub async fn open(&self, path: &RelPath) -> Result<LocalSource> {
        let (file, _) = self.at(Op::Open, path, |dir, name| dir.open_file(name)).await?;
        Ok(LocalSource::new(file, self.label(path)))
    }

    /// As [`super::Location::create`].
    pub async fn create(&self, path: &RelPath) -> Result<LocalSink> {
        let file = self.at(Op::Create, path, |dir, name| dir.create_new(name, 0o600)).await?;
        Ok(LocalSink::new(file, self.label(path)))
    }

    /// As [`super::Location::reopen`].
    pub async fn reopen(&self, path: &RelPath) -> Result<LocalSink> {
        let (file, _) = self.at(Op::Open, path, |dir, name| dir.open_file_rw(name)).await?;
        Ok(LocalSink::new(file, self.label(path)))
    }

    /// As [`super::Location::read_small`].
    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        small::read(self, path, size).await
    }

    /// As [`super::Location::write_small`].
    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<Option<Meta>> {
        small::write(self, path, content, meta, durable).await
    }

    /// As [`super::Location::rename_new`].
    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let done = self.two(from, to, |a, from, b, to| a.rename_noreplace_to(from, b, to));
        done.await.map_err(|error| self.rename_failed(from, to, &error))
    }

    /// As [`super::Location::replace`].
    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let done = self.two(from, to, |a, from, b, to| a.rename_to(from, b, to));
        done.await.map_err(|error| self.rename_failed(from, to, &error))
    }

    /// As [`super::Location::recover_replace`]: a rename here is one step, so nothing is ever left.
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn recover_replace(&self, _to: &RelPath) -> Result<()> {
        Ok(())
    }

    /// As [`super::Location::remove`].
    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        self.at(Op::Remove, path, |dir, name| dir.unlink(name)).await
    }

    /// As [`super::Location::free_bytes`].
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn free_bytes(&self) -> Result<Option<u64>> {
        // A file system that does not tell has no say.
        Ok(self.inner.base.free_bytes().ok())
    }

    /// As [`super::Location::make_dirs`].
    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        let (inner, path) = (Arc::clone(&self.inner), dir.clone());
        let made = self.run(move || open::make_dirs(&inner.base, &path, DIR_MODE)).await;
        made.map_err(|error| self.failed(Op::MakeDir, dir, &error))
    }

    /// As [`super::Location::set_meta`].
    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        if path.is_root() {
            let base = &self.inner.base;
            let mode = meta.mode.map_or(Ok(()), |mode| base.set_own_mode(mode & 0o777));
            let done = mode.and_then(|()| meta.mtime.map_or(Ok(()), |t| base.set_own_mtime(t)));
            return done.map_err(|error| self.failed(Op::SetMeta, path, &error));
        }
        self.at(Op::SetMeta, path, move |dir, name| {
            if let Some(mode) = meta.mode {
                dir.set_mode(name, mode & 0o777)?;
            }
            meta.mtime.map_or(Ok(()), |mtime| dir.set_times(name, mtime))
        })
        .await
    }

    /// As [`super::Location::sync_dir`].
    pub async fn sync_dir(&self, dir: &RelPath) -> Result<bool> {
        let (inner, path) = (Arc::clone(&self.inner), dir.clone());
        let synced = off(move || inner.base.open_beneath(&path)?.sync()).await;
        synced.map(|()| true).map_err(|error| self.failed(Op::Sync, dir, &error))
    }

    /// As [`super::Location::clock`].
    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        clock::measure(self, dir).await
    }

    /// As [`super::Location::digest`]: content is near, whoever needs a digest reads it.
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn digest(&self, _path: &RelPath, _kinds: &[DigestKind]) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// As [`super::Location::read_link`].
    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        self.at(Op::ReadLink, path, |dir, name| dir.read_link(name)).await
    }

    /// As [`super::Location::symlink`].
    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        let content = content.to_vec();
        self.at(Op::Symlink, path, move |dir, name| dir.symlink(&content, name)).await
    }

    /// As [`super::Location::remove_dir`].
    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        self.at(Op::Remove, path, |dir, name| dir.rmdir(name)).await
    }

    /// Does something quick with one name.
    async fn at<T: Send + 'static>(
        &self,
        op: Op,
        path: &RelPath,
        work: impl FnOnce(&Dir, &Name) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.at_raw(path, work).await.map_err(|error| self.failed(op, path, &error))
    }

    async fn at_raw<T: Send + 'static>(
        &self,
        path: &RelPath,
        work: impl FnOnce(&Dir, &Name) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.run(move || {
            let spot = Spot::of(&inner.base, &path)?;
            work(&spot.dir, &spot.name)
        })
        .await
    }

    async fn two(
        &self,
        from: &RelPath,
        to: &RelPath,
        work: impl Fn(&Dir, &Name, &Dir, &Name) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (inner, from, to) = (Arc::clone(&self.inner), from.clone(), to.clone());
        self.run(move || {
            if let (Some((dir, _)), Some((same, to))) = (from.split_last(), to.split_last())
                && dir == same
            {
                return inner.work(&from, |dir, from| work(dir, from, dir, &to));
            }
            let from = Spot::of(&inner.base, &from)?;
            let to = Spot::of(&inner.base, &to).map_err(|error| match error.kind() {
                // Nothing is said of `from`, which somebody may think moved already.
                io::ErrorKind::NotFound => io::ErrorKind::NotADirectory.into(),
                _ => error,
            })?;
            work(&from.dir, &from.name, &to.dir, &to.name)
        })
        .await
    }

    /// Runs a few calls on names. They cost microseconds here, less than the way to another thread
    /// and back; behind a network they may wait for as long as a server likes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.inner.far { off(work).await } else { work() }
    }

    fn label(&self, path: &RelPath) -> error::Label {
        error::Label {
            place: Arc::clone(&self.inner.name),
            path: path.clone(),
            far: self.inner.far,
        }
    }

    fn failed(&self, op: Op, path: &RelPath, error: &io::Error) -> LocationError {
        error::failed(&self.inner.name, op, path.as_bytes(), error)
    }

    fn rename_failed(&self, from: &RelPath, to: &RelPath, error: &io::Error) -> LocationError {
        let mut failed = self.failed(Op::Rename, from, error);
        failed.path = format!("{from} to {to}");
        failed
    }
}

impl Inner {
    /// Does something with a name in a folder that may have been opened a moment ago. Behind a
    /// network nothing is kept: what is held open there may be stale.
    fn work<T>(
        &self,
        path: &RelPath,
        mut work: impl FnMut(&Dir, &Name) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.far {
            let spot = Spot::of(&self.base, path)?;
            return work(&spot.dir, &spot.name);
        }
        self.dirs.work(&self.base, path, work)
    }
}

/// A directory held open and a name in it.
struct Spot {
    dir: Dir,
    name: Name,
}

impl Spot {
    fn of(base: &Dir, path: &RelPath) -> io::Result<Spot> {
        let Some((parent, name)) = path.split_last() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not for the base folder"));
        };
        Ok(Spot { dir: open::beneath(base, &parent)?, name })
    }
}

/// Runs what may wait for a disk on a thread that may wait.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the work was stopped")),
    }
}

fn open_dir(base: &Dir, path: &RelPath) -> io::Result<Dir> {
    if path.is_root() {
        return base.open_beneath(path);
    }
    let spot = Spot::of(base, path)?;
    spot.dir.open_child_nofollow(&spot.name)
}

fn list(dir: &Dir) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in dir.entries()? {
        match entry? {
            DirEntry { name: Ok(name), .. } => {
                // What went away meanwhile was not there.
                if let Some(stat) = dir.stat(&name)? {
                    listing.entries.push(Entry { name, meta: stat.into() });
                }
            }
            DirEntry { name: Err(name), .. } => {
                listing.refused.push(Refused { name: name.into(), why: "not a file name" });
            }
        }
    }
    Ok(listing)
}

impl From<Stat> for Meta {
    fn from(stat: Stat) -> Meta {
        Meta {
            kind: stat.kind,
            size: if stat.kind == Kind::Dir { 0 } else { stat.size },
            mtime: Some(stat.mtime),
            mode: Some(stat.mode),
            id: Some((stat.dev, stat.ino)),
        }
    }
}
