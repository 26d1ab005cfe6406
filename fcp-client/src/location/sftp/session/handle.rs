//! An open file or directory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fcp_proto::path::escape;

use super::pending::Pending;
use super::range::{RangeReader, RangeWriter};
use super::waiter::Expect;
use super::{Result, Session, SessionError, SftpOp};
use crate::location::sftp::wire::{
    Attrs, CheckFile, Extension, MAX_HANDLE, NameEntry, Request, extension,
};

/// An open file or directory. Clones are the same; the last one that is dropped closes it, and
/// whether that went well only [`Handle::close`] tells.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Open>,
    path: Bytes,
}

struct Open {
    session: Session,
    id: Box<[u8]>,
    closed: AtomicBool,
}

impl Handle {
    /// A handle that the server gave.
    pub(super) fn new(session: Session, id: &[u8]) -> Self {
        debug_assert!(id.len() <= MAX_HANDLE);
        // Copied: a slice would keep the whole read buffer.
        let open = Open { session, id: id.into(), closed: AtomicBool::new(false) };
        Handle { inner: Arc::new(open), path: Bytes::new() }
    }

    pub(super) fn named(self, path: &[u8]) -> Self {
        Handle { path: Bytes::copy_from_slice(path), ..self }
    }

    /// What was opened.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.inner.session
    }

    /// Closes it and tells how that went. Other clones are of no use from then on.
    ///
    /// # Errors
    /// The server's: what was written may be lost then.
    pub async fn close(self) -> Result<()> {
        self.ask_close()?.done(&self.path).await
    }

    /// What the open file is now.
    ///
    /// # Errors
    /// The server's.
    pub async fn stat(&self) -> Result<Attrs> {
        self.ask_stat()?.attrs(self.session(), &self.path).await
    }

    /// Sets what `attrs` has.
    ///
    /// # Errors
    /// The server's.
    pub async fn set_stat(&self, attrs: Attrs) -> Result<()> {
        self.ask_set_stat(attrs)?.done(&self.path).await
    }

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// The server's; [`SessionError::Unsupported`] without `fsync@openssh.com`.
    pub async fn fsync(&self) -> Result<()> {
        self.ask_fsync()?.done(&self.path).await
    }

    /// One READ of at most `len` bytes, fewer where the server gives fewer; `None` at the end.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Option<Bytes>> {
        let pending = self.ask_read(offset, len.clamp(1, self.session().limits().read))?;
        pending.data(self.session(), &self.path).await
    }

    /// Writes all of `data`, in as many WRITEs as it needs, one after the other. See
    /// [`Handle::write_range`] for many at a time.
    ///
    /// # Errors
    /// The server's.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let writer = self.write_range();
        writer.write_at(offset, data).await?;
        writer.settle().await
    }

    /// The content of a range, with many READs on their way.
    pub fn read_range(&self, range: std::ops::Range<u64>) -> RangeReader {
        RangeReader::new(self.clone(), range)
    }

    /// A writer with many WRITEs on their way.
    pub fn write_range(&self) -> RangeWriter {
        RangeWriter::new(self.clone())
    }

    /// One READDIR; `None` at the end. See [`Session::list`].
    ///
    /// # Errors
    /// The server's.
    pub async fn read_dir(&self) -> Result<Option<Vec<NameEntry>>> {
        self.ask_read_dir()?.names(self.session(), &self.path).await
    }

    /// Has the server copy `len` bytes (0: up to the end) from `offset` on into another open file.
    ///
    /// # Errors
    /// The server's; [`SessionError::Unsupported`] without `copy-data`, or when `to` belongs to
    /// another session.
    pub async fn copy_data(
        &self,
        (offset, len): (u64, u64),
        to: &Handle,
        to_offset: u64,
    ) -> Result<()> {
        self.session().needs(extension::COPY_DATA, "the server has no copy-data")?;
        if !Arc::ptr_eq(&self.session().inner, &to.session().inner) {
            return Err(SessionError::Unsupported("copy-data between two sessions"));
        }
        let (from, to) = (self.id()?, to.id()?);
        let copy = Extension::CopyData { from, offset, len, to, to_offset };
        let request = Request::Extended(copy);
        self.ask(SftpOp::CopyData, Expect::Status, request)?.done(&self.path).await
    }

    /// As [`Session::check_file`], of the open file.
    ///
    /// # Errors
    /// The server's; [`SessionError::Unsupported`] without `check-file`.
    pub async fn check_file(
        &self,
        algorithms: &[u8],
        (offset, len): (u64, u64),
        block: u32,
    ) -> Result<CheckFile> {
        self.session().needs_check_file(extension::CHECK_FILE_HANDLE)?;
        let handle = self.id()?;
        let check = Extension::CheckFileHandle { handle, algorithms, offset, len, block };
        let pending = self.ask(SftpOp::CheckFile, Expect::Extended, Request::Extended(check))?;
        let body = pending.body(self.session(), &self.path).await?;
        CheckFile::decode(&body).map_err(|e| self.session().bad_body(SftpOp::CheckFile, e))
    }

    pub(super) fn ask_close(&self) -> Result<Pending> {
        let handle = self.id()?;
        self.inner.closed.store(true, Ordering::Release);
        self.ask(SftpOp::Close, Expect::Status, Request::Close { handle })
    }

    pub(super) fn ask_stat(&self) -> Result<Pending> {
        self.ask(SftpOp::Stat, Expect::Attrs, Request::Fstat { handle: self.id()? })
    }

    pub(super) fn ask_set_stat(&self, attrs: Attrs) -> Result<Pending> {
        let request = Request::Fsetstat { handle: self.id()?, attrs };
        self.ask(SftpOp::SetStat, Expect::Status, request)
    }

    pub(super) fn ask_fsync(&self) -> Result<Pending> {
        self.needs_fsync()?;
        let request = Request::Extended(Extension::Fsync { handle: self.id()? });
        self.ask(SftpOp::Fsync, Expect::Status, request)
    }

    pub(super) fn needs_fsync(&self) -> Result<()> {
        self.session().needs(extension::FSYNC, "the server has no fsync@openssh.com")
    }

    pub(super) fn ask_read(&self, offset: u64, len: u32) -> Result<Pending> {
        let request = Request::Read { handle: self.id()?, offset, len };
        self.ask(SftpOp::Read, Expect::Data(len), request)
    }

    pub(super) fn ask_read_dir(&self) -> Result<Pending> {
        self.ask(SftpOp::ReadDir, Expect::Name, Request::Readdir { handle: self.id()? })
    }

    fn ask(&self, op: SftpOp, expect: Expect, request: Request<'_>) -> Result<Pending> {
        self.session().ask(op, expect, request)
    }

    /// The server's name for it. A server may give that to another file once this one is closed, so
    /// nothing is asked of it from then on.
    pub(super) fn id(&self) -> Result<&[u8]> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(SessionError::Unsupported("the file was closed already"));
        }
        Ok(&self.inner.id)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Acquire) {
            // Nobody is left to be told how it went.
            let close = Request::Close { handle: &self.id };
            let _ = self.session.ask(SftpOp::Close, Expect::Status, close);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", escape(&self.path))
    }
}
