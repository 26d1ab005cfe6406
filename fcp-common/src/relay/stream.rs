//! The numbers of one end's messages.

use std::collections::VecDeque;

use fcp_proto::coding::DecodeError;
use fcp_proto::limits::MAX_UNACKED_MESSAGES;
use fcp_proto::{Flag, Violation};

/// One end's messages on their way to the other, which sees each number plus one.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The number that comes next.
    next: u32,
    /// The other end has all before this.
    acked: u32,
    /// The other end has acknowledged something, so it has the client's REQUEST.
    known: bool,
    /// Hashes of the messages from `acked` on: a repeated one must be the one that was checked.
    passed: VecDeque<blake3::Hash>,
}

impl Stream {
    /// A message came; answers with its number at the other end, and whether it is no repeat.
    pub(super) fn take(&mut self, flag: Flag, payload: &[u8]) -> Result<(u32, bool), Violation> {
        let Some(number) = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
            return Err(Violation::Decode { flag, error: DecodeError::Truncated });
        };
        let there = number.checked_add(1).ok_or(Violation::rule(flag, "is one too many"))?;
        if number < self.acked {
            // The other end drops it by its number and acknowledges again.
            return Ok((there, false));
        }
        let hash = blake3::Hasher::new().update(&[flag.0]).update(payload).finalize();
        if let Some(before) = self.passed.get((number - self.acked) as usize) {
            if *before != hash {
                return Err(Violation::rule(flag, "is another than came under its number before"));
            }
            return Ok((there, false));
        }
        // An end sends in order, and after a loss from the first that is not acknowledged; what it
        // does not know as acknowledged is not before what we know.
        if number != self.next {
            return Err(Violation::rule(flag, "comes before those that are numbered before it"));
        }
        if self.passed.len() >= MAX_UNACKED_MESSAGES {
            return Err(Violation::rule(flag, "is numbered beyond the window"));
        }
        self.passed.push_back(hash);
        self.next = there;
        Ok((there, true))
    }

    /// The other end has what it knows as all before `next`; answers what that is where the
    /// messages come from, unless it is only the client's REQUEST.
    pub(super) fn handle_ack(&mut self, next: u32) -> Result<Option<u32>, Violation> {
        self.known |= next > 0;
        let Some(next) = next.checked_sub(1) else { return Ok(None) };
        if next > self.next {
            return Err(Violation::rule(Flag::ACK, "acknowledges what was never sent"));
        }
        if next > self.acked {
            self.passed.drain(..(next - self.acked) as usize);
            self.acked = next;
        }
        Ok((next > 0).then_some(next))
    }

    /// Whether the other end certainly has the client's REQUEST.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.next == 0
    }
}
