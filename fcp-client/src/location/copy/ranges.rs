//! The content of one file on its way, in ranges at the same time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use twox_hash::XxHash3_128;

use super::Watch;
use super::hash::Hasher;
use crate::location::{LocationError, Op, Pieces, Reason, Result, Sink, Source, Writer};

/// A range that was moved, and the xxh3-128 of its bytes.
pub(super) type Done = (Range<u64>, u128);

/// One file's transfer. Clones are the same one.
#[derive(Clone)]
pub(super) struct Transfer {
    pub(super) source: Arc<Source>,
    pub(super) sink: Arc<Sink>,
    pub(super) watch: Arc<dyn Watch>,
    /// How errors of our own call the file.
    pub(super) label: Arc<(String, Vec<u8>)>,
    /// From so many bytes on a part of a range counts by itself.
    pub(super) mark: u64,
    /// Tell `watch` of written ranges.
    pub(super) tell_ranges: bool,
}

/// The shortest part of a file that counts by itself when a copy is cut, in bytes: short, so that
/// little is lost where ways are slow.
const MARK: u64 = 1 << 20;
/// So many of those wait for their answers, for each stream.
const AHEAD: u64 = 8;
/// The most parts of one file, unless ranges are shorter.
const MARKS: u64 = 8192;

/// From how many bytes on a part of a file counts by itself; long files are not to fill journals.
pub(super) fn mark(size: u64, chunk: u64) -> u64 {
    (size / MARKS).max(MARK).min(chunk.max(1))
}

/// What is not covered by ranges that are done, cut at multiples of a length. It is found as it is
/// asked for: a source may tell any length.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    /// In order; what is past all of them is missing up to the end.
    done: VecDeque<Range<u64>>,
    at: u64,
    size: u64,
    chunk: u64,
}

/// As [`Missing`]; `done` is in order.
pub(super) fn missing(done: &[Done], size: u64, chunk: u64) -> Missing {
    let done = done.iter().map(|(range, _)| range.clone()).collect();
    Missing { done, at: 0, size, chunk: chunk.max(1) }
}

impl Iterator for Missing {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        while let Some(range) = self.done.front()
            && range.start <= self.at
        {
            self.at = self.at.max(range.end);
            self.done.pop_front();
        }
        let end = self.done.front().map_or(self.size, |range| range.start.min(self.size));
        if self.at >= end {
            return None;
        }
        let next = (self.at / self.chunk + 1).saturating_mul(self.chunk).min(end);
        let range = self.at..next;
        self.at = next;
        Some(range)
    }
}

impl Transfer {
    /// Moves all of `todo`, `streams` ranges at the same time.
    pub(super) async fn run(self, todo: Missing, streams: usize) -> Result<Vec<Done>> {
        let workers = todo.clone().take(streams).count().max(1);
        let todo = Arc::new(Mutex::new(todo));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(self.clone().work(Arc::clone(&todo)));
        }
        let mut done = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            // A task that panicked is told as an error; dropping the set stops the others.
            done.extend(ended.map_err(|_| self.failed(Reason::Io, "the transfer broke off"))??);
        }
        Ok(done)
    }

    /// Moves `range` in order, by one stream, and hashes it on the way. Every `step` bytes are told
    /// to be written; neither reading nor writing stops for that.
    pub(super) async fn run_in_order(
        &self,
        range: Range<u64>,
        step: u64,
        mut hasher: Option<&mut Hasher>,
    ) -> Result<Done> {
        let way = self.sink.writer().await;
        let (writer, hash, before) = (way.again(), XxHash3_128::new(), None);
        let from = range.start;
        let mut steps = Steps { transfer: self, way, writer, hash, from, step, before };
        let mut pieces = self.source.read_range(range.clone());
        let mut whole = XxHash3_128::new();
        while let Some(piece) = pieces.next().await {
            let (at, content) = piece?;
            self.check_going_on()?;
            whole.write(&content);
            if let Some(hasher) = &mut hasher {
                hasher.update(&content);
            }
            steps.take(at, content).await?;
        }
        steps.end(range.end).await?;
        Ok((range, whole.finish_128()))
    }

    async fn work(self, todo: Arc<Mutex<Missing>>) -> Result<Vec<Done>> {
        // The answers to the last writes of a part come while the next ones are on their way.
        let ahead = usize::try_from(MARK * AHEAD / self.mark.max(MARK)).unwrap_or(1).max(1);
        let (moved, mut settling) = mpsc::channel(ahead);
        let way = self.sink.writer().await;
        let moving = async {
            // It ends with the last part.
            let moved = moved;
            while let Some(range) = next(&todo) {
                self.range(range, &way, &moved).await?;
            }
            Ok(())
        };
        let settled = async {
            let mut done = Vec::new();
            while let Some((part, writer)) = settling.recv().await {
                done.push(self.written(part, writer).await?);
            }
            Ok(done)
        };
        let ((), done) = tokio::try_join!(moving, settled)?;
        Ok(done)
    }

    /// Moves a range in parts, each of which counts by itself once it is written.
    async fn range<'a>(
        &self,
        range: Range<u64>,
        way: &Writer<'a>,
        moved: &mpsc::Sender<(Done, Writer<'a>)>,
    ) -> Result<()> {
        let mut pieces = self.source.read_range(range.clone());
        let mut at = range.start;
        while at < range.end {
            let writer = way.again();
            let part = self.part(&mut pieces, at..range.end, &writer).await?;
            if part.0.end <= at {
                return Err(self.failed(Reason::Changed, "it ends earlier than it did"));
            }
            at = part.0.end;
            // Whoever settles has failed, and says so, where nobody listens.
            let _ = moved.send((part, writer)).await;
        }
        Ok(())
    }

    /// Moves what comes until a part is complete or nothing is left.
    async fn part(
        &self,
        pieces: &mut Pieces,
        rest: Range<u64>,
        writer: &Writer<'_>,
    ) -> Result<Done> {
        let (mut hash, mut end) = (XxHash3_128::new(), rest.start);
        while end - rest.start < self.mark {
            let Some(piece) = pieces.next().await else { break };
            let (at, content) = piece?;
            self.check_going_on()?;
            hash.write(&content);
            let length = content.len() as u64;
            writer.write_at(at, content).await?;
            self.watch.moved(length);
            end = at + length;
        }
        Ok((rest.start..end, hash.finish_128()))
    }

    fn check_going_on(&self) -> Result<()> {
        match self.watch.is_cancelled() {
            true => Err(self.failed(Reason::Cancelled, "it was stopped")),
            false => Ok(()),
        }
    }

    async fn written(&self, (range, digest): Done, writer: Writer<'_>) -> Result<Done> {
        writer.settle().await?;
        if self.tell_ranges {
            self.watch.written(range.clone(), digest);
        }
        Ok((range, digest))
    }

    fn failed(&self, reason: Reason, text: &str) -> LocationError {
        LocationError::new(&self.label.0, Op::Read, &self.label.1, reason, text)
    }
}

