//! Places with files: folders of this machine and folders behind SFTP, by one set of calls.
//!
//! A [`Location`] is a base directory and what can be done below it; what its file system or server
//! can do besides is told as data ([`Capabilities`]). [`copy`] takes one file from one to another.
//! Nothing here knows of jobs or of the command line.

mod clock;
pub mod copy;
mod entry;
mod error;
#[cfg(test)]
pub mod faulty;
pub mod local;
pub mod sftp;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use bytes::Bytes;
use fcp_proto::path::RelPath;

pub use entry::{Capabilities, Clock, Digest, DigestKind, Entry, Listing, Meta, Refused, SetMeta};
pub use error::{LocationError, Op, Reason};

/// What calls here answer.
pub type Result<T> = std::result::Result<T, LocationError>;

/// A base directory and the way to it. Clones share connections.
#[derive(Clone, Debug)]
pub enum Location {
    /// A folder of this machine.
    Local(local::Local),
    /// A folder behind an SFTP server.
    Sftp(sftp::Sftp),
    /// Another location whose calls fail as a test wants it.
    #[cfg(test)]
    Faulty(faulty::Faulty),
}

/// A file open for reading. Dropping it closes it.
#[derive(Debug)]
pub enum Source {
    /// Of this machine.
    Local(local::LocalSource),
    /// Of an SFTP server.
    Sftp(sftp::SftpSource),
}

/// A file open for writing at any offset, for reading back, too. Dropping it closes it; only
/// [`Sink::close`] tells whether everything arrived.
#[derive(Debug)]
pub enum Sink {
    /// Of this machine.
    Local(local::LocalSink),
    /// Of an SFTP server.
    Sftp(sftp::SftpSink),
}

/// Content on its way into a [`Sink`]: what several of them write goes over several connections,
/// where there are any.
#[derive(Debug)]
pub enum Writer<'a> {
    /// Of this machine.
    Local(&'a local::LocalSink),
    /// Of an SFTP server.
    Sftp(sftp::SftpWriter),
}

/// Content on its way out of a [`Source`] or [`Sink`].
#[derive(Debug)]
pub enum Pieces {
    /// From this machine.
    Local(local::LocalPieces),
    /// From an SFTP server.
    Sftp(sftp::SftpPieces),
}

/// Does the same call on whichever variant it is.
macro_rules! each {
    (Location, $self:expr, $it:ident => $call:expr) => {
        match $self {
            Location::Local($it) => $call,
            Location::Sftp($it) => $call,
            #[cfg(test)]
            Location::Faulty($it) => $call,
        }
    };
    ($enum:ident, $self:expr, $it:ident => $call:expr) => {
        match $self {
            $enum::Local($it) => $call,
            $enum::Sftp($it) => $call,
        }
    };
}

impl Location {
    /// What its file system or server can do.
    pub fn capabilities(&self) -> Capabilities {
        each!(Location, self, it => it.capabilities())
    }

    /// How errors and logs call the place, e.g. `sftp user@host:22/base`; never with a secret.
    pub fn name(&self) -> &str {
        each!(Location, self, it => it.name())
    }

    /// The entries of a directory, symlinks not followed, in no order.
    ///
    /// # Errors
    /// [`Reason::NotFound`], [`Reason::NotDirectory`] (also a symlink to one), and whatever ends a
    /// listing early: half a listing is never given for a whole one.
    pub async fn list(&self, dir: &RelPath) -> Result<Listing> {
        each!(Location, self, it => it.list(dir).await)
    }

