//! What one direction of one connection is in the middle of.

use fcp_proto::limits::MAX_MESSAGE;
use fcp_proto::{ConnId, Flag, Violation};

use super::Side;

/// One direction of one connection; its reader's own.
#[derive(Debug)]
pub struct Lane {
    pub(super) from: Side,
    pub(super) conn: ConnId,
    parts: Vec<u8>,
    in_block: bool,
}

impl Lane {
    /// The direction from `from` of `conn`, between two frames.
    pub fn new(from: Side, conn: ConnId) -> Lane {
        Lane { from, conn, parts: Vec::new(), in_block: false }
    }

    /// A DATA, BLOCK or WHOLE frame came. What is in it is the receiver's business.
    pub fn handle_content(&mut self, flag: Flag) -> Result<(), Violation> {
        if self.from == Side::Sink {
            let expected = "messages, as this end receives";
            return Err(Violation::Unexpected { got: flag, expected });
        }
        if !self.parts.is_empty() {
            return Err(Violation::Unexpected { got: flag, expected: "PART or a message" });
        }
        if self.in_block && flag == Flag::WHOLE {
            return Err(Violation::Unexpected { got: flag, expected: "DATA or BLOCK" });
        }
        self.in_block = flag == Flag::DATA;
        Ok(())
    }

    /// Whether a block is under way, in which no other frame may stand.
    pub fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// Whether `flag`, which is not content, may stand here.
    pub(super) fn check_between(&self, flag: Flag) -> Result<(), Violation> {
        if self.in_block {
            return Err(Violation::Unexpected { got: flag, expected: "DATA or BLOCK" });
        }
        if !self.parts.is_empty() && flag != Flag::PART && !flag.is_message() {
            return Err(Violation::Unexpected { got: flag, expected: "PART or a message" });
        }
        Ok(())
    }

    pub(super) fn handle_part(&mut self, payload: &[u8]) -> Result<(), Violation> {
        if self.parts.len() + payload.len() > MAX_MESSAGE {
            return Err(Violation::rule(Flag::PART, "makes a message longer than 1 MiB"));
        }
        self.parts.extend_from_slice(payload);
        Ok(())
    }

    /// The whole payload of a message that ends with `payload`, when it had parts.
    pub(super) fn join(
        &mut self,
        flag: Flag,
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, Violation> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        if self.parts.len() + payload.len() > MAX_MESSAGE {
            return Err(Violation::rule(flag, "ends a message longer than 1 MiB"));
        }
        let mut joined = std::mem::take(&mut self.parts);
        joined.extend_from_slice(payload);
        Ok(Some(joined))
    }
}