/// One stream's content, told of in steps.
struct Steps<'a> {
    transfer: &'a Transfer,
    way: Writer<'a>,
    /// Of this step.
    writer: Writer<'a>,
    hash: XxHash3_128,
    /// Where this step begins.
    from: u64,
    step: u64,
    /// The step before: the answers to its writes come while this one is on its way.
    before: Option<(Done, Writer<'a>)>,
}

impl Steps<'_> {
    async fn take(&mut self, mut at: u64, mut content: Bytes) -> Result<()> {
        while !content.is_empty() {
            let end = self.from.saturating_add(self.step);
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let part = content.split_to(left.clamp(1, content.len()));
            let length = part.len() as u64;
            self.hash.write(&part);
            self.writer.write_at(at, part).await?;
            self.transfer.watch.moved(length);
            at += length;
            if at >= end {
                self.cut(at).await?;
            }
        }
        Ok(())
    }

    /// Ends a step, and waits for the one before.
    async fn cut(&mut self, at: u64) -> Result<()> {
        let hash = std::mem::replace(&mut self.hash, XxHash3_128::new());
        let done = (self.from..at, hash.finish_128());
        let next = self.way.again();
        let writer = std::mem::replace(&mut self.writer, next);
        self.from = at;
        match self.before.replace((done, writer)) {
            Some((done, writer)) => self.transfer.written(done, writer).await.map(drop),
            None => Ok(()),
        }
    }

    async fn end(mut self, at: u64) -> Result<()> {
        if self.from < at {
            self.cut(at).await?;
        }
        match self.before.take() {
            Some((done, writer)) => self.transfer.written(done, writer).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The xxh3-128 of what comes, and `each` of it besides.
pub(super) async fn digest_of(mut pieces: Pieces, mut each: impl FnMut(&[u8])) -> Result<u128> {
    let mut hash = XxHash3_128::new();
    while let Some(piece) = pieces.next().await {
        let (_, content) = piece?;
        hash.write(&content);
        each(&content);
    }
    Ok(hash.finish_128())
}

fn next(todo: &Mutex<Missing>) -> Option<Range<u64>> {
    // Nothing that can panic runs while it is held.
    todo.lock().unwrap_or_else(PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_short_and_few() {
        assert_eq!(mark(20 << 20, 8 << 20), MARK);
        assert_eq!(mark(32 << 30, 8 << 20), 4 << 20);
        assert_eq!(mark(1 << 40, 8 << 20), 8 << 20);
        assert_eq!(mark(1 << 40, 4096), 4096);
        assert_eq!(mark(0, 0), 1);
    }

    #[test]
    fn what_is_missing_is_cut_at_multiples() {
        let cut = |done: &[(u64, u64)], size| {
            let done: Vec<Done> = done.iter().map(|(start, end)| (*start..*end, 0)).collect();
            missing(&done, size, 10).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[], 0), vec![]);
        assert_eq!(cut(&[], 25), vec![0..10, 10..20, 20..25]);
        assert_eq!(cut(&[(10, 20)], 25), vec![0..10, 20..25]);
        assert_eq!(cut(&[(0, 5), (15, 17)], 25), vec![5..10, 10..15, 17..20, 20..25]);
        assert_eq!(cut(&[(0, 25)], 25), vec![]);
        assert_eq!(cut(&[(0, 30)], 25), vec![]);
    }

    #[test]
    fn a_length_that_a_server_made_up_takes_no_memory() {
        let mut all = missing(&[], u64::MAX, 1);
        assert_eq!((all.next(), all.next()), (Some(0..1), Some(1..2)));
        assert_eq!(missing(&[], u64::MAX, u64::MAX).last(), Some(0..u64::MAX));
    }
}
