//! DATA, BLOCK and WHOLE: file content. These frames are not numbered; a lost one is known by its
//! block, which is sent again.

use crate::coding::{DecodeError, Reader};
use crate::flag::Flag;
use crate::frame::{HEAD_LEN, Head};
use crate::ids::FileId;
use crate::limits::{BLOCK, MAX_FILE_SIZE, MAX_WHOLE};
use crate::meta::Digest;

/// Some bytes of a block; they follow each other on one connection without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// The file.
    pub file: FileId,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// At least one byte.
    pub bytes: &'a [u8],
}

/// Where a block lies: it never crosses a multiple of [`BLOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The file.
    pub file: FileId,
    /// Where in the file it begins: a multiple of [`BLOCK`].
    pub offset: u64,
    /// 1 to [`BLOCK`] bytes.
    pub len: u32,
}

/// BLOCK: all bytes of a block have been sent on this connection; this is their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDigest {
    /// The block.
    pub block: Block,
    /// Its xxh3-128.
    pub digest: Digest,
}

/// WHOLE: a file of at most [`MAX_WHOLE`] bytes in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    /// The file.
    pub file: FileId,
    /// The xxh3-128 of its content.
    pub digest: Digest,
    /// Its content: at least one byte.
    pub bytes: &'a [u8],
}

impl<'a> Data<'a> {
    /// Bytes in a DATA payload before the content.
    pub const HEAD: usize = 12;

    /// Reads a DATA payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let (file, offset, bytes) = (FileId(r.u32()?), r.u64()?, r.rest());
        if bytes.is_empty() {
            return Err(DecodeError::Malformed("no content"));
        }
        check_end(offset, bytes.len() as u64)?;
        Ok(Data { file, offset, bytes })
    }
}

impl BlockDigest {
    /// Bytes in a BLOCK payload.
    pub const LEN: usize = 32;

    /// Reads a BLOCK payload.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let block = Block { file: FileId(r.u32()?), offset: r.u64()?, len: r.u32()? };
        let digest = Digest(r.array()?);
        r.finish()?;
        if !block.offset.is_multiple_of(BLOCK) || block.len == 0 || u64::from(block.len) > BLOCK {
            return Err(DecodeError::Malformed("an extent that is no block"));
        }
        check_end(block.offset, block.len.into())?;
        Ok(BlockDigest { block, digest })
    }
}

impl<'a> Whole<'a> {
    /// Bytes in a WHOLE payload before the content.
    pub const HEAD: usize = 20;

    /// Reads a WHOLE payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let (file, digest, bytes) = (FileId(r.u32()?), Digest(r.array()?), r.rest());
        if bytes.is_empty() || bytes.len() > MAX_WHOLE {
            return Err(DecodeError::Malformed("no content or too much of it"));
        }
        Ok(Whole { file, digest, bytes })
    }
}

/// Writes the frame head and DATA head for `bytes`, which follow them on the wire, into `head`.
pub fn put_data_head(
    head: &mut [u8; HEAD_LEN + Data::HEAD],
    file: FileId,
    offset: u64,
    bytes: &[u8],
) {
    head[HEAD_LEN..HEAD_LEN + 4].copy_from_slice(&file.0.to_be_bytes());
    head[HEAD_LEN + 4..].copy_from_slice(&offset.to_be_bytes());
    let frame = head_over(Flag::DATA, &head[HEAD_LEN..], bytes);
    head[..HEAD_LEN].copy_from_slice(&frame.to_bytes());
}

/// Writes the frame head and WHOLE head for `bytes` into `head`.
pub fn put_whole_head(
    head: &mut [u8; HEAD_LEN + Whole::HEAD],
    file: FileId,
    digest: Digest,
    bytes: &[u8],
) {
    head[HEAD_LEN..HEAD_LEN + 4].copy_from_slice(&file.0.to_be_bytes());
    head[HEAD_LEN + 4..].copy_from_slice(&digest.0);
    let frame = head_over(Flag::WHOLE, &head[HEAD_LEN..], bytes);
    head[..HEAD_LEN].copy_from_slice(&frame.to_bytes());
}

/// The whole BLOCK frame.
pub fn put_block(BlockDigest { block, digest }: BlockDigest) -> [u8; HEAD_LEN + BlockDigest::LEN] {
    let mut out = [0; HEAD_LEN + BlockDigest::LEN];
    let payload = &mut out[HEAD_LEN..];
    payload[..4].copy_from_slice(&block.file.0.to_be_bytes());
    payload[4..12].copy_from_slice(&block.offset.to_be_bytes());
    payload[12..16].copy_from_slice(&block.len.to_be_bytes());
    payload[16..].copy_from_slice(&digest.0);
    let head = Head::of(Flag::BLOCK, payload).to_bytes();
    out[..HEAD_LEN].copy_from_slice(&head);
    out
}

/// Keeps every sum of an offset and a length far from the end of `u64`.
fn check_end(offset: u64, len: u64) -> Result<(), DecodeError> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_FILE_SIZE => Ok(()),
        _ => Err(DecodeError::Malformed("content behind the largest file size")),
    }
}

/// A frame head over a payload in two pieces.
fn head_over(flag: Flag, first: &[u8], second: &[u8]) -> Head {
    let mut crc = crc32fast::Hasher::new();
    crc.update(first);
    crc.update(second);
    Head { flag, crc: crc.finalize(), len: (first.len() + second.len()) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_content_behind_the_largest_file_is_refused() {
        let payload = |offset: u64| [&[0; 4], &offset.to_be_bytes()[..], b"x"].concat();
        assert!(Data::decode(&payload(MAX_FILE_SIZE - 1)).is_ok());
        for offset in [MAX_FILE_SIZE, u64::MAX - BLOCK + 1, u64::MAX] {
            assert!(Data::decode(&payload(offset)).is_err(), "{offset}");
            let block = Block { file: FileId(0), offset: offset & !(BLOCK - 1), len: 1 << 20 };
            let frame = put_block(BlockDigest { block, digest: Digest::default() });
            assert!(BlockDigest::decode(&frame[HEAD_LEN..]).is_err(), "{offset}");
        }
    }
}
