//! The requests that need no handle: one call, one round trip.

use bytes::Bytes;

use super::handle::Handle;
use super::waiter::{Answer, Expect};
use super::{Result, Session, SessionError, SftpOp};
use crate::location::sftp::wire::{
    Attrs, CheckFile, Extension, OpenFlags, Reply, Request, StatVfs, extension,
};

impl Session {
    /// Opens a file; `attrs` count where it is created.
    ///
    /// # Errors
    /// The server's; [`SessionError::Unsupported`] for a path with NUL or of over 32 KiB.
    pub async fn open(&self, path: &[u8], flags: OpenFlags, attrs: Attrs) -> Result<Handle> {
        self.open_handle(SftpOp::Open, path, Request::Open { path, flags, attrs }).await
    }

    /// Opens a directory for [`Handle::read_dir`]. See [`Session::list`].
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_dir(&self, path: &[u8]) -> Result<Handle> {
        self.open_handle(SftpOp::OpenDir, path, Request::Opendir { path }).await
    }

    /// What has the name, links not followed.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn lstat(&self, path: &[u8]) -> Result<Attrs> {
        self.attrs(path, Request::Lstat { path }).await
    }

    /// What has the name, links followed.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn stat(&self, path: &[u8]) -> Result<Attrs> {
        self.attrs(path, Request::Stat { path }).await
    }

    /// Sets what `attrs` has, links followed.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn set_stat(&self, path: &[u8], attrs: Attrs) -> Result<()> {
        self.status(SftpOp::SetStat, path, Request::Setstat { path, attrs }).await
    }

    /// Sets what `attrs` has, links not followed.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `lsetstat@openssh.com`.
    pub async fn lset_stat(&self, path: &[u8], attrs: Attrs) -> Result<()> {
        self.needs(extension::LSETSTAT, "the server has no lsetstat@openssh.com")?;
        let request = Request::Extended(Extension::Lsetstat { path, attrs });
        self.status(SftpOp::SetStat, path, request).await
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn remove(&self, path: &[u8]) -> Result<()> {
        self.status(SftpOp::Remove, path, Request::Remove { path }).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Session::open`]; one that is there already is a plain failure in version 3.
    pub async fn make_dir(&self, path: &[u8], attrs: Attrs) -> Result<()> {
        self.status(SftpOp::MakeDir, path, Request::Mkdir { path, attrs }).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn remove_dir(&self, path: &[u8]) -> Result<()> {
        self.status(SftpOp::RemoveDir, path, Request::Rmdir { path }).await
    }

    /// The absolute path that the server makes of this one; of `.`, the directory it began in.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn real_path(&self, path: &[u8]) -> Result<Bytes> {
        self.one_name(SftpOp::RealPath, path, Request::Realpath { path }).await
    }

    /// As [`Session::real_path`], with `~` and `~user`.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `expand-path@openssh.com`.
    pub async fn expand_path(&self, path: &[u8]) -> Result<Bytes> {
        self.needs(extension::EXPAND_PATH, "the server has no expand-path@openssh.com")?;
        let request = Request::Extended(Extension::ExpandPath { path });
        self.one_name(SftpOp::RealPath, path, request).await
    }

    /// Renames. Most servers refuse when `to` exists; some replace it: ask first.
    ///
    /// # Errors
    /// As [`Session::open`]; `to` that exists is a plain failure in version 3.
    pub async fn rename(&self, from: &[u8], to: &[u8]) -> Result<()> {
        self.status_of_two(SftpOp::Rename, from, to, Request::Rename { from, to }).await
    }

    /// Renames onto whatever file has the name `to`, in one step.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `posix-rename@openssh.com`.
    pub async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Result<()> {
        self.needs(extension::POSIX_RENAME, "the server has no posix-rename@openssh.com")?;
        let request = Request::Extended(Extension::PosixRename { from, to });
        self.status_of_two(SftpOp::PosixRename, from, to, request).await
    }

    /// Gives a file a second name; fails where `to` exists.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `hardlink@openssh.com`.
    pub async fn hardlink(&self, from: &[u8], to: &[u8]) -> Result<()> {
        self.needs(extension::HARDLINK, "the server has no hardlink@openssh.com")?;
        let request = Request::Extended(Extension::Hardlink { from, to });
        self.status_of_two(SftpOp::Hardlink, from, to, request).await
    }

    /// Makes a symlink with the name `link` that holds `target`.
    ///
    /// # Errors
    /// As [`Session::open`]; a name that exists is a plain failure in version 3.
    pub async fn symlink(&self, target: &[u8], link: &[u8]) -> Result<()> {
        self.status_of_two(SftpOp::Symlink, target, link, Request::Symlink { target, link }).await
    }

    /// What a symlink holds.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn read_link(&self, path: &[u8]) -> Result<Bytes> {
        self.one_name(SftpOp::ReadLink, path, Request::Readlink { path }).await
    }

    /// How full the file system of `path` is.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `statvfs@openssh.com`.
    pub async fn stat_vfs(&self, path: &[u8]) -> Result<StatVfs> {
        self.needs(extension::STATVFS, "the server has no statvfs@openssh.com")?;
        let request = Request::Extended(Extension::StatVfs { path });
        let body = self.extended(SftpOp::StatVfs, path, request).await?;
        StatVfs::decode(&body).map_err(|error| self.bad_body(SftpOp::StatVfs, error))
    }

    /// Digests of a file's content, found by the server: of `len` bytes from `offset` on (0: up to
    /// its end), by the first of `algorithms` (names, comma between them) that it knows; of all of
    /// it (`block` 0) or of every `block` bytes.
    ///
    /// # Errors
    /// As [`Session::open`]; [`SessionError::Unsupported`] without `check-file`.
    pub async fn check_file(
        &self,
        path: &[u8],
        algorithms: &[u8],
        (offset, len): (u64, u64),
        block: u32,
    ) -> Result<CheckFile> {
        self.needs_check_file(extension::CHECK_FILE_NAME)?;
        let check = Extension::CheckFileName { path, algorithms, offset, len, block };
        let body = self.extended(SftpOp::CheckFile, path, Request::Extended(check)).await?;
        CheckFile::decode(&body).map_err(|error| self.bad_body(SftpOp::CheckFile, error))
    }

    async fn open_handle(&self, op: SftpOp, path: &[u8], request: Request<'_>) -> Result<Handle> {
        sendable(&[path])?;
        let id = self.ask(op, Expect::Handle, request)?.answer(path).await?;
        match id {
            Answer::Handle(handle) => Ok(handle.named(path)),
            Answer::Reply(other) => Err(self.unexpected(op, &other)),
        }
    }

    async fn attrs(&self, path: &[u8], request: Request<'_>) -> Result<Attrs> {
        sendable(&[path])?;
        self.ask(SftpOp::Stat, Expect::Attrs, request)?.attrs(self, path).await
    }

    async fn status(&self, op: SftpOp, path: &[u8], request: Request<'_>) -> Result<()> {
        sendable(&[path])?;
        self.ask(op, Expect::Status, request)?.done(path).await
    }

    async fn status_of_two(
        &self,
        op: SftpOp,
        from: &[u8],
        to: &[u8],
        request: Request<'_>,
    ) -> Result<()> {
        sendable(&[from, to])?;
        self.ask(op, Expect::Status, request)?.done(&[from, b" -> ", to].concat()).await
    }

    async fn one_name(&self, op: SftpOp, path: &[u8], request: Request<'_>) -> Result<Bytes> {
        sendable(&[path])?;
        match self.ask(op, Expect::Name, request)?.reply(path).await? {
            Reply::Name(names) if names.len() == 1 => {
                Ok(names.into_iter().next().map(|entry| entry.name).unwrap_or_default())
            }
            Reply::Name(names) => {
                Err(self.protocol(format!("{} names in answer to {op}", names.len())))
            }
            other => Err(self.unexpected(op, &other)),
        }
    }

    async fn extended(&self, op: SftpOp, path: &[u8], request: Request<'_>) -> Result<Bytes> {
        sendable(&[path])?;
        self.ask(op, Expect::Extended, request)?.body(self, path).await
    }

    pub(super) fn needs(&self, name: &str, missing: &'static str) -> Result<()> {
        if self.extensions().has(name) { Ok(()) } else { Err(SessionError::Unsupported(missing)) }
    }

    /// Servers announce `check-file`, or each of its two requests.
    pub(super) fn needs_check_file(&self, one: &str) -> Result<()> {
        let known = self.extensions().has(extension::CHECK_FILE) || self.extensions().has(one);
        if known { Ok(()) } else { Err(SessionError::Unsupported("the server has no check-file")) }
    }
}

/// Longest path that is sent. Two of them and their head stay far below what a packet holds.
const MAX_SENT: usize = 32 * 1024;

/// A path that means the same to the server as to us: in C a NUL ends it.
fn sendable(paths: &[&[u8]]) -> Result<()> {
    if paths.iter().any(|path| path.contains(&0)) {
        return Err(SessionError::Unsupported("a path with a NUL byte"));
    }
    if paths.iter().any(|path| path.len() > MAX_SENT) {
        return Err(SessionError::Unsupported("a path of more than 32 KiB"));
    }
    Ok(())
}
