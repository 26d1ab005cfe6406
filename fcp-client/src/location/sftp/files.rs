//! Open files at a server.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fcp_proto::path::RelPath;

use super::Sftp;
use super::lanes::{How, Lane, Lanes};
use super::session::{self, RangeReader, RangeWriter, SessionError};
use super::small::{PRIVATE, check_file};
use super::spot::{attrs_of, meta_of, told_by};
use super::wire::{Attrs, OpenFlags, StatusCode};
use crate::location::{LocationError, Meta, Op, Reason, Result, SetMeta};

/// Bytes of one range that wait for bytes before them. Servers answer in order, so that only short
/// answers, whose rest is asked for again, make any wait.
const MAX_EARLY: usize = 64 << 20;

const BOTH: OpenFlags = OpenFlags(OpenFlags::READ.0 | OpenFlags::WRITE.0);
const NEW_BLIND: OpenFlags =
    OpenFlags(OpenFlags::WRITE.0 | OpenFlags::CREATE.0 | OpenFlags::EXCLUSIVE.0);

/// A file open for reading.
#[derive(Debug)]
pub struct SftpSource {
    lanes: Arc<Lanes>,
}

/// A file open for writing.
#[derive(Debug)]
pub struct SftpSink {
    lanes: Arc<Lanes>,
    /// Of [`SftpSink::write_at`].
    writer: OnceLock<SftpWriter>,
    /// Its length when it was opened.
    length: u64,
}

/// Content on its way into a file, over one session.
#[derive(Debug)]
pub struct SftpWriter {
    lanes: Arc<Lanes>,
    lane: Arc<Lane>,
    writer: RangeWriter,
}

/// Content on its way out of a file, in order.
#[derive(Debug)]
pub struct SftpPieces {
    lanes: Arc<Lanes>,
    range: Range<u64>,
    reader: Option<(Arc<Lane>, RangeReader)>,
    early: BTreeMap<u64, Bytes>,
    held: usize,
    failed: bool,
}

pub(super) async fn open(sftp: &Sftp, path: &RelPath) -> Result<SftpSource> {
    let spot = sftp.wide_spot(path).await?;
    // Opening follows a symlink, so the name itself is looked at in the same round trip.
    let opened = spot.session().open(&spot.full, OpenFlags::READ, Attrs::default());
    let (opened, stat) = tokio::join!(opened, spot.stat());
    let seen = Some(check_file(&spot, stat?)?);
    let handle = spot.told(Op::Open, opened).await?;
    let first = Lane { handle, lease: spot.lease };
    Ok(SftpSource { lanes: Lanes::new(sftp, path, first, How { flags: OpenFlags::READ, seen }) })
}

pub(super) async fn create(sftp: &Sftp, path: &RelPath) -> Result<SftpSink> {
    let spot = sftp.wide_spot(path).await?;
    let session = spot.session();
    let opened = match session.open(&spot.full, OpenFlags::CREATE_NEW, PRIVATE).await {
        // An account that may only put files there.
        Err(error) if error.code() == Some(StatusCode::PERMISSION_DENIED) => {
            session.open(&spot.full, NEW_BLIND, PRIVATE).await
        }
        opened => opened,
    };
    let handle = spot.told_of_new(Op::Create, opened).await?;
    Ok(SftpSink::new(sftp, path, Lane { handle, lease: spot.lease }, 0))
}

pub(super) async fn reopen(sftp: &Sftp, path: &RelPath) -> Result<SftpSink> {
    let spot = sftp.wide_spot(path).await?;
    check_file(&spot, spot.stat().await?)?;
    let opened = spot.session().open(&spot.full, BOTH, Attrs::default()).await;
    let handle = spot.told(Op::Open, opened).await?;
    let length = spot.told(Op::Stat, handle.stat().await).await?;
    let length = spot.meta(&length)?.size;
    Ok(SftpSink::new(sftp, path, Lane { handle, lease: spot.lease }, length))
}

impl SftpSource {
    /// As [`crate::location::Source::stat`].
    pub async fn stat(&self) -> Result<Meta> {
        self.lanes.stat().await
    }

    /// As [`crate::location::Source::read_range`].
    pub fn read_range(&self, range: Range<u64>) -> SftpPieces {
        SftpPieces::new(&self.lanes, range)
    }
}

impl SftpSink {
    fn new(sftp: &Sftp, path: &RelPath, first: Lane, length: u64) -> SftpSink {
        let lanes = Lanes::new(sftp, path, first, How { flags: BOTH, seen: None });
        SftpSink { lanes, writer: OnceLock::new(), length }
    }

    /// As [`crate::location::Sink::writer`].
    pub async fn writer(&self) -> SftpWriter {
        SftpWriter::new(&self.lanes, self.lanes.free().await)
    }

