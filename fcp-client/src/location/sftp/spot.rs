//! One name at a server, with the session to ask about it.

use fcp_common::fs::Kind;
use fcp_proto::meta::Timestamp;
use fcp_proto::path::RelPath;

use super::pool::Lease;
use super::session::{self, Session, SessionError};
use super::wire::{Attrs, StatusCode};
use super::{Sftp, error};
use crate::location::{LocationError, Meta, Op, Reason, Result, SetMeta};

/// The type bits within permissions.
const TYPE: u32 = 0o170_000;

pub(super) struct Spot<'a> {
    pub(super) sftp: &'a Sftp,
    pub(super) path: &'a RelPath,
    /// As the server knows it.
    pub(super) full: Vec<u8>,
    pub(super) lease: Lease<Session>,
}

impl Spot<'_> {
    pub(super) fn session(&self) -> &Session {
        &self.lease
    }

    /// What has the name, links not followed but at the base itself.
    pub(super) async fn stat(&self) -> Result<Option<Meta>> {
        let attrs = if self.path.is_root() {
            self.session().stat(&self.full).await
        } else {
            self.session().lstat(&self.full).await
        };
        match attrs {
            Ok(attrs) => self.meta(&attrs).map(Some),
            Err(error) if error::is_not_found(&error) => Ok(None),
            failed => self.told(Op::Stat, failed.map(|_| None)).await,
        }
    }

    /// What attributes say.
    pub(super) fn meta(&self, attrs: &Attrs) -> Result<Meta> {
        meta_of(attrs).ok_or_else(|| {
            self.fail(Op::Stat, Reason::Unsupported, "the server does not tell its length")
        })
    }

    /// A session's answer in our terms.
    pub(super) async fn told<T>(&self, op: Op, answer: session::Result<T>) -> Result<T> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(op, &error).await),
        }
    }

    /// As [`Spot::told`] of something that makes a new name: version 3 has no word for a name that
    /// is taken, so it is looked at.
    pub(super) async fn told_of_new<T>(&self, op: Op, answer: session::Result<T>) -> Result<T> {
        match answer {
            Err(error) if error::is_vague(&error) && self.stat().await?.is_some() => {
                Err(self.fail(op, Reason::Exists, "something has that name already"))
            }
            answer => self.told(op, answer).await,
        }
    }

    pub(super) async fn failed(&self, op: Op, error: &SessionError) -> LocationError {
        told_by(&self.lease, self.sftp, op, self.path, error).await
    }

    pub(super) fn fail(&self, op: Op, reason: Reason, text: &str) -> LocationError {
        LocationError::new(self.sftp.name(), op, self.path.as_bytes(), reason, text)
    }
}

/// A session's error in our terms, with the true cause where the connection knows it.
pub(super) async fn told_by(
    lease: &Lease<Session>,
    sftp: &Sftp,
    op: Op,
    path: &RelPath,
    error: &SessionError,
) -> LocationError {
    let told = error::told(sftp.name(), op, path.as_bytes(), error);
    if error.is_fatal() {
        return lease.connection().explain(told).await;
    }
    let writes = matches!(op, Op::Create | Op::Write | Op::Sync | Op::Close | Op::MakeDir);
    if writes && error.code() == Some(StatusCode::FAILURE) && is_full(lease, sftp).await {
        return LocationError {
            reason: Reason::Full,
            text: "no space is left there".into(),
            ..told
        };
    }
    told
}

/// OpenSSH says "failure" of a full disk as of much else.
async fn is_full(lease: &Lease<Session>, sftp: &Sftp) -> bool {
    let full = sftp.full(&RelPath::root());
    lease.stat_vfs(&full).await.is_ok_and(|stat| stat.bavail == 0)
}

/// What attributes say; `None` of a file without a length.
pub(super) fn meta_of(attrs: &Attrs) -> Option<Meta> {
    let kind = match attrs.permissions.unwrap_or(0) & TYPE {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Dir,
        0o120_000 => Kind::Symlink,
        _ => Kind::Other,
    };
    let size = match (kind, attrs.size) {
        (Kind::Dir, _) => 0,
        (_, Some(size)) => size,
        (Kind::File, None) => return None,
        (_, None) => 0,
    };
    Some(Meta {
        kind,
        size,
        mtime: attrs.mtime().map(|secs| Timestamp { secs: secs.into(), nanos: 0 }),
        mode: attrs.permissions.map(|mode| mode & 0o7777),
        id: None,
    })
}

/// What is to be set, `None` for nothing. Times that 32 bits cannot tell are left out; the time of
/// the last access can only be set, too, and is what a fresh copy has.
pub(super) fn attrs_of(meta: SetMeta) -> Option<Attrs> {
    let mtime = meta.mtime.and_then(|mtime| u32::try_from(mtime.secs).ok());
    let attrs = Attrs {
        permissions: meta.mode.map(|mode| mode & 0o777),
        times: mtime.map(|mtime| (mtime, mtime)),
        ..Attrs::default()
    };
    (attrs != Attrs::default()).then_some(attrs)
}
