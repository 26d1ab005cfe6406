//! The bytes of a journal.
//!
//! A header, then records `length u16 | type u8 | payload | crc32`, all little-endian; the CRC is
//! over length, type and payload. The header is `"fcpjrnl"`, the version, the run id as u64 and a
//! CRC-32 of those: a journal under another run's name is no journal.

use fcp_proto::limits::MAX_PATH;
use fcp_proto::meta::{Digest, SourceVersion, Timestamp};
use fcp_proto::path::{Name, RelPath};

use super::names::RunId;

/// Bytes of one block that has a digest of its own. The last one of a file may be shorter.
pub const BLOCK_SIZE: u64 = 1 << 20;
/// Raised whenever a reader of the old format would misread the new one.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = MAGIC.len() + 1 + 8 + 4;

const MAGIC: &[u8; 7] = b"fcpjrnl";

const DIR: u8 = 1;
const BEGIN: u8 = 2;
const BLOCK: u8 = 3;
const END: u8 = 4;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Temps of this run may exist in this directory.
    Dir(RelPath),
    /// A file was begun.
    Begin {
        /// Its number in this journal.
        no: u32,
        /// Its destination.
        path: RelPath,
        /// The temp beside the destination.
        temp: Name,
        /// The source, as it was announced.
        version: SourceVersion,
    },
    /// A block was written to the temp.
    Block {
        /// The file.
        no: u32,
        /// Which block of [`BLOCK_SIZE`].
        index: u32,
        /// Digest of its bytes.
        digest: Digest,
    },
    /// The file is published or given up: its temp is not worth keeping.
    End {
        /// The file.
        no: u32,
    },
}

impl Record {
    /// Appends the record to `out`; false, and nothing appended, when a path is too long for it.
    #[must_use]
    pub fn encode(&self, out: &mut Vec<u8>) -> bool {
        // What a reader would refuse is not written: it would end the reading there.
        if self.path().is_some_and(|path| path.as_bytes().len() > MAX_PATH) {
            return false;
        }
        let start = out.len();
        out.extend_from_slice(&[0, 0, self.kind()]);
        self.put_payload(out);
        let Ok(len) = u16::try_from(out.len() - start - 3) else {
            out.truncate(start);
            return false;
        };
        out[start..start + 2].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        true
    }

    /// Takes one record off the front of `bytes`; `None` when they do not begin with a whole,
    /// sound one.
    pub fn decode(bytes: &mut &[u8]) -> Option<Record> {
        let len = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
        let (body, rest) = bytes.split_at_checked(3 + len)?;
        let (crc, rest) = rest.split_first_chunk()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let record = Record::read_payload(*body.get(2)?, body.get(3..)?)?;
        *bytes = rest;
        Some(record)
    }

    fn path(&self) -> Option<&RelPath> {
        match self {
            Record::Dir(path) | Record::Begin { path, .. } => Some(path),
            Record::Block { .. } | Record::End { .. } => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Record::Dir(_) => DIR,
            Record::Begin { .. } => BEGIN,
            Record::Block { .. } => BLOCK,
            Record::End { .. } => END,
        }
    }

    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            Record::Dir(path) => out.extend_from_slice(path.as_bytes()),
            Record::Begin { no, path, temp, version } => {
                out.extend_from_slice(&no.to_le_bytes());
                out.extend_from_slice(&version.size.to_le_bytes());
                out.extend_from_slice(&version.mtime.secs.to_le_bytes());
                out.extend_from_slice(&version.mtime.nanos.to_le_bytes());
                out.extend_from_slice(&version.token.to_le_bytes());
                // A name is at most 255 bytes.
                out.push(temp.len() as u8);
                out.extend_from_slice(temp);
                out.extend_from_slice(path.as_bytes());
            }
            Record::Block { no, index, digest } => {
                out.extend_from_slice(&no.to_le_bytes());
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&digest.0);
            }
            Record::End { no } => out.extend_from_slice(&no.to_le_bytes()),
        }
    }

    fn read_payload(kind: u8, payload: &[u8]) -> Option<Record> {
        let mut from = Reader(payload);
        let record = match kind {
            DIR => Record::Dir(from.rest_as_dir()?),
            BEGIN => from.begin()?,
            BLOCK => {
                let (no, index) = (from.u32()?, from.u32()?);
                Record::Block { no, index, digest: Digest(from.array()?) }
            }
            END => Record::End { no: from.u32()? },
            _ => return None,
        };
        from.0.is_empty().then_some(record)
    }
}

/// The header of `run`'s journal.
pub fn header(run: RunId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..7].copy_from_slice(MAGIC);
    out[7] = VERSION;
    out[8..16].copy_from_slice(&run.0.to_le_bytes());
    let crc = crc32fast::hash(&out[..16]);
    out[16..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What remains of `bytes` after the header of `run`'s journal in our version; `None` otherwise.
pub fn strip_header(bytes: &[u8], run: RunId) -> Option<&[u8]> {
    bytes.strip_prefix(&header(run))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn begin(&mut self) -> Option<Record> {
        let no = self.u32()?;
        let size = self.u64()?;
        let mtime = Timestamp { secs: self.u64()? as i64, nanos: self.u32()? };
        let version = SourceVersion { size, mtime, token: self.u64()? };
        let [temp_len] = self.array()?;
        let temp = Name::new(self.take(temp_len.into())?).ok()?;
        let path = RelPath::new(std::mem::take(&mut self.0)).ok()?;
        Some(Record::Begin { no, path, temp, version })
    }

    fn rest_as_dir(&mut self) -> Option<RelPath> {
        match std::mem::take(&mut self.0) {
            [] => Some(RelPath::root()),
            path => RelPath::new(path).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let path = RelPath::new(b"a/b\xff").unwrap();
        let temp = RunId(1).temp_name(2);
        let mtime = Timestamp { secs: -5, nanos: 999_999_999 };
        let version = SourceVersion { size: u64::MAX, mtime, token: 9 };
        vec![
            Record::Dir(RelPath::root()),
            Record::Dir(path.clone()),
            Record::Begin { no: 7, path, temp, version },
            Record::Block { no: 7, index: 3, digest: Digest([5; 16]) },
            Record::End { no: 7 },
        ]
    }

    #[test]
    fn every_record_is_read_back() {
        let mut bytes = Vec::new();
        assert!(samples().iter().all(|record| record.encode(&mut bytes)));
        let mut left = bytes.as_slice();
        for record in samples() {
            assert_eq!(Record::decode(&mut left), Some(record));
        }
        assert!(left.is_empty());
    }

    #[test]
    fn golden_bytes_never_change() {
        assert_eq!(header(RunId(1)), *b"fcpjrnl\x01\x01\0\0\0\0\0\0\0\xe7\xdd\x32\xd1");
        let mut bytes = Vec::new();
        assert!(Record::End { no: 1 }.encode(&mut bytes));
        assert_eq!(bytes, b"\x04\0\x04\x01\0\0\0\xc8\x3a\x1f\x24");
    }

    #[test]
    fn c07_a_flipped_bit_anywhere_is_no_record() {
        for record in samples() {
            let mut bytes = Vec::new();
            assert!(record.encode(&mut bytes));
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&mut bad.as_slice()), None, "bit {bit} of {record:?}");
            }
        }
    }
}