    /// As [`crate::location::Sink::write_at`].
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        let first = || SftpWriter::new(&self.lanes, Arc::clone(&self.lanes.first));
        self.writer.get_or_init(first).write_at(offset, content).await
    }

    /// As [`crate::location::Sink::settle`].
    pub async fn settle(&self) -> Result<()> {
        match self.writer.get() {
            Some(writer) => writer.settle().await,
            None => Ok(()),
        }
    }

    /// As [`crate::location::Sink::read_back`].
    pub fn read_back(&self, range: Range<u64>) -> SftpPieces {
        SftpPieces::new(&self.lanes, range)
    }

    /// As [`crate::location::Sink::stat`].
    pub async fn stat(&self) -> Result<Meta> {
        self.lanes.stat().await
    }

    /// As [`crate::location::Sink::close`].
    pub async fn close(self, size: u64, meta: SetMeta, durable: bool) -> Result<Option<Meta>> {
        self.settle().await?;
        let SftpSink { lanes, length, .. } = self;
        lanes.sftp.check_durable(&lanes.path, durable)?;
        // What the others wrote is in before times are set and the file is synced.
        for other in lanes.take_others() {
            let closed = other.handle.clone().close().await;
            lanes.told(&other, Op::Close, closed).await?;
        }
        let handle = lanes.first.handle.clone();
        if length > size {
            let cut = Attrs { size: Some(size), ..Attrs::default() };
            lanes.told(&lanes.first, Op::Write, handle.set_stat(cut).await).await?;
        }
        let done = handle.finish_write(size, Bytes::new(), attrs_of(meta), durable).await;
        let op = if durable { Op::Sync } else { Op::Close };
        let finished = lanes.told(&lanes.first, op, done).await?;
        lanes.sftp.note_attrs(finished.attrs);
        let now = lanes.told(&lanes.first, Op::Stat, finished.stat).await?;
        lanes.sftp.check_length(&lanes.path, now, size)?;
        Ok(meta_of(&now))
    }
}

impl SftpWriter {
    fn new(lanes: &Arc<Lanes>, lane: Arc<Lane>) -> SftpWriter {
        let writer = lane.handle.write_range();
        SftpWriter { lanes: Arc::clone(lanes), lane, writer }
    }

    /// As [`crate::location::Writer::again`].
    pub fn again(&self) -> SftpWriter {
        SftpWriter::new(&self.lanes, Arc::clone(&self.lane))
    }

    /// As [`crate::location::Writer::write_at`].
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        let sent = self.writer.write_at(offset, content).await;
        self.lanes.told(&self.lane, Op::Write, sent).await
    }

    /// As [`crate::location::Writer::settle`].
    pub async fn settle(&self) -> Result<()> {
        let settled = self.writer.settle().await;
        self.lanes.told(&self.lane, Op::Write, settled).await
    }
}

impl SftpPieces {
    fn new(lanes: &Arc<Lanes>, range: Range<u64>) -> SftpPieces {
        let (lanes, early) = (Arc::clone(lanes), BTreeMap::new());
        SftpPieces { lanes, range, reader: None, early, held: 0, failed: false }
    }

    /// As [`crate::location::Pieces::next`].
    pub async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        if self.failed || self.range.is_empty() {
            return None;
        }
        let piece = self.in_order().await;
        match &piece {
            Ok((_, content)) => self.range.start += content.len() as u64,
            Err(_) => self.failed = true,
        }
        Some(piece)
    }

    async fn in_order(&mut self) -> Result<(u64, Bytes)> {
        let at = self.range.start;
        if let Some(content) = self.early.remove(&at) {
            self.held -= content.len();
            return Ok((at, content));
        }
        if self.reader.is_none() {
            let lane = self.lanes.free().await;
            let reader = lane.handle.read_range(self.range.clone());
            self.reader = Some((lane, reader));
        }
        loop {
            let Some((lane, reader)) = &mut self.reader else { return Err(self.broken()) };
            match reader.next().await {
                Some(Ok((offset, content))) if offset == at => return Ok((at, content)),
                Some(Ok((offset, content))) if self.held <= MAX_EARLY => {
                    self.held += content.len();
                    self.early.insert(offset, content);
                }
                Some(Ok(_)) | None => return Err(self.broken()),
                Some(Err(error)) => return Err(self.lanes.failed(lane, Op::Read, &error).await),
            }
        }
    }

    fn broken(&self) -> LocationError {
        let (place, path) = (self.lanes.sftp.name(), self.lanes.path.as_bytes());
        let text = "the server leaves parts of the file out";
        LocationError::new(place, Op::Read, path, Reason::Protocol, text)
    }
}

impl Lanes {
    async fn stat(&self) -> Result<Meta> {
        let attrs = self.told(&self.first, Op::Stat, self.first.handle.stat().await).await?;
        meta_of(&attrs).ok_or_else(|| {
            let (place, path) = (self.sftp.name(), self.path.as_bytes());
            let text = "the server does not tell its length";
            LocationError::new(place, Op::Stat, path, Reason::Unsupported, text)
        })
    }

    async fn told<T>(&self, lane: &Lane, op: Op, answer: session::Result<T>) -> Result<T> {
        match answer {
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(lane, op, &error).await),
        }
    }

    async fn failed(&self, lane: &Lane, op: Op, error: &SessionError) -> LocationError {
        told_by(&lane.lease, &self.sftp, op, &self.path, error).await
    }
}
