//! The client's side of an opening over plain TCP, until the server has answered.

use std::io::{self, Read};

use fcp_proto::frame::{self, HEAD_LEN};
use fcp_proto::packet::Reply;
use fcp_proto::state::{Role, State, Verdict, Version, verdict};
use fcp_proto::{Flag, Violation, escape};

/// Frames that a version 1 server may send before its answer, in bytes.
const MAX_EARLY: usize = 4 << 20;

/// What the server said.
#[derive(Debug)]
pub struct Opened {
    /// The answer.
    pub reply: Reply,
    /// What a version 1 server sent before it, for [`crate::engine::Duplex::after`].
    pub early: Vec<u8>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended or was silent for too long.
    #[error("the server did not answer: {0}")]
    Io(#[from] io::Error),
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server refused; its words, escaped.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// Reads the answer to PUSH or PULL, and not one byte behind it.
///
/// On a pull a version 1 server may send announcements before SID. They are kept as they came: the
/// connection that is handed to [`super::receive()`] is to be wrapped by
/// [`Duplex::after`](crate::engine::Duplex::after), which plays them back. Deadlines are the
/// caller's, as read timeouts.
pub fn read_reply(reader: &mut dyn Read, pull: bool) -> Result<Opened, HandshakeError> {
    let state = if pull { State::ExpectSidOnPull } else { State::ExpectSid };
    let mut early = Vec::new();
    let mut exception = None;
    loop {
        let start = early.len();
        let flag = match (read_frame(reader, &mut early), exception.take()) {
            (Err(error), Some(text)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(HandshakeError::Refused(text));
            }
            (flag, text) => {
                exception = text;
                flag?
            }
        };
        let Some((frame, _)) = frame::decode(&early[start..]).map_err(Violation::from)? else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        if verdict(Version::Two, Role::Client, state, flag) != Verdict::Allowed {
            return Err(Violation::Unexpected { got: flag, expected: "SID" }.into());
        }
        match flag {
            Flag::SID => {
                let reply = Reply::decode(frame)?;
                early.truncate(start);
                return Ok(Opened { reply, early });
            }
            Flag::ERROR => {
                // A code comes before the text.
                let text = frame.payload.get(4..).unwrap_or_default();
                return Err(HandshakeError::Refused(escape(text)));
            }
            Flag::EXCEPTION if !pull => {
                return Err(HandshakeError::Refused(escape(frame.payload)));
            }
            // A sender that found nothing may say so before its server answers.
            Flag::EXCEPTION => exception = Some(escape(frame.payload)),
            _ if early.len() > MAX_EARLY => {
                return Err(Violation::rule(flag, "comes too long before SID").into());
            }
            _ => {}
        }
    }
}

/// Appends one frame as it came.
fn read_frame(reader: &mut dyn Read, out: &mut Vec<u8>) -> io::Result<Flag> {
    let mut head = [0; HEAD_LEN];
    reader.read_exact(&mut head)?;
    let [flag, .., high, low] = head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    out.extend_from_slice(&head);
    let start = out.len();
    out.resize(start + len, 0);
    reader.read_exact(&mut out[start..])?;
    Ok(Flag(flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcp_proto::v1::V1Packet;

    fn bytes(pull_first: &[V1Packet<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        pull_first.iter().for_each(|p| p.encode(&mut out));
        out
    }

    #[test]
    fn monofile_may_come_before_sid_and_is_kept() {
        let early = bytes(&[V1Packet::Monofile(true), V1Packet::FileCount(3)]);
        let mut all = early.clone();
        frame::encode(Flag::SID, &[7; 16], &mut all);
        let count = all.len();
        all.extend_from_slice(b"next");
        let mut reader = io::Cursor::new(all);
        let opened = read_reply(&mut reader, true).unwrap();
        assert_eq!((opened.early, opened.reply.sid.0), (early.clone(), [7; 16]));
        assert_eq!(reader.position(), count as u64);
        assert!(read_reply(&mut io::Cursor::new(early), false).is_err());
    }

    #[test]
    fn a_refusal_is_told_in_escaped_words() {
        let no = bytes(&[V1Packet::Exception("no\x1b[2J".into())]);
        for pull in [false, true] {
            let error = read_reply(&mut io::Cursor::new(&no), pull).unwrap_err();
            assert_eq!(error.to_string(), "the server refused: no\\033[2J");
        }
    }
}
