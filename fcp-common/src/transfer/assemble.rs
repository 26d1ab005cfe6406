//! Joins the DATA frames of one connection into blocks and checks them, before anything is written.

use std::ops::Range;

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Block, BlockDigest, Data};
use fcp_proto::{Digest, FileId, Flag, Violation};
use twox_hash::XxHash3_128;

/// Smallest DATA content but for a block's last. Keeps a block's frames and their heads below a
/// buffer of one block and [`Assembler::OVERHEAD`].
pub const MIN_DATA: usize = 4096;

/// The block that a connection is in the middle of. Holds places in the caller's buffer, no bytes.
#[derive(Debug, Default)]
pub struct Assembler {
    file: Option<FileId>,
    start: u64,
    len: u64,
    /// Where in the buffer the content lies, relative to the block's first frame.
    pieces: Vec<Range<usize>>,
    short: bool,
}

/// A run of content in the caller's buffer.
pub type Piece = Range<usize>;

impl Assembler {
    /// Bytes that the frames of a block take besides its content, at most.
    pub const OVERHEAD: usize = (BLOCK as usize / MIN_DATA + 1)
        * (fcp_proto::frame::HEAD_LEN + Data::HEAD)
        + fcp_proto::frame::HEAD_LEN
        + BlockDigest::LEN;

    /// A DATA frame, its content at `piece` of the buffer.
    pub fn handle_data(&mut self, data: &Data<'_>, piece: Piece) -> Result<(), Violation> {
        let rule = |reason| Err(Violation::rule(Flag::DATA, reason));
        match self.file {
            None => {
                if !data.offset.is_multiple_of(BLOCK) {
                    return rule("begins inside a block");
                }
                *self =
                    Assembler { file: Some(data.file), start: data.offset, ..Assembler::default() };
            }
            // No sum, which could pass the largest number there is.
            Some(file)
                if file == data.file && data.offset.checked_sub(self.start) == Some(self.len) => {}
            Some(_) => return rule("does not continue the block before it"),
        }
        if std::mem::replace(&mut self.short, data.bytes.len() < MIN_DATA) {
            return rule("follows one of less than 4096 bytes");
        }
        self.len += data.bytes.len() as u64;
        if self.len > BLOCK {
            return rule("crosses the end of its block");
        }
        self.pieces.push(piece);
        Ok(())
    }

    /// The BLOCK frame that ends the block: its content's pieces, and whether they match.
    ///
    /// `base` is the buffer from the place that pieces count from.
    pub fn handle_block(
        &mut self,
        end: &BlockDigest,
        base: &[u8],
    ) -> Result<(Vec<Piece>, bool), Violation> {
        let Block { file, offset, len } = end.block;
        if self.file != Some(file) || self.start != offset || self.len != u64::from(len) {
            return Err(Violation::rule(Flag::BLOCK, "ends a block that was not sent"));
        }
        let done = std::mem::take(self);
        let mut hash = XxHash3_128::new();
        done.pieces.iter().for_each(|piece| hash.write(&base[piece.clone()]));
        let matches = Digest(hash.finish_128().to_be_bytes()) == end.digest;
        Ok((done.pieces, matches))
    }

    /// Fails when a block is unfinished: no other frame may stand between its frames.
    pub fn check_idle(&self, flag: Flag) -> Result<(), Violation> {
        match self.file {
            None => Ok(()),
            Some(_) => Err(Violation::Unexpected { got: flag, expected: "DATA or BLOCK" }),
        }
    }

    /// Content bytes of the unfinished block; `None` between blocks.
    pub fn pending(&self) -> Option<u64> {
        self.file.map(|_| self.len)
    }
}

/// The xxh3-128 of `bytes`, big-endian as it travels.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(XxHash3_128::oneshot(bytes).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, bytes: &[u8]) -> Data<'_> {
        Data { file: FileId(1), offset, bytes }
    }

    fn end(offset: u64, content: &[u8]) -> BlockDigest {
        let block = Block { file: FileId(1), offset, len: content.len() as u32 };
        BlockDigest { block, digest: digest(content) }
    }

    #[test]
    fn pieces_are_checked_as_one() {
        let content: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut a = Assembler::default();
        a.handle_data(&data(0, &content[..6000]), 0..6000).unwrap();
        a.handle_data(&data(6000, &content[6000..]), 6000..10_000).unwrap();
        assert_eq!(a.pending(), Some(10_000));
        let (pieces, matches) = a.handle_block(&end(0, &content), &content).unwrap();
        assert_eq!((pieces.len(), matches, a.pending()), (2, true, None));
    }

    #[test]
    fn w13_short_frames_in_the_middle_are_refused() {
        let mut a = Assembler::default();
        a.handle_data(&data(0, &[1; 10]), 0..10).unwrap();
        assert!(a.handle_data(&data(10, &[1; 5000]), 10..5010).is_err());
    }

    #[test]
    fn d11_gaps_and_overruns_are_refused() {
        let big = vec![0; 60_000];
        let mut a = Assembler::default();
        assert!(a.handle_data(&data(5, &big), 0..1).is_err());
        a.handle_data(&data(BLOCK, &big), 0..60_000).unwrap();
        assert!(a.handle_data(&data(BLOCK + 60_001, &big), 0..1).is_err());
        let mut a = Assembler::default();
        let mut offset = 0;
        let refused = loop {
            match a.handle_data(&data(offset, &big), 0..60_000) {
                Ok(()) => offset += 60_000,
                Err(_) => break offset,
            }
        };
        assert!(refused <= BLOCK && refused + 60_000 > BLOCK);
    }

    #[test]
    fn w14_a_wrong_digest_is_told_not_written() {
        let mut a = Assembler::default();
        a.handle_data(&data(0, &[1; 100]), 0..100).unwrap();
        let (_, matches) = a.handle_block(&end(0, &[2; 100]), &[1; 100]).unwrap();
        assert!(!matches);
    }
}
