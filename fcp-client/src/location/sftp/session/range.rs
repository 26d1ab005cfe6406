//! Ranges of files, with many requests on their way.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fcp_proto::path::escape;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use super::handle::Handle;
use super::waiter::{Deliver, Expect};
use super::{Finished, FoundSize, Result, SessionError, SftpError, SftpOp};
use crate::location::sftp::wire::{Attrs, Reply, Request, StatusCode};

/// The content of a range, in pieces, in any order. Dropping it forgets what is on its way.
#[derive(Debug)]
pub struct RangeReader {
    handle: Handle,
    range: Range<u64>,
    /// Rests of short READs, to be asked for again.
    rests: Vec<(u64, u32)>,
    /// One for each request on its way. One of them needs no place, so that a reader can always go
    /// on, whatever others hold.
    places: Vec<Option<OwnedSemaphorePermit>>,
    to: mpsc::UnboundedSender<Arrived>,
    from: mpsc::UnboundedReceiver<Arrived>,
    failed: bool,
}

/// An answer to one READ.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) offset: u64,
    pub(super) asked: u32,
    pub(super) took: Duration,
    pub(super) answer: Result<Reply>,
}

impl RangeReader {
    pub(super) fn new(handle: Handle, range: Range<u64>) -> Self {
        // Bounded: there is a place for each message.
        let (to, from) = mpsc::unbounded_channel();
        handle.session().inner.reads.handle_start();
        RangeReader {
            handle,
            range,
            rests: Vec::new(),
            places: Vec::new(),
            to,
            from,
            failed: false,
        }
    }

    /// The next piece and its offset in the file; `None` once the range is complete, or after an
    /// error. A piece has at most 255 KiB. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The server's; [`SessionError::Size`] when the file ends before the range does.
    pub async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        if self.failed {
            return None;
        }
        let piece = match self.ask_more() {
            Ok(()) if self.places.is_empty() => return None,
            Ok(()) => self.from.recv().await.map(|arrived| self.handle_arrived(arrived))?,
            Err(error) => Err(error),
        };
        self.failed = piece.is_err();
        Some(piece)
    }

    /// Sends what there is a place for.
    fn ask_more(&mut self) -> Result<()> {
        while !(self.range.is_empty() && self.rests.is_empty()) {
            let place = match self.handle.session().inner.reads.try_place() {
                None if !self.places.is_empty() => break,
                place => place,
            };
            let (offset, asked) = self.next_request();
            let request = Request::Read { handle: self.handle.id()?, offset, len: asked };
            let deliver = Deliver::Piece { to: self.to.clone(), offset, asked };
            let shared = &self.handle.session().inner.shared;
            shared.send((SftpOp::Read, Expect::Data(asked)), request, None, deliver)?;
            self.places.push(place);
        }
        Ok(())
    }

    fn next_request(&mut self) -> (u64, u32) {
        if let Some(rest) = self.rests.pop() {
            return rest;
        }
        let most = self.handle.session().limits().read;
        let left = self.range.end.saturating_sub(self.range.start);
        let asked = u32::try_from(left).unwrap_or(u32::MAX).min(most);
        let offset = self.range.start;
        self.range.start += u64::from(asked);
        (offset, asked)
    }

    fn handle_arrived(&mut self, arrived: Arrived) -> Result<(u64, Bytes)> {
        let Arrived { offset, asked, took, answer } = arrived;
        self.places.pop();
        self.handle.session().inner.reads.handle_reply(took);
        match answer? {
            Reply::Data(data) if !data.is_empty() => {
                let got = u32::try_from(data.len()).unwrap_or(asked);
                if got < asked {
                    self.rests.push((offset + u64::from(got), asked - got));
                }
                Ok((offset, data))
            }
            Reply::Status { code, message } if code != StatusCode::EOF => {
                Err(SftpError::new(SftpOp::Read, self.handle.path(), code, &message).into())
            }
            _ => Err(SessionError::Size {
                path: escape(self.handle.path()),
                expected: self.range.end,
                found: FoundSize::Shorter(offset),
            }),
        }
    }
}

/// Writes at any offset, many at a time. The first error stays: nothing more is sent after it.
/// Dropping it forgets the answers, not the writes.
#[derive(Debug)]
pub struct RangeWriter {
    handle: Handle,
    state: Arc<Writing>,
}

