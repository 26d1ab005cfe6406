//! A connection's writing thread: messages, then content, then sleep.

use std::io::{self, Write};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fcp_proto::coding::Wire;
use fcp_proto::packet::WireError;
use fcp_proto::{ConnId, Flag, frame};

use super::{Machine, PanicGuard, Role, Session, SessionError};
use crate::engine::Counters;

/// Longest silence of ours on a connection; far below the peer's 60 s.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a reader may take to find what the peer said before it hung up.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a writer sleeps at most while it has something to watch for.
const TICK: Duration = Duration::from_millis(500);
/// How long the carrier's writer sleeps at most while the machine is being fed: what it may find
/// then was not worth a wake-up of its own.
const BUSY_TICK: Duration = Duration::from_millis(3);
/// How long after it was last fed the machine counts as busy.
const ACTIVE_MILLIS: u64 = 100;
/// Message bytes that go out in one write.
const MESSAGES_AT_ONCE: usize = 64 << 10;

impl<R: Role> Session<R> {
    pub(super) fn write(&self, conn: ConnId, mut writer: Box<dyn Write + Send>) {
        let guard = PanicGuard(self);
        if let Err(error) = self.write_frames(conn, &mut *writer) {
            self.await_last_words(conn);
            self.lose(conn, &error.to_string());
        }
        self.writers.fetch_sub(1, Ordering::AcqRel);
        guard.disarm();
    }

    fn write_frames(&self, conn: ConnId, writer: &mut dyn Write) -> io::Result<()> {
        let mut out = Vec::with_capacity(2 * MESSAGES_AT_ONCE);
        let mut last_write = Instant::now();
        loop {
            out.clear();
            let go_on = self.next_messages(conn, last_write, &mut out);
            if !out.is_empty() {
                self.write_all(writer, &out)?;
                last_write = Instant::now();
                if self.machine().is_over() {
                    self.end();
                }
            }
            if !go_on {
                return Ok(());
            }
            if self.role.write_content(self, conn, writer)? {
                last_write = Instant::now();
            }
        }
    }

    /// A peer that hung up may have said why, and closing `conn` would throw that away: its reader
    /// gets a moment to find it.
    fn await_last_words(&self, conn: ConnId) {
        let until = Instant::now() + LAST_WORDS;
        while self.is_open(conn) && !self.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.closers.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&conn)
    }

    pub(in crate::engine) fn write_all(
        &self,
        writer: &mut dyn Write,
        bytes: &[u8],
    ) -> io::Result<()> {
        Counters::add(&self.counters.wire_out, bytes.len() as u64);
        writer.write_all(bytes)
    }

    /// Waits until `conn` has something to write; fills `out` with messages. `false` at the end.
    fn next_messages(&self, conn: ConnId, last_write: Instant, out: &mut Vec<u8>) -> bool {
        let mut machine = self.machine();
        loop {
            let now = self.now();
            let over = self.is_over();
            if over && let Some(error) = self.failure_to_tell() {
                frame::encode_with(Flag::ERROR, out, |out| error.encode(out));
                return false;
            }
            if !self.is_open(conn) || (over && R::HANGS_UP) {
                return false;
            }
            if machine.has_transmit(conn, now) {
                machine.poll_transmit(conn, now, MESSAGES_AT_ONCE, out);
                return true;
            }
            if last_write.elapsed() >= KEEPALIVE {
                frame::encode(Flag::KEEPALIVE, &[], out);
                return true;
            }
            let due = machine.poll_timeout(now).map(|at| at.saturating_sub(now));
            let limit = due.unwrap_or(KEEPALIVE - last_write.elapsed().min(KEEPALIVE));
            let active = (now.as_millis() as u64)
                .saturating_sub(self.active.load(Ordering::Relaxed))
                < ACTIVE_MILLIS;
            let tick = if active && machine.is_carrier(conn) { BUSY_TICK } else { TICK };
            let limit = limit.clamp(Duration::from_millis(1), tick);
            machine = self.wait(machine, limit);
            machine.handle_timeout(self.now());
            if self.now() - now >= tick.min(TICK) && R::HANGS_UP {
                // Time to look for content that another connection has carried for too long.
                return true;
            }
        }
    }

    pub(super) fn failure_to_tell(&self) -> Option<WireError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            // The peer knows its own error, and a lost connection tells nobody.
            None | Some(SessionError::Peer(_) | SessionError::Lost(_)) => None,
            Some(error) => Some(error.to_wire()),
        }
    }
}
