//! Open files of this machine.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fcp_common::fs::{File, Stat};
use tokio::task::JoinHandle;

use super::error::Label;
use super::off;
use crate::location::{Meta, Op, Result, SetMeta};

/// Bytes that one thread reads at once: enough that the way to it and back costs nothing.
const PIECE: u64 = 1 << 20;

/// A file open for reading.
#[derive(Debug)]
pub struct LocalSource {
    file: Arc<File>,
    label: Label,
}

/// A file open for writing, whose writes are done when they return.
#[derive(Debug)]
pub struct LocalSink {
    file: Arc<File>,
    label: Label,
}

/// Content on its way: one piece is read while the one before is in use.
#[derive(Debug)]
pub struct LocalPieces {
    file: Arc<File>,
    label: Label,
    /// What nobody reads yet.
    rest: Range<u64>,
    ahead: Option<JoinHandle<Read>>,
    failed: bool,
}

/// Where, how much was wanted, what came.
type Read = (u64, usize, io::Result<Vec<u8>>);

impl LocalSource {
    pub(super) fn new(file: File, label: Label) -> LocalSource {
        LocalSource { file: Arc::new(file), label }
    }

    /// As [`crate::location::Source::stat`].
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn stat(&self) -> Result<Meta> {
        stat(&self.file, &self.label)
    }

    /// As [`crate::location::Source::read_range`].
    pub fn read_range(&self, range: Range<u64>) -> LocalPieces {
        LocalPieces::new(&self.file, &self.label, range)
    }
}

impl LocalSink {
    pub(super) fn new(file: File, label: Label) -> LocalSink {
        LocalSink { file: Arc::new(file), label }
    }

    /// As [`crate::location::Sink::write_at`].
    ///
    /// Copies into the page cache on the caller's thread: 255 KiB cost some 50 microseconds, not
    /// much more than another thread's wake-up, and where the kernel slows down a writer nothing
    /// can go faster anyway. A file system behind a network may be away for minutes, and does not
    /// get a thread of ours that others need.
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        let done = if self.label.far {
            let file = Arc::clone(&self.file);
            off(move || file.write_all_at(&content, offset)).await
        } else {
            self.file.write_all_at(&content, offset)
        };
        done.map_err(|error| self.label.failed(Op::Write, &error))
    }

    /// As [`crate::location::Sink::settle`]: writes here are done when they return.
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// As [`crate::location::Sink::read_back`].
    pub fn read_back(&self, range: Range<u64>) -> LocalPieces {
        LocalPieces::new(&self.file, &self.label, range)
    }

    /// As [`crate::location::Sink::stat`].
    #[allow(clippy::unused_async)] // One shape for every location.
    pub async fn stat(&self) -> Result<Meta> {
        stat(&self.file, &self.label)
    }

    /// As [`crate::location::Sink::close`].
    pub async fn close(self, size: u64, meta: SetMeta, durable: bool) -> Result<Option<Meta>> {
        let LocalSink { file, label } = self;
        let far = label.far;
        let work = move || finish(&file, size, meta, durable, far);
        let done = if durable || far { off(work).await } else { work() };
        let stat = done
            .map_err(|error| label.failed(if durable { Op::Sync } else { Op::SetMeta }, &error))?;
        Ok(Some(stat.into()))
    }
}

impl LocalPieces {
    fn new(file: &Arc<File>, label: &Label, range: Range<u64>) -> LocalPieces {
        let (file, label) = (Arc::clone(file), label.clone());
        LocalPieces { file, label, rest: range, ahead: None, failed: false }
    }

    /// As [`crate::location::Pieces::next`].
    pub async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        if self.ahead.is_none() {
            self.ahead = self.read_ahead();
        }
        // Stays in place while it is waited for, so that a dropped future loses nothing.
        let read = self.ahead.as_mut()?.await;
        self.ahead = self.read_ahead();
        let (at, wanted, done) = read.unwrap_or_else(|_| (0, 0, Err(stopped())));
        let done = match done {
            Ok(content) if content.len() == wanted => Ok((at, Bytes::from(content))),
            Ok(_) => Err(self.label.changed("it ends earlier than it did")),
            Err(error) => Err(self.label.failed(Op::Read, &error)),
        };
        if done.is_err() {
            self.failed = true;
            self.ahead = None;
        }
        Some(done)
    }

    fn read_ahead(&mut self) -> Option<JoinHandle<Read>> {
        let (at, left) = (self.rest.start, self.rest.end.saturating_sub(self.rest.start));
        let wanted = usize::try_from(left.min(PIECE)).unwrap_or(0);
        if wanted == 0 || self.failed {
            return None;
        }
        self.rest.start += wanted as u64;
        let file = Arc::clone(&self.file);
        Some(tokio::task::spawn_blocking(move || {
            let mut content = vec![0; wanted];
            let read = file.read_full_at(&mut content, at);
            (
                at,
                wanted,
                read.map(|read| {
                    content.truncate(read);
                    content
                }),
            )
        }))
    }
}

/// Length, metadata and durability of a file that is written, and what it is then. What lies behind a network is synced
/// always: only then do its errors come back.
pub(super) fn finish(
    file: &File,
    size: u64,
    meta: SetMeta,
    durable: bool,
    far: bool,
) -> io::Result<Stat> {
    if file.stat()?.size != size {
        file.set_len(size)?;
    }
    if let Some(mode) = meta.mode {
        file.set_mode(mode & 0o777)?;
    }
    if let Some(mtime) = meta.mtime {
        file.set_mtime(mtime)?;
    }
    if durable || far {
        file.sync_all()?;
    }
    file.stat()
}

fn stat(file: &File, label: &Label) -> Result<Meta> {
    file.stat().map(Meta::from).map_err(|error| label.failed(Op::Stat, &error))
}

fn stopped() -> io::Error {
    io::Error::other("the work was stopped")
}
