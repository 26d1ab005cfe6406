//! Connections: in each direction a queue of bytes with latency, rate and a window.

use std::collections::VecDeque;
use std::time::Duration;

use fcp_proto::ConnId;

/// Bytes that arrive together.
const SEGMENT: usize = 128 * 1024;

pub(super) struct Pipe {
    pub(super) latency: Duration,
    /// Bytes per second.
    pub(super) rate: u64,
    /// Bytes that may be under way.
    pub(super) window: usize,
    queue: VecDeque<(Duration, Vec<u8>)>,
    under_way: usize,
    busy: Duration,
}

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) to_receiver: Pipe,
    pub(super) to_sender: Pipe,
    /// Bytes move; false once it is cut or stalled.
    pub(super) moves: bool,
    pub(super) sender_knows: bool,
    pub(super) receiver_knows: bool,
    /// Never lost nor stalled.
    pub(super) immune: bool,
    pub(super) at_receiver: super::shells::Inbound,
    pub(super) at_sender: super::shells::Inbound,
}

impl Pipe {
    pub(super) fn new(latency: Duration, rate: u64, window: usize) -> Pipe {
        let (queue, busy) = (VecDeque::new(), Duration::ZERO);
        Pipe { latency, rate, window, queue, under_way: 0, busy }
    }

    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.under_way)
    }

    pub(super) fn send(&mut self, now: Duration, bytes: Vec<u8>) {
        self.under_way += bytes.len();
        for part in bytes.chunks(SEGMENT) {
            let took = Duration::from_nanos(part.len() as u64 * 1_000_000_000 / self.rate);
            self.busy = self.busy.max(now) + took;
            self.queue.push_back((self.busy + self.latency, part.to_vec()));
        }
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.queue.front().map(|(at, _)| *at)
    }

    pub(super) fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        let (_, bytes) = self.queue.pop_front_if(|(at, _)| *at <= now)?;
        self.under_way -= bytes.len();
        Some(bytes)
    }
}

impl Conn {
    /// Whether either end still believes in it.
    pub(super) fn is_known(&self) -> bool {
        self.sender_knows || self.receiver_knows
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        let at = [self.to_receiver.next_at(), self.to_sender.next_at()];
        at.into_iter().flatten().min().filter(|_| self.moves)
    }
}
