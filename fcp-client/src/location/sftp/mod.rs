//! Folders behind an SFTP server.
//!
//! `wire` is what the bytes mean, `session` one conversation with many requests on their way,
//! [`dial`] how a connection comes about, [`pool`] how many there are. What is here asks them for
//! what a [`super::Location`] can do.

mod base;
mod clock;
pub mod dial;
mod digest;
mod error;
mod files;
mod lanes;
mod names;
#[cfg(all(test, feature = "sftp"))]
mod over_sshd;
pub mod pool;
mod rename;
pub mod session;
mod small;
mod spot;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fcp_proto::path::{RelPath, escape};

pub use files::{SftpPieces, SftpSink, SftpSource, SftpWriter};

use crate::location::{
    Capabilities, Clock, Digest, DigestKind, Listing, Meta, Op, Result, SetMeta,
};
use dial::Login;
use pool::{Pool, PoolOptions};
use session::Session;
use spot::Spot;
use wire::{Extensions, extension};

/// A base directory behind SFTP. Clones share connections.
#[derive(Clone, Debug)]
pub struct Sftp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool<Session>,
    name: Arc<str>,
    /// Absolute, without a slash at its end; `/` alone is empty.
    base: Vec<u8>,
    can: Can,
    lanes: usize,
    tools: digest::Tools,
    attrs_refused: std::sync::Once,
}

/// What the server announced.
#[derive(Clone, Copy, Debug)]
struct Can {
    fsync: bool,
    replace: bool,
    /// A plain rename never replaces anything.
    strict_rename: bool,
    check_file: bool,
}

/// How a server is used.
#[derive(Clone, Copy, Debug)]
pub struct SftpOptions {
    /// Connections and sessions in all.
    pub pool: PoolOptions,
    /// Most sessions for one file; at least 1.
    pub lanes: usize,
    /// Make the base directory where it is not there.
    pub make_base: bool,
}

impl Sftp {
    /// Connects, logs in and finds the directory `base`: absolute, or from where the account
    /// begins, or with `~`.
    ///
    /// # Errors
    /// Those of [`dial::dial`]; `Reason::NotFound` and `Reason::NotDirectory`.
    pub async fn connect(login: Login, base: &[u8], options: SftpOptions) -> Result<Sftp> {
        let name = login.name();
        Sftp::over(Pool::new(login, options.pool), &name, base, options).await
    }

    /// As [`Sftp::connect`], with sessions that others may use, too. `name` is what errors call the
    /// server.
    ///
    /// # Errors
    /// As [`Sftp::connect`].
    pub async fn over(
        pool: Pool<Session>,
        name: &str,
        base: &[u8],
        options: SftpOptions,
    ) -> Result<Sftp> {
        let lease = pool.share().await?;
        let can = Can::of(lease.extensions());
        let base = base::resolve(&lease, name, base, options.make_base).await?;
        drop(lease);
        let name =
            if base.is_empty() { format!("{name}/") } else { name.to_owned() + &escape(&base) };
        let inner = Inner {
            pool,
            name: name.into(),
            base,
            can,
            lanes: options.lanes.max(1),
            tools: digest::Tools::default(),
            attrs_refused: std::sync::Once::new(),
        };
        Ok(Sftp { inner: Arc::new(inner) })
    }

