//! Small files in as few round trips as SFTP can: one to open, one for all the rest.

use bytes::Bytes;
use fcp_proto::path::RelPath;

use super::Sftp;
use super::error::is_not_found;
use super::session::SessionError;
use super::spot::{Spot, attrs_of, meta_of};
use super::wire::{Attrs, OpenFlags};
use crate::location::{LocationError, Meta, Op, Reason, Result, SetMeta};

/// Nobody else may read it until it is whole.
pub(super) const PRIVATE: Attrs =
    Attrs { size: None, owner: None, permissions: Some(0o600), times: None };
const NEW: OpenFlags = OpenFlags(OpenFlags::WRITE.0 | OpenFlags::CREATE.0 | OpenFlags::EXCLUSIVE.0);

pub(super) async fn read(spot: &Spot<'_>, size: u64) -> Result<(Bytes, Meta)> {
    let session = spot.session();
    // Opening follows a symlink, so the name itself is looked at in the same round trip.
    let (opened, stat) =
        tokio::join!(session.open(&spot.full, OpenFlags::READ, Attrs::default()), spot.stat());
    check_file(spot, stat?)?;
    let handle = spot.told(Op::Open, opened).await?;
    let (content, attrs) = spot.told(Op::Read, handle.read_to_end(size).await).await?;
    Ok((content, spot.meta(&attrs)?))
}

pub(super) async fn write(
    spot: &Spot<'_>,
    content: Bytes,
    meta: SetMeta,
    durable: bool,
) -> Result<Option<Meta>> {
    spot.sftp.check_durable(spot.path, durable)?;
    let size = content.len() as u64;
    let opened = spot.session().open(&spot.full, NEW, PRIVATE).await;
    let handle = spot.told_of_new(Op::Create, opened).await?;
    let done = handle.finish_write(0, content, attrs_of(meta), durable).await;
    let finished = spot.told(Op::Write, done).await?;
    spot.sftp.note_attrs(finished.attrs);
    let now = spot.told(Op::Stat, finished.stat).await?;
    spot.sftp.check_length(spot.path, now, size)?;
    Ok(meta_of(&now))
}

/// [`Reason::NotFound`] and [`Reason::NotFile`].
pub(super) fn check_file(spot: &Spot<'_>, now: Option<Meta>) -> Result<Meta> {
    match now {
        Some(meta) if meta.is_file() => Ok(meta),
        Some(_) => Err(spot.fail(Op::Open, Reason::NotFile, "it is not a regular file")),
        None => Err(spot.fail(Op::Open, Reason::NotFound, "it is not there")),
    }
}

impl Sftp {
    /// [`Reason::NotDurable`] where that cannot be promised.
    pub(super) fn check_durable(&self, path: &RelPath, durable: bool) -> Result<()> {
        if durable && !self.inner.can.fsync {
            let text = "the server has no fsync@openssh.com, and may lose the file in a power cut";
            let (place, path) = (self.name(), path.as_bytes());
            return Err(LocationError::new(place, Op::Sync, path, Reason::NotDurable, text));
        }
        Ok(())
    }

    /// S04: a server may say yes to every write and keep something else.
    pub(super) fn check_length(&self, path: &RelPath, now: Attrs, size: u64) -> Result<()> {
        if now.size.is_some_and(|now| now != size) {
            let text = "the server took all of it and has another length";
            let (place, path) = (self.name(), path.as_bytes());
            return Err(LocationError::new(place, Op::Write, path, Reason::Changed, text));
        }
        Ok(())
    }

    /// Servers that keep no modes or times of others are many, and their files arrive all the same.
    pub(super) fn note_attrs(&self, set: std::result::Result<(), SessionError>) {
        if let Err(error) = set
            && !is_not_found(&error)
        {
            self.inner.attrs_refused.call_once(|| {
                tracing::warn!("{}: modes and times of files are not kept: {error}", self.name());
            });
        }
    }
}
