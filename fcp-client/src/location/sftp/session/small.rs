//! Small files: everything that follows an OPEN in one round trip.

use bytes::{Bytes, BytesMut};
use fcp_proto::limits::MAX_FILE_SIZE;
use fcp_proto::path::escape;

use super::handle::Handle;
use super::pending::Pending;
use super::waiter::Expect;
use super::{FoundSize, Result, Session, SessionError, SftpOp};
use crate::location::sftp::wire::{Attrs, OpenFlags, Request};

/// Longest file that is read at once.
const MAX_SMALL: u64 = 4 << 20;

/// What [`Handle::finish_write`] did besides writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether the attributes were set; the content is written either way.
    pub attrs: Result<()>,
    /// What the file was then, before it was closed.
    pub stat: Result<Attrs>,
}

impl Session {
    /// Opens a file of `size` bytes and reads all of it: two round trips. Also tells what it is.
    ///
    /// # Errors
    /// The server's; as [`Handle::read_to_end`].
    pub async fn read_small(&self, path: &[u8], size: u64) -> Result<(Bytes, Attrs)> {
        let handle = self.open(path, OpenFlags::READ, Attrs::default()).await?;
        handle.read_to_end(size).await
    }
}

impl Handle {
    /// Reads all of a file of `size` bytes, at most 4 MiB, and what it is now, and closes it: one
    /// round trip, as long as the server gives what it is asked for. One that gives less has the
    /// file opened once more.
    ///
    /// # Errors
    /// The server's; [`SessionError::Size`] when the file has not `size` bytes.
    pub async fn read_to_end(self, size: u64) -> Result<(Bytes, Attrs)> {
        if size > MAX_SMALL {
            return Err(SessionError::Unsupported("a file of more than 4 MiB at once"));
        }
        let reads = self.ask_reads(size)?;
        let stat = self.ask_stat()?;
        let close = self.ask_close()?;
        let mut pieces = Vec::with_capacity(reads.len());
        for (read, asked) in reads {
            pieces.push((read.data(self.session(), self.path()).await, asked));
        }
        let attrs = stat.attrs(self.session(), self.path()).await;
        // What was read is right whatever closing says.
        close.done(self.path()).await.or_else(|e| if e.is_fatal() { Err(e) } else { Ok(()) })?;
        let (content, attrs) = (joined(pieces)?, attrs?);
        self.complete(content, size).await.map(|content| (content, attrs))
    }

    /// Writes `content` at `offset`, sets `attrs`, syncs if `durable`, and closes: one round trip,
    /// for the draft (section 6.1) has a server do what concerns one file in order. All answers are
    /// in when it returns, so that a rename may follow.
    ///
    /// # Errors
    /// The server's about writing, syncing and closing; [`SessionError::Unsupported`] when `durable`
    /// without `fsync@openssh.com`: nothing is written then.
    pub async fn finish_write(
        self,
        offset: u64,
        content: Bytes,
        attrs: Option<Attrs>,
        durable: bool,
    ) -> Result<Finished> {
        if durable {
            self.needs_fsync()?;
        }
        self.fits(offset, content.len())?;
        let mut must = self.ask_writes(offset, content).await?;
        let set = attrs.map(|attrs| self.ask_set_stat(attrs)).transpose()?;
        if durable {
            must.push(self.ask_fsync()?);
        }
        let stat = self.ask_stat()?;
        must.push(self.ask_close()?);
        let mut result = Ok(());
        for pending in must {
            // Every answer is waited for, or the next request could overtake a write.
            result = result.and(pending.done(self.path()).await);
        }
        let attrs = match set {
            Some(pending) => pending.done(self.path()).await,
            None => Ok(()),
        };
        let stat = stat.attrs(self.session(), self.path()).await;
        result.map(|()| Finished { attrs, stat })
    }

    /// Refuses offsets that no file has.
    pub(super) fn fits(&self, offset: u64, len: usize) -> Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= MAX_FILE_SIZE => Ok(()),
            _ => Err(SessionError::Unsupported("a write beyond the longest file")),
        }
    }

    /// READs for `size` bytes and one more, so that a file that goes on is noticed.
    fn ask_reads(&self, size: u64) -> Result<Vec<(Pending, u32)>> {
        let most = u64::from(self.session().limits().read);
        let mut offset = 0;
        let mut reads = Vec::new();
        while offset <= size {
            let len = u32::try_from(most.min(size + 1 - offset)).unwrap_or(u32::MAX);
            reads.push((self.ask_read(offset, len)?, len));
            offset += u64::from(len);
        }
        Ok(reads)
    }

    async fn ask_writes(&self, mut offset: u64, mut content: Bytes) -> Result<Vec<Pending>> {
        let most = self.session().limits().write as usize;
        let mut writes = Vec::new();
        while !content.is_empty() {
            let data = content.split_to(most.min(content.len()));
            let payload = self.session().inner.shared.room(data.clone()).await?;
            let request = Request::Write { handle: self.id()?, offset, data: &data };
            let (op, expect) = (SftpOp::Write, Expect::Status);
            writes.push(self.session().ask_with(op, expect, request, Some(payload))?);
            offset += data.len() as u64;
        }
        Ok(writes)
    }

    /// What is missing because a READ gave less than asked; legal, and rare.
    async fn complete(&self, content: Bytes, size: u64) -> Result<Bytes> {
        let have = content.len() as u64;
        let wrong = |found| SessionError::Size { path: escape(self.path()), expected: size, found };
        if have > size {
            return Err(wrong(FoundSize::Longer));
        }
        if have == size {
            return Ok(content);
        }
        let again = self.session().open(self.path(), OpenFlags::READ, Attrs::default()).await?;
        let mut whole = BytesMut::from(content);
        while (whole.len() as u64) <= size {
            let left = u32::try_from(size + 1 - whole.len() as u64).unwrap_or(u32::MAX);
            match again.read(whole.len() as u64, left).await? {
                Some(data) => whole.extend_from_slice(&data),
                None if whole.len() as u64 == size => return Ok(whole.freeze()),
                None => return Err(wrong(FoundSize::Shorter(whole.len() as u64))),
            }
        }
        Err(wrong(FoundSize::Longer))
    }
}

/// The content up to the first READ that gave less than asked, without a copy if there was but one.
fn joined(pieces: Vec<(Result<Option<Bytes>>, u32)>) -> Result<Bytes> {
    let mut whole = Bytes::new();
    for (piece, asked) in pieces {
        let Some(data) = piece? else { break };
        let short = data.len() < asked as usize;
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
        if short {
            break;
        }
    }
    Ok(whole)
}