    /// As [`super::Location::capabilities`].
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtime_grain: Duration::from_secs(1),
            replaces: self.inner.can.replace,
            durable: self.inner.can.fsync,
            symlinks: true,
            near: false,
        }
    }

    /// As [`super::Location::name`].
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// As [`super::Location::list`].
    pub async fn list(&self, dir: &RelPath) -> Result<Listing> {
        names::list(&self.spot(dir).await?).await
    }

    /// As [`super::Location::stat`].
    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        self.spot(path).await?.stat().await
    }

    /// As [`super::Location::open`].
    pub async fn open(&self, path: &RelPath) -> Result<SftpSource> {
        files::open(self, path).await
    }

    /// As [`super::Location::create`].
    pub async fn create(&self, path: &RelPath) -> Result<SftpSink> {
        files::create(self, path).await
    }

    /// As [`super::Location::reopen`].
    pub async fn reopen(&self, path: &RelPath) -> Result<SftpSink> {
        files::reopen(self, path).await
    }

    /// As [`super::Location::read_small`].
    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        small::read(&self.crowd_spot(path).await?, size).await
    }

    /// As [`super::Location::write_small`].
    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<Option<Meta>> {
        small::write(&self.crowd_spot(path).await?, content, meta, durable).await
    }

    /// As [`super::Location::rename_new`].
    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        rename::rename_new(&self.spot(from).await?, to).await
    }

    /// As [`super::Location::replace`].
    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        rename::replace(&self.spot(from).await?, to).await
    }

    /// As [`super::Location::recover_replace`].
    pub async fn recover_replace(&self, to: &RelPath) -> Result<()> {
        rename::recover(&self.spot(to).await?).await
    }

    /// As [`super::Location::remove`].
    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        names::remove(&self.spot(path).await?).await
    }

    /// As [`super::Location::free_bytes`]: the server refuses what it has no room for.
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn free_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// As [`super::Location::make_dirs`].
    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        names::make_dirs(&self.spot(dir).await?).await
    }

    /// As [`super::Location::set_meta`].
    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        names::set_meta(&self.spot(path).await?, meta).await
    }

    /// As [`super::Location::sync_dir`]: SFTP has no call for that.
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn sync_dir(&self, _dir: &RelPath) -> Result<bool> {
        Ok(false)
    }

    /// As [`super::Location::clock`].
    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        clock::measure(self, dir).await
    }

    /// As [`super::Location::digest`].
    pub async fn digest(&self, path: &RelPath, kinds: &[DigestKind]) -> Result<Option<Digest>> {
        digest::find(&self.spot(path).await?, kinds).await
    }

    /// As [`super::Location::read_link`].
    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        let spot = self.spot(path).await?;
        let read = spot.session().read_link(&spot.full).await;
        spot.told(Op::ReadLink, read).await.map(|content| content.to_vec())
    }

    /// As [`super::Location::symlink`].
    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        let spot = self.spot(path).await?;
        let made = spot.session().symlink(content, &spot.full).await;
        spot.told_of_new(Op::Symlink, made).await
    }

    /// As [`super::Location::remove_dir`].
    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        names::remove_dir(&self.spot(path).await?).await
    }

    /// A name, and the session that has least to do.
    async fn spot<'a>(&'a self, path: &'a RelPath) -> Result<Spot<'a>> {
        Ok(Spot { sftp: self, path, full: self.full(path), lease: self.inner.pool.share().await? })
    }

    /// A name, and a session of its own while there are enough: for large content.
    async fn wide_spot<'a>(&'a self, path: &'a RelPath) -> Result<Spot<'a>> {
        let lease = self.inner.pool.acquire().await?;
        Ok(Spot { sftp: self, path, full: self.full(path), lease })
    }

    /// A name, and a session that is not crowded: for small files, of which many are on their way
    /// at a time.
    async fn crowd_spot<'a>(&'a self, path: &'a RelPath) -> Result<Spot<'a>> {
        let lease = self.inner.pool.crowd().await?;
        Ok(Spot { sftp: self, path, full: self.full(path), lease })
    }

    fn full(&self, path: &RelPath) -> Vec<u8> {
        match (self.inner.base.is_empty(), path.is_root()) {
            (true, true) => b"/".to_vec(),
            (false, true) => self.inner.base.clone(),
            _ => [&self.inner.base[..], b"/", path.as_bytes()].concat(),
        }
    }
}

impl Can {
    fn of(extensions: &Extensions) -> Can {
        let has = |name| extensions.has(name);
        Can {
            fsync: has(extension::FSYNC),
            replace: has(extension::POSIX_RENAME),
            // Other servers announce some of these. OpenSSH alone has all of them, or the last one,
            // and its plain rename links and unlinks, so that it cannot replace anything.
            strict_rename: has(extension::LSETSTAT)
                || (has(extension::FSYNC)
                    && has(extension::HARDLINK)
                    && has("fstatvfs@openssh.com")),
            check_file: [
                extension::CHECK_FILE,
                extension::CHECK_FILE_NAME,
                extension::CHECK_FILE_HANDLE,
            ]
            .into_iter()
            .any(has),
        }
    }
}
