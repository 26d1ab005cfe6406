//! What the ends say about entries: WANT, RESULTS, WRITTEN, digests, problems, the summary.

use crate::coding::{DecodeError, Reader, Wire, put_bytes16};
use crate::error::ErrorCode;
use crate::ids::FileId;
use crate::limits::{BLOCK, MAX_FILE_SIZE, MAX_PATH, MAX_TEXT};
use std::ops::Range;

/// An error as it travels: a code and a text that is escaped before anybody prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What kind of error.
    pub code: ErrorCode,
    /// At most [`MAX_TEXT`] bytes of explanation.
    pub text: String,
}

/// Content that the receiver lacks; adds to what it asked for before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The file.
    pub file: FileId,
    /// Byte ranges that begin at a multiple of [`BLOCK`]; none means the whole file.
    pub ranges: Vec<Range<u64>>,
}

/// What became of an entry; in a dry run, what would become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// The entry.
    pub file: FileId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already, content and metadata.
    Same,
    /// It did not exist and does now.
    Created,
    /// Its content was replaced.
    Replaced,
    /// Its content was right; its metadata was set.
    Metadata,
    /// Nothing was changed, and why.
    Failed(WireError),
}

/// A block that is written at the receiver and matched its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub file: FileId,
    /// Where the block begins.
    pub offset: u64,
}

/// BLAKE3 hashes of consecutive blocks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigests {
    /// The file.
    pub file: FileId,
    /// Number of the first block.
    pub first: u32,
    /// The hashes, 32 bytes each.
    pub hashes: Vec<[u8; 32]>,
}

/// Something at the source that could not be announced as an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path as the user would name it; bytes.
    pub path: Vec<u8>,
    /// What is wrong.
    pub error: WireError,
}

/// The receiver's account of the session.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries that were created, replaced or given metadata.
    pub changed: u64,
    /// Entries that were the same.
    pub same: u64,
    /// Entries that failed.
    pub failed: u64,
    /// Content bytes received.
    pub received: u64,
    /// Content bytes kept from an earlier run.
    pub kept: u64,
}

impl WireError {
    /// An error with its text cut to [`MAX_TEXT`] bytes.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> WireError {
        let mut text = text.into();
        text.truncate(cut_text(&text, MAX_TEXT).len());
        WireError { code, text }
    }
}

/// The front of `text` that is at most `max` bytes of whole characters.
pub(crate) fn cut_text(text: &str, max: usize) -> &str {
    let mut cut = text.len().min(max);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    &text[..cut]
}

impl Wire for WireError {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code.0.to_be_bytes());
        put_bytes16(out, self.text.as_bytes(), MAX_TEXT);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = ErrorCode(r.u16()?);
        // Bytes that are not UTF-8 grow when they are replaced, so the text is cut again.
        Ok(WireError::new(code, String::from_utf8_lossy(r.bytes16(MAX_TEXT)?)))
    }
}

impl Wire for Want {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0.to_be_bytes());
        out.extend_from_slice(&(self.ranges.len() as u16).to_be_bytes());
        for range in &self.ranges {
            out.extend_from_slice(&range.start.to_be_bytes());
            out.extend_from_slice(&range.end.to_be_bytes());
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let file = FileId(r.u32()?);
        let n = r.u16()?;
        // 16 bytes each: the message's own length bounds the list before it grows.
        let ranges = (0..n).map(|_| block_range(r)).collect::<Result<_, _>>()?;
        Ok(Want { file, ranges })
    }
}

fn block_range(r: &mut Reader<'_>) -> Result<Range<u64>, DecodeError> {
    let range = r.u64()?..r.u64()?;
    if range.start % BLOCK != 0 || range.is_empty() || range.end > MAX_FILE_SIZE {
        return Err(DecodeError::Malformed("a range that is not of blocks"));
    }
    Ok(range)
}

const SAME: u8 = 0;
const CREATED: u8 = 1;
const REPLACED: u8 = 2;
const METADATA: u8 = 3;
const FAILED: u8 = 4;

impl Wire for FileResult {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0.to_be_bytes());
        match &self.outcome {
            Outcome::Same => out.push(SAME),
            Outcome::Created => out.push(CREATED),
            Outcome::Replaced => out.push(REPLACED),
            Outcome::Metadata => out.push(METADATA),
            Outcome::Failed(error) => {
                out.push(FAILED);
                error.encode(out);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let file = FileId(r.u32()?);
        let outcome = match r.u8()? {
            SAME => Outcome::Same,
            CREATED => Outcome::Created,
            REPLACED => Outcome::Replaced,
            METADATA => Outcome::Metadata,
            FAILED => Outcome::Failed(WireError::decode(r)?),
            _ => return Err(DecodeError::Malformed("an unknown outcome")),
        };
        Ok(FileResult { file, outcome })
    }
}

impl Wire for Written {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let written = Written { file: FileId(r.u32()?), offset: r.u64()? };
        if !written.offset.is_multiple_of(BLOCK) || written.offset >= MAX_FILE_SIZE {
            return Err(DecodeError::Malformed("an offset where no block begins"));
        }
        Ok(written)
    }
}

impl Wire for FileDigests {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.0.to_be_bytes());
        out.extend_from_slice(&self.first.to_be_bytes());
        self.hashes.iter().for_each(|hash| out.extend_from_slice(hash));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (file, first) = (FileId(r.u32()?), r.u32()?);
        let mut hashes = Vec::new();
        while !r.is_empty() {
            hashes.push(r.array()?);
        }
        if hashes.is_empty() {
            return Err(DecodeError::Malformed("no hashes"));
        }
        Ok(FileDigests { file, first, hashes })
    }
}

impl Wire for Problem {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes16(out, &self.path, 2 * MAX_PATH);
        self.error.encode(out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let path = r.bytes16(2 * MAX_PATH)?.to_vec();
        Ok(Problem { path, error: WireError::decode(r)? })
    }
}

impl Wire for Summary {
    fn encode(&self, out: &mut Vec<u8>) {
        for n in [self.changed, self.same, self.failed, self.received, self.kept] {
            out.extend_from_slice(&n.to_be_bytes());
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Summary {
            changed: r.u64()?,
            same: r.u64()?,
            failed: r.u64()?,
            received: r.u64()?,
            kept: r.u64()?,
        })
    }
}