    /// What has this name now, links not followed; `None` when nothing has.
    ///
    /// # Errors
    /// Whatever else keeps us from knowing.
    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        each!(Location, self, it => it.stat(path).await)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`Reason::NotFound`]; [`Reason::NotFile`] for anything but a regular file.
    pub async fn open(&self, path: &RelPath) -> Result<Source> {
        match self {
            Location::Local(it) => it.open(path).await.map(Source::Local),
            Location::Sftp(it) => it.open(path).await.map(Source::Sftp),
            #[cfg(test)]
            Location::Faulty(it) => it.open(path).await,
        }
    }

    /// Creates an empty file that nobody else may read (0600).
    ///
    /// # Errors
    /// [`Reason::Exists`] when anything has the name.
    pub async fn create(&self, path: &RelPath) -> Result<Sink> {
        match self {
            Location::Local(it) => it.create(path).await.map(Sink::Local),
            Location::Sftp(it) => it.create(path).await.map(Sink::Sftp),
            #[cfg(test)]
            Location::Faulty(it) => it.create(path).await,
        }
    }

    /// Opens an existing regular file for going on with it.
    ///
    /// # Errors
    /// As [`Location::open`].
    pub async fn reopen(&self, path: &RelPath) -> Result<Sink> {
        match self {
            Location::Local(it) => it.reopen(path).await.map(Sink::Local),
            Location::Sftp(it) => it.reopen(path).await.map(Sink::Sftp),
            #[cfg(test)]
            Location::Faulty(it) => it.reopen(path).await,
        }
    }

    /// The whole content of a small file of `size` bytes as listed, and what it is now, in as few
    /// round trips as the place needs.
    ///
    /// # Errors
    /// As [`Location::open`]; [`Reason::Changed`] when it is not `size` bytes long.
    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        each!(Location, self, it => it.read_small(path, size).await)
    }

    /// Creates a file (0600, [`Reason::Exists`] when anything has the name) with this content,
    /// sets its metadata and, if `durable`, syncs it; in as few round trips as the place needs. Tells
    /// what it is then, if the place does.
    ///
    /// # Errors
    /// As [`Location::create`]; what was created stays for the caller to remove.
    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<Option<Meta>> {
        each!(Location, self, it => it.write_small(path, content, meta, durable).await)
    }

    /// Renames, and never onto something that exists.
    ///
    /// # Errors
    /// [`Reason::Exists`].
    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        each!(Location, self, it => it.rename_new(from, to).await)
    }

    /// Renames onto whatever file has the name. Where the place cannot do that in one step, the old
    /// file is set aside under a name that [`Location::recover_replace`] understands, so that at
    /// every moment at least one of both is there.
    ///
    /// # Errors
    /// [`Reason::IsDirectory`] and others; the old file is at its place then.
    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        each!(Location, self, it => it.replace(from, to).await)
    }

    /// Finishes or takes back a [`Location::replace`] onto `to` that was cut short.
    ///
    /// # Errors
    /// Whatever keeps us from knowing.
    pub async fn recover_replace(&self, to: &RelPath) -> Result<()> {
        each!(Location, self, it => it.recover_replace(to).await)
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// [`Reason::NotFound`] and others.
    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        each!(Location, self, it => it.remove(path).await)
    }

    /// Makes a directory and those above it, below the base; what is there already stays.
    ///
    /// # Errors
    /// [`Reason::NotDirectory`] when something else has a name.
    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        each!(Location, self, it => it.make_dirs(dir).await)
    }

    /// Sets mode and time of what has the name.
    ///
    /// # Errors
    /// The system's.
    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        each!(Location, self, it => it.set_meta(path, meta).await)
    }

    /// Makes the names in a directory durable; `false` where the place cannot promise that.
    ///
    /// # Errors
    /// The system's.
    pub async fn sync_dir(&self, dir: &RelPath) -> Result<bool> {
        each!(Location, self, it => it.sync_dir(dir).await)
    }

    /// How the place's clock differs from ours, measured; `dir` is where a probe file may be made
    /// for a moment.
    ///
    /// # Errors
    /// Only what breaks the connection; a clock that cannot be measured is [`Clock::Unknown`].
    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        each!(Location, self, it => it.clock(dir).await)
    }

    /// The digest of a file as the place itself finds it, by the first of `kinds` that it can do;
    /// `None` where it can do none without sending the content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn digest(&self, path: &RelPath, kinds: &[DigestKind]) -> Result<Option<Digest>> {
        each!(Location, self, it => it.digest(path, kinds).await)
    }

    /// What a symlink holds.
    ///
    /// # Errors
    /// [`Reason::NotFound`] and others.
    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        each!(Location, self, it => it.read_link(path).await)
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// [`Reason::Exists`].
    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        each!(Location, self, it => it.symlink(content, path).await)
    }

    /// How many bytes there is room for; `None` where the place does not tell.
    ///
    /// # Errors
    /// The system's.
    pub async fn free_bytes(&self) -> Result<Option<u64>> {
        each!(Location, self, it => it.free_bytes().await)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Reason::NotEmpty`] and others.
    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        each!(Location, self, it => it.remove_dir(path).await)
    }
}

impl Source {
    /// What the open file is now.
    ///
    /// # Errors
    /// The system's.
    pub async fn stat(&self) -> Result<Meta> {
        each!(Source, self, it => it.stat().await)
    }

    /// The content of a range in order, in pieces of at most 1 MiB, with many on their way. What is not taken is not asked for: the reader is the back-pressure.
    pub fn read_range(&self, range: std::ops::Range<u64>) -> Pieces {
        match self {
            Source::Local(it) => Pieces::Local(it.read_range(range)),
            Source::Sftp(it) => Pieces::Sftp(it.read_range(range)),
        }
    }
}

impl Pieces {
    /// The next piece and its offset in the file; `None` once the range is complete.
    ///
    /// # Errors
    /// [`Reason::Changed`] when the file ends before the range does.
    pub async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        each!(Pieces, self, it => it.next().await)
    }
}

impl Writer<'_> {
    /// Another one the same way in, which is settled by itself.
    pub fn again(&self) -> Self {
        match self {
            Writer::Local(it) => Writer::Local(it),
            Writer::Sftp(it) => Writer::Sftp(it.again()),
        }
    }

    /// Queues content for an offset. It is on its way, not written: see [`Writer::settle`]. Waits
    /// while too much is on its way.
    ///
    /// # Errors
    /// Of this or an earlier write of this writer.
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        match self {
            Writer::Local(it) => it.write_at(offset, content).await,
            Writer::Sftp(it) => it.write_at(offset, content).await,
        }
    }

    /// Waits until everything that this writer queued is written.
    ///
    /// # Errors
    /// Of any of its writes.
    pub async fn settle(&self) -> Result<()> {
        match self {
            Writer::Local(it) => it.settle().await,
            Writer::Sftp(it) => it.settle().await,
        }
    }
}

impl Sink {
    /// A way in of its own, to be settled before the sink is closed.
    pub async fn writer(&self) -> Writer<'_> {
        match self {
            Sink::Local(it) => Writer::Local(it),
            Sink::Sftp(it) => Writer::Sftp(it.writer().await),
        }
    }

    /// Queues content for an offset. It is on its way, not written: see [`Sink::settle`]. Waits
    /// while too much is on its way.
    ///
    /// # Errors
    /// Of this or an earlier write.
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        each!(Sink, self, it => it.write_at(offset, content).await)
    }

    /// Waits until everything queued is written.
    ///
    /// # Errors
    /// Of any write.
    pub async fn settle(&self) -> Result<()> {
        each!(Sink, self, it => it.settle().await)
    }

    /// Reads back what is written, as [`Source::read_range`].
    pub fn read_back(&self, range: std::ops::Range<u64>) -> Pieces {
        match self {
            Sink::Local(it) => Pieces::Local(it.read_back(range)),
            Sink::Sftp(it) => Pieces::Sftp(it.read_back(range)),
        }
    }

    /// What the open file is now.
    ///
    /// # Errors
    /// The system's.
    pub async fn stat(&self) -> Result<Meta> {
        each!(Sink, self, it => it.stat().await)
    }

    /// Settles, cuts or extends to `size`, sets metadata, syncs if `durable`, closes. Tells what the
    /// open file was then, if the place does.
    ///
    /// # Errors
    /// [`Reason::NotDurable`] where `durable` was asked and the place cannot promise it;
    /// [`Reason::Changed`] when the place then tells another length.
    pub async fn close(self, size: u64, meta: SetMeta, durable: bool) -> Result<Option<Meta>> {
        each!(Sink, self, it => it.close(size, meta, durable).await)
    }
}

/// How long a place may say nothing before what we wait for has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
