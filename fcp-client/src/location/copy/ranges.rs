//! The content of one file on its way, in ranges at the same time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use twox_hash::XxHash3_128;

use super::Watch;
use super::hash::Hasher;
use crate::location::{Digest, LocationError, Op, Pieces, Reason, Result, Sink, Source, Writer};

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
    /// Tell `watch` of written ranges.
    pub(super) tell_ranges: bool,
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

    /// Moves everything in order, by one stream, and hashes it on the way.
    pub(super) async fn run_hashed(self, size: u64) -> Result<(Vec<Done>, Digest)> {
        let mut hasher = Hasher::new(false);
        let writer = self.sink.writer().await;
        let done = self.range(0..size, &writer, Some(&mut hasher)).await?;
        self.written(done.clone(), writer).await?;
        Ok((vec![done], hasher.finish().0))
    }

    async fn work(self, todo: Arc<Mutex<Missing>>) -> Result<Vec<Done>> {
        let mut done = Vec::new();
        let mut before = None;
        let way = self.sink.writer().await;
        // The answers to the last writes of a range come while the next one is on its way.
        while let Some(range) = next(&todo) {
            let settle = async {
                match before.take() {
                    Some((moved, writer)) => self.written(moved, writer).await,
                    None => Ok(()),
                }
            };
            let writer = way.again();
            let (moved, ()) = tokio::try_join!(self.range(range, &writer, None), settle)?;
            done.push(moved.clone());
            before = Some((moved, writer));
        }
        if let Some((moved, writer)) = before {
            self.written(moved, writer).await?;
        }
        Ok(done)
    }

    async fn range(
        &self,
        range: Range<u64>,
        writer: &Writer<'_>,
        mut hasher: Option<&mut Hasher>,
    ) -> Result<Done> {
        let mut pieces = self.source.read_range(range.clone());
        let mut hash = XxHash3_128::new();
        while let Some(piece) = pieces.next().await {
            let (at, content) = piece?;
            if self.watch.is_cancelled() {
                return Err(self.failed(Reason::Cancelled, "it was stopped"));
            }
            hash.write(&content);
            if let Some(hasher) = &mut hasher {
                hasher.update(&content);
            }
            let length = content.len() as u64;
            writer.write_at(at, content).await?;
            self.watch.moved(length);
        }
        Ok((range, hash.finish_128()))
    }

    async fn written(&self, (range, digest): Done, writer: Writer<'_>) -> Result<()> {
        writer.settle().await?;
        if self.tell_ranges {
            self.watch.written(range, digest);
        }
        Ok(())
    }

    fn failed(&self, reason: Reason, text: &str) -> LocationError {
        LocationError::new(&self.label.0, Op::Read, &self.label.1, reason, text)
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
