//! One direction of one pair of connections: frames in, checked and counted, frames out.

use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::packet::{Data, Whole};
use fcp_proto::{ConnId, Flag, Violation};

use super::super::conn::FrameReader;
use super::super::report::Counters;
use super::super::session::SessionError;
use super::{Hub, TICK, local};
use crate::relay::{Lane, Passing, Side, Stop};

/// Connections lost to damaged frames before the path itself is blamed.
const MAX_DAMAGED: usize = 3;
/// How long a connection that cannot be written may take to say why.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Why a direction ends.
enum Cut {
    Read(io::Error),
    Write(io::Error),
    Stop(Stop),
}

impl From<Stop> for Cut {
    fn from(stop: Stop) -> Cut {
        Cut::Stop(stop)
    }
}

impl From<Violation> for Cut {
    fn from(violation: Violation) -> Cut {
        Cut::Stop(violation.into())
    }
}

/// Ends the relay when a thread panics, so that nobody waits for it.
struct PanicGuard<'a>(&'a Hub);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fail(None, local("an error inside fcp (a thread panicked)"));
    }
}

impl Hub {
    /// Copies what `from` sends over its connection of `pair`, until that ends.
    pub(super) fn pump(&self, pair: usize, from: Side, reader: Box<dyn io::Read + Send>) {
        let guard = PanicGuard(self);
        match self.copy(pair, from, FrameReader::new(reader)) {
            Ok(()) => self.lose(pair, from, "the peer hung up"),
            Err(Cut::Read(error)) => self.lose(pair, from, &silence_or(&error)),
            Err(Cut::Write(error)) => {
                self.await_last_words(pair);
                self.lose(pair, from.other(), &silence_or(&error));
            }
            Err(Cut::Stop(Stop::Violation(Violation::Checksum(bad)))) => {
                if self.damaged.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_DAMAGED {
                    self.fail(Some(from), SessionError::Violation(bad.into()));
                }
                self.lose(pair, from, &bad.to_string());
            }
            Err(Cut::Stop(Stop::Violation(violation))) => self.fail(Some(from), violation.into()),
            Err(Cut::Stop(Stop::Error(error))) => self.fail(Some(from), SessionError::Peer(error)),
        }
        std::mem::forget(guard);
    }

    fn copy(&self, pair: usize, from: Side, mut reader: FrameReader) -> Result<(), Cut> {
        let mut lane = Lane::new(from, ConnId(pair as u32));
        let mut out = Passing::default();
        loop {
            let n = reader.fill(usize::MAX).map_err(Cut::Read)?;
            if n == 0 {
                return Ok(());
            }
            Counters::add(&self.counters.wire_in, n as u64);
            // Whole content frames that are not yet passed on.
            let mut run = 0..0;
            while let Some((flag, len)) = frame_at(reader.bytes(), run.end) {
                if matches!(flag, Flag::DATA | Flag::BLOCK | Flag::WHOLE) {
                    self.flush(pair, from, &mut out)?;
                    self.take_content(&mut lane, flag, len)?;
                    run.end += len;
                    continue;
                }
                self.pass_run(pair, &lane, reader.bytes(), &run)?;
                // Read again, as the checksum is to be right of what is acted on.
                let Some((frame, used)) = reader.frame_at(run.end)? else { break };
                self.take_frame(&mut lane, frame, &mut out)?;
                run = run.end + used..run.end + used;
            }
            self.pass_run(pair, &lane, reader.bytes(), &run)?;
            self.flush(pair, from, &mut out)?;
            reader.take(run.end);
        }
    }

    fn take_content(&self, lane: &mut Lane, flag: Flag, len: usize) -> Result<(), Violation> {
        if !self.started.load(Ordering::Acquire) {
            return Err(Violation::rule(flag, "comes before anything was asked for"));
        }
        let head = HEAD_LEN + if flag == Flag::DATA { Data::HEAD } else { Whole::HEAD };
        if flag != Flag::BLOCK {
            Counters::add(&self.counters.moved_bytes, len.saturating_sub(head) as u64);
        }
        lane.handle_content(flag)
    }

    fn take_frame(
        &self,
        lane: &mut Lane,
        frame: fcp_proto::frame::Frame<'_>,
        out: &mut Passing,
    ) -> Result<(), Stop> {
        let (events, taken) = {
            let mut relay = self.relay();
            let taken = relay.handle_frame(lane, frame, out);
            self.counters.set_announced(relay.announced());
            if let Some(summary) = relay.closed()
                && !self.closed.swap(true, Ordering::AcqRel)
            {
                Counters::add(&self.counters.kept_bytes, summary.kept);
            }
            (std::iter::from_fn(|| relay.poll_event()).collect(), taken)
        };
        self.tell(events);
        taken?;
        if !self.started.load(Ordering::Acquire) {
            self.start_if_due();
        }
        Ok(())
    }

    /// Writes content frames as they came.
    fn pass_run(
        &self,
        pair: usize,
        lane: &Lane,
        bytes: &[u8],
        run: &Range<usize>,
    ) -> Result<(), Cut> {
        let (Some(run), Some(pair)) = (bytes.get(run.clone()), self.pairs.get(pair)) else {
            return Ok(());
        };
        if run.is_empty() {
            return Ok(());
        }
        // Only a source's content gets as far as here.
        let mut out = pair.sink.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.in_block = lane.is_in_block();
        self.write(&mut out, run).map_err(Cut::Write)
    }

    /// Writes messages and the like.
    fn flush(&self, pair: usize, from: Side, passing: &mut Passing) -> Result<(), Cut> {
        let Some(ends) = self.pairs.get(pair) else { return Ok(()) };
        for (to, bytes) in [(from, &mut passing.back), (from.other(), &mut passing.on)] {
            if bytes.is_empty() {
                continue;
            }
            let mut out = ends.port(to).out.lock().unwrap_or_else(PoisonError::into_inner);
            let done = self.write(&mut out, bytes);
            bytes.clear();
            match done {
                // Our own reader tells.
                Err(_) if to == from => {}
                done => done.map_err(Cut::Write)?,
            }
        }
        Ok(())
    }

    /// A server that ends a session says why and closes: its other direction has the reason.
    fn await_last_words(&self, pair: usize) {
        let until = Instant::now() + LAST_WORDS;
        let alive = || self.pairs.get(pair).is_some_and(|pair| pair.alive.load(Ordering::Acquire));
        while alive() && !self.is_over() && Instant::now() < until {
            std::thread::sleep(TICK);
        }
    }
}

/// The flag and length of the whole frame that begins at `at`; its checksum is its reader's
/// business.
fn frame_at(bytes: &[u8], at: usize) -> Option<(Flag, usize)> {
    let rest = bytes.get(at..)?;
    let head = Head::from_bytes(*rest.first_chunk::<HEAD_LEN>()?);
    let len = HEAD_LEN + usize::from(head.len);
    (rest.len() >= len).then_some((head.flag, len))
}

/// The text for an error of a connection; a timed-out call says so in words.
fn silence_or(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the peer is silent".to_owned(),
        _ => error.to_string(),
    }
}
