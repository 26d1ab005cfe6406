//! The numbered stream: messages that arrive once and in order, over whichever connections live.

use crate::coding::{DecodeError, Reader, Wire};
use crate::error::Violation;
use crate::flag::Flag;
use crate::frame;
use crate::ids::{DirId, FileId};
use crate::limits::MAX_MESSAGE;
use crate::packet::{
    Entry, FileDigests, FileResult, Problem, Request, RootMeta, Summary, Want, WireError, Written,
};

/// One message of the numbered stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What the client wants; its first message.
    Request(Request),
    /// Files, directories and links of the source.
    Entries(Vec<Entry>),
    /// Directories whose children have all been announced.
    DirsEnd(Vec<DirId>),
    /// Content that the receiver lacks.
    Want(Vec<Want>),
    /// What became of entries.
    Results(Vec<FileResult>),
    /// Blocks that are written and checked.
    Written(Vec<Written>),
    /// Files whose block hashes the receiver asks for.
    DigestsWanted(Vec<FileId>),
    /// Hashes of a file's blocks.
    Digests(FileDigests),
    /// Something at the source that could not be announced.
    Problem(Problem),
    /// The first is void; the entry stands for it.
    Replaced(FileId, Entry),
    /// An announced entry that the sender cannot send.
    Gone(FileId, WireError),
    /// Nothing more will be announced.
    Finish(RootMeta),
    /// The receiver's account; the session is over.
    Close(Summary),
}

/// A message with its number, counted from 0 in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// The number.
    pub seq: u32,
    /// The message.
    pub message: Message,
}

/// ACK: every message before number `next` has arrived. The body of ERROR is a [`WireError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The number of the message that is expected next.
    pub next: u32,
}

impl Wire for Ack {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.next.to_be_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Ack { next: r.u32()? })
    }
}

impl Message {
    /// The flag of the frame that ends this message.
    pub fn flag(&self) -> Flag {
        match self {
            Message::Request(_) => Flag::REQUEST,
            Message::Entries(_) => Flag::ENTRIES,
            Message::DirsEnd(_) => Flag::DIRS_END,
            Message::Want(_) => Flag::WANT,
            Message::Results(_) => Flag::RESULTS,
            Message::Written(_) => Flag::WRITTEN,
            Message::DigestsWanted(_) => Flag::DIGESTS_WANTED,
            Message::Digests(_) => Flag::DIGESTS,
            Message::Problem(_) => Flag::PROBLEM,
            Message::Replaced(..) => Flag::REPLACED,
            Message::Gone(..) => Flag::GONE,
            Message::Finish(_) => Flag::FINISH,
            Message::Close(_) => Flag::CLOSE,
        }
    }

    /// The joined payload of this message as number `seq`: the number, then the body.
    pub fn to_payload(&self, seq: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&seq.to_be_bytes());
        self.encode_body(&mut out);
        debug_assert!(out.len() <= MAX_MESSAGE, "the machines keep messages below the limit");
        out
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Message::Request(request) => request.encode(out),
            Message::Entries(list) => list.iter().for_each(|x| x.encode(out)),
            Message::DirsEnd(list) => list.iter().for_each(|x| x.encode(out)),
            Message::Want(list) => list.iter().for_each(|x| x.encode(out)),
            Message::Results(list) => list.iter().for_each(|x| x.encode(out)),
            Message::Written(list) => list.iter().for_each(|x| x.encode(out)),
            Message::DigestsWanted(list) => list.iter().for_each(|x| x.encode(out)),
            Message::Digests(digests) => digests.encode(out),
            Message::Problem(problem) => problem.encode(out),
            Message::Replaced(old, entry) => {
                old.encode(out);
                entry.encode(out);
            }
            Message::Gone(id, error) => {
                id.encode(out);
                error.encode(out);
            }
            Message::Finish(root) => root.encode(out),
            Message::Close(summary) => summary.encode(out),
        }
    }

    fn decode_body(flag: Flag, r: &mut Reader<'_>) -> Result<Message, DecodeError> {
        Ok(match flag {
            Flag::REQUEST => Message::Request(Request::decode(r)?),
            Flag::ENTRIES => Message::Entries(r.until_end()?),
            Flag::DIRS_END => Message::DirsEnd(r.until_end()?),
            Flag::WANT => Message::Want(r.until_end()?),
            Flag::RESULTS => Message::Results(r.until_end()?),
            Flag::WRITTEN => Message::Written(r.until_end()?),
            Flag::DIGESTS_WANTED => Message::DigestsWanted(r.until_end()?),
            Flag::DIGESTS => Message::Digests(FileDigests::decode(r)?),
            Flag::PROBLEM => Message::Problem(Problem::decode(r)?),
            Flag::REPLACED => Message::Replaced(FileId::decode(r)?, Entry::decode(r)?),
            Flag::GONE => Message::Gone(FileId::decode(r)?, WireError::decode(r)?),
            Flag::FINISH => Message::Finish(RootMeta::decode(r)?),
            Flag::CLOSE => Message::Close(Summary::decode(r)?),
            _ => return Err(DecodeError::Malformed("an unknown message")),
        })
    }
}

impl Sequenced {
    /// Reads a joined payload of at most [`MAX_MESSAGE`] bytes.
    pub fn from_payload(flag: Flag, payload: &[u8]) -> Result<Sequenced, Violation> {
        let mut r = Reader::new(payload);
        let decode = |r: &mut Reader<'_>| {
            let seq = r.u32()?;
            let message = Message::decode_body(flag, r)?;
            r.finish()?;
            Ok(Sequenced { seq, message })
        };
        decode(&mut r).map_err(|error| Violation::Decode { flag, error })
    }

    /// Appends the frames of a message with this joined `payload`: PART frames while it is longer
    /// than `max_frame`, then one with the message's own flag.
    pub fn put_frames(flag: Flag, payload: &[u8], max_frame: usize, out: &mut Vec<u8>) {
        let mut rest = payload;
        while rest.len() > max_frame {
            let (part, more) = rest.split_at(max_frame);
            frame::encode(Flag::PART, part, out);
            rest = more;
        }
        frame::encode(flag, rest, out);
    }
}

macro_rules! wire_id {
    ($($t:ident)*) => {$(
        impl Wire for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0.to_be_bytes());
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.u32().map($t)
            }
        }
    )*};
}
wire_id!(FileId DirId);