/// What the answers to WRITEs change.
pub(super) struct Writing {
    handle: Handle,
    state: Mutex<WriteState>,
    settled: Notify,
}

#[derive(Default)]
struct WriteState {
    on_the_way: usize,
    error: Option<SessionError>,
    acked: Vec<Range<u64>>,
}

impl RangeWriter {
    pub(super) fn new(handle: Handle) -> Self {
        handle.session().inner.writes.handle_start();
        let (state, settled) = (Mutex::default(), Notify::new());
        let writing = Writing { handle: handle.clone(), state, settled };
        RangeWriter { handle, state: Arc::new(writing) }
    }

    /// Sends `content`, in as many WRITEs as it needs, without waiting for answers; waits while too
    /// many are on their way. Dropping the future may leave some of it unsent.
    ///
    /// # Errors
    /// Of this or an earlier write.
    pub async fn write_at(&self, mut offset: u64, mut content: Bytes) -> Result<()> {
        self.handle.fits(offset, content.len())?;
        let session = self.handle.session().clone();
        let most = session.limits().write as usize;
        while !content.is_empty() {
            let data = content.split_to(most.min(content.len()));
            let len = data.len() as u64;
            let slot = session.inner.writes.place().await.ok_or(SessionError::Closed)?;
            let payload = session.inner.shared.room(data.clone()).await?;
            let request = Request::Write { handle: self.handle.id()?, offset, data: &data };
            let range = offset..offset + len;
            let deliver = Deliver::Ack { to: self.state.clone(), range, _slot: slot };
            self.state.begin()?;
            let kind = (SftpOp::Write, Expect::Status);
            let sent = session.inner.shared.send(kind, request, Some(payload), deliver);
            sent.inspect_err(|error| self.state.handle_unsent(error))?;
            offset += len;
        }
        Ok(())
    }

    /// Waits until the server has answered everything sent.
    ///
    /// # Errors
    /// Of any write.
    pub async fn settle(&self) -> Result<()> {
        loop {
            let settled = self.state.settled.notified();
            {
                let state = self.state.lock();
                if state.on_the_way == 0 {
                    return state.error.clone().map_or(Ok(()), Err);
                }
            }
            settled.await;
        }
    }

    /// Sets `attrs`, syncs if `durable`, closes, and waits for every answer, also of the writes: one
    /// round trip. The draft (section 6.1) has a server do what concerns one file in order.
    ///
    /// # Errors
    /// As [`Handle::finish_write`].
    pub async fn finish(self, attrs: Option<Attrs>, durable: bool) -> Result<Finished> {
        let rest = self.handle.clone().finish_write(0, Bytes::new(), attrs, durable);
        let (settled, finished) = tokio::join!(self.settle(), rest);
        settled.and(finished)
    }

    /// The ranges that the server said were written since this was asked last, in no order.
    pub fn take_written(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.state.lock().acked)
    }

    /// The file.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Writing {
    fn begin(&self) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        state.on_the_way += 1;
        Ok(())
    }

    pub(super) fn handle_answer(
        &self,
        op: SftpOp,
        range: Range<u64>,
        answer: Result<Reply>,
        took: Duration,
    ) {
        self.handle.session().inner.writes.handle_reply(took);
        self.settle_one(match answer {
            Ok(Reply::Status { code: StatusCode::OK, .. }) => Ok(range),
            Ok(Reply::Status { code, message }) => {
                Err(SftpError::new(op, self.handle.path(), code, &message).into())
            }
            // Only a status answers a write.
            Ok(_) => Err(SessionError::Closed),
            Err(error) => Err(error),
        });
    }

    fn handle_unsent(&self, error: &SessionError) {
        self.settle_one(Err(error.clone()));
    }

    fn settle_one(&self, written: Result<Range<u64>>) {
        let mut state = self.lock();
        state.on_the_way = state.on_the_way.saturating_sub(1);
        match written {
            Ok(range) => state.add(range),
            Err(error) => {
                state.error.get_or_insert(error);
            }
        }
        if state.on_the_way == 0 {
            drop(state);
            self.settled.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, WriteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteState {
    /// Answers mostly come in order, so that one range grows.
    fn add(&mut self, range: Range<u64>) {
        match self.acked.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.acked.push(range),
        }
    }
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("handle", &self.handle).finish_non_exhaustive()
    }
}
