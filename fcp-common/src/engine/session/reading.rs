//! A connection's reading thread: frames in, to the machine or to the role.

use std::io;
use std::sync::atomic::Ordering;

use fcp_proto::coding::decode_exact;
use fcp_proto::frame::Frame;
use fcp_proto::limits::MAX_MESSAGE;
use fcp_proto::packet::{Sequenced, WireError};
use fcp_proto::{ConnId, Flag, Violation};

use super::super::conn::FrameReader;
use super::{Machine, PanicGuard, Role, Session, SessionError};
use crate::engine::Counters;

/// Connections lost to damaged frames before the path itself is blamed.
const MAX_DAMAGED: usize = 3;

impl<R: Role> Session<R> {
    pub(super) fn read(&self, conn: ConnId, reader: Box<dyn io::Read + Send>) {
        let guard = PanicGuard(self);
        let lost = match self.read_frames(FrameReader::new(reader)) {
            Ok(()) => "the peer hung up".to_owned(),
            Err(ReadError::Violation(Violation::Checksum(bad))) => {
                if self.damaged.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_DAMAGED {
                    self.fail(SessionError::Violation(bad.into()));
                }
                bad.to_string()
            }
            Err(ReadError::Violation(violation)) => {
                // The writer tells the peer before the connection is closed.
                self.fail(violation.into());
                return guard.disarm();
            }
            Err(ReadError::Io(error)) => silence_or(&error),
        };
        self.lose(conn, &lost);
        guard.disarm();
    }

    fn read_frames(&self, mut reader: FrameReader) -> Result<(), ReadError> {
        let mut intake = R::Intake::default();
        let mut parts = Vec::new();
        let (mut parsed, mut limit) = (0, usize::MAX);
        loop {
            let n = reader.fill(limit).map_err(ReadError::Io)?;
            if n == 0 {
                return Ok(());
            }
            Counters::add(&self.counters.wire_in, n as u64);
            let mut batch = Batch::default();
            let mut only_alive = true;
            while let Some((frame, used)) = reader.frame_at(parsed)? {
                self.take_frame(
                    frame,
                    parsed,
                    reader.bytes(),
                    &mut intake,
                    &mut parts,
                    &mut batch,
                )?;
                only_alive &= frame.flag == Flag::KEEPALIVE;
                parsed += used;
            }
            if !only_alive {
                self.heard.store(self.now().as_secs(), Ordering::Relaxed);
            }
            let (keep_from, next) = self.role.drained(self, &mut intake, reader.bytes(), parsed)?;
            limit = next;
            reader.take(keep_from);
            parsed -= keep_from;
            self.feed(batch)?;
            self.role.act(self);
            self.notify();
            if self.machine().is_over() {
                self.end();
            }
        }
    }

    fn take_frame(
        &self,
        frame: Frame<'_>,
        at: usize,
        buffer: &[u8],
        intake: &mut R::Intake,
        parts: &mut Vec<u8>,
        batch: &mut Batch,
    ) -> Result<(), Violation> {
        let flag = frame.flag;
        if matches!(flag, Flag::DATA | Flag::BLOCK | Flag::WHOLE) {
            return self.role.content(self, intake, frame, at, buffer);
        }
        self.role.check(intake, flag)?;
        let decode = |error| Violation::Decode { flag, error };
        match flag {
            Flag::PART => {
                parts.extend_from_slice(frame.payload);
                if parts.len() > MAX_MESSAGE {
                    return Err(Violation::rule(flag, "makes a message longer than 1 MiB"));
                }
            }
            _ if flag.is_message() && parts.is_empty() => {
                let m = Sequenced::from_payload(flag, frame.payload)?;
                batch.messages.push((m, frame.payload.len()));
            }
            _ if flag.is_message() => {
                parts.extend_from_slice(frame.payload);
                let joined = std::mem::take(parts);
                if joined.len() > MAX_MESSAGE {
                    return Err(Violation::rule(flag, "ends a message longer than 1 MiB"));
                }
                batch.messages.push((Sequenced::from_payload(flag, &joined)?, joined.len()));
            }
            _ if !parts.is_empty() => {
                return Err(Violation::Unexpected { got: flag, expected: "PART or a message" });
            }
            Flag::ACK => {
                let next = frame
                    .payload
                    .try_into()
                    .map_err(|_| Violation::rule(flag, "is not four bytes long"))?;
                batch.acks.push(u32::from_be_bytes(next));
            }
            Flag::ERROR => {
                let error = decode_exact::<WireError>(frame.payload).map_err(decode)?;
                self.fail(SessionError::Peer(error));
            }
            _ if flag.is_ignorable() => {}
            got => {
                return Err(Violation::Unexpected { got, expected: "a version 2 session frame" });
            }
        }
        Ok(())
    }

    fn feed(&self, batch: Batch) -> Result<(), Violation> {
        if batch.messages.is_empty() && batch.acks.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let mut machine = self.machine();
        for next in batch.acks {
            machine.handle_ack(next, now)?;
        }
        batch.messages.into_iter().try_for_each(|(m, len)| machine.handle_message(m, len, now))
    }
}

/// The text for an error of a connection; a timed-out call says so in words.
fn silence_or(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the peer is silent".to_owned(),
        _ => error.to_string(),
    }
}

#[derive(Default)]
struct Batch {
    messages: Vec<(Sequenced, usize)>,
    acks: Vec<u32>,
}

enum ReadError {
    Io(io::Error),
    Violation(Violation),
}

impl From<Violation> for ReadError {
    fn from(violation: Violation) -> Self {
        ReadError::Violation(violation)
    }
}
