//! What the real shells do with bytes: frames in, frames out.

use fcp_proto::frame::{self, BadChecksum, HEAD_LEN};
use fcp_proto::packet::{
    Block, BlockDigest, Data, Sequenced, Whole, put_block, put_data_head, put_whole_head,
};
use fcp_proto::{Digest, Flag, Violation};

use crate::transfer::Assembler;
use crate::transfer::assemble::digest;

/// Bytes of one connection that arrived and are not yet used.
#[derive(Default)]
pub(super) struct Inbound {
    buf: Vec<u8>,
    /// Where the next frame begins.
    pos: usize,
    /// Where the unfinished block begins.
    base: usize,
    part: Vec<u8>,
    assembler: Assembler,
}

pub(super) enum Item {
    Ack(u32),
    Message(Sequenced, usize),
    Content { block: Block, digest: Digest, whole: bool, bytes: Vec<u8>, matches: bool },
}

#[derive(Debug)]
pub(super) enum Broken {
    /// The connection is damaged.
    Checksum,
    /// The peer is at fault.
    Violation(Violation),
}

impl From<Violation> for Broken {
    fn from(v: Violation) -> Broken {
        Broken::Violation(v)
    }
}

impl Inbound {
    pub(super) fn feed(&mut self, bytes: &[u8], items: &mut Vec<Item>) -> Result<(), Broken> {
        self.buf.extend_from_slice(bytes);
        while self.take_frame(items)? {}
        if self.assembler.pending().is_none() {
            self.buf.drain(..self.pos);
            self.pos = 0;
        }
        Ok(())
    }

    fn take_frame(&mut self, items: &mut Vec<Item>) -> Result<bool, Broken> {
        let frame = match frame::decode(&self.buf[self.pos..]) {
            Ok(None) => return Ok(false),
            Ok(Some(frame)) => frame,
            Err(BadChecksum { .. }) => return Err(Broken::Checksum),
        };
        let (frame::Frame { flag, payload }, used) = frame;
        let bad = |error| Violation::Decode { flag, error };
        match flag {
            Flag::DATA => {
                let data = Data::decode(payload).map_err(bad)?;
                if self.assembler.pending().is_none() {
                    self.base = self.pos;
                }
                let start = self.pos + HEAD_LEN + Data::HEAD - self.base;
                self.assembler.handle_data(&data, start..start + data.bytes.len())?;
            }
            Flag::BLOCK => {
                let end = BlockDigest::decode(payload).map_err(bad)?;
                let base = &self.buf[self.base..];
                let (pieces, matches) = self.assembler.handle_block(&end, base)?;
                let bytes = pieces
                    .iter()
                    .flat_map(|p| base[p.clone()].chunks(1 << 20))
                    .collect::<Vec<_>>()
                    .concat();
                let BlockDigest { block, digest } = end;
                items.push(Item::Content { block, digest, whole: false, bytes, matches });
            }
            Flag::WHOLE => {
                self.assembler.check_idle(flag)?;
                let Whole { file, digest: told, bytes } = Whole::decode(payload).map_err(bad)?;
                let block = Block { file, offset: 0, len: bytes.len() as u32 };
                let (matches, bytes) = (digest(bytes) == told, bytes.to_vec());
                items.push(Item::Content { block, digest: told, whole: true, bytes, matches });
            }
            Flag::ACK => {
                self.assembler.check_idle(flag)?;
                items.push(Item::Ack(u32::from_be_bytes(payload.try_into().unwrap())));
            }
            Flag::PART => {
                self.assembler.check_idle(flag)?;
                self.part.extend_from_slice(payload);
            }
            _ => {
                self.assembler.check_idle(flag)?;
                let mut joined = std::mem::take(&mut self.part);
                joined.extend_from_slice(payload);
                items.push(Item::Message(Sequenced::from_payload(flag, &joined)?, joined.len()));
            }
        }
        self.pos += used;
        Ok(true)
    }
}

/// The frames of a block of `bytes`, `flip` of which is damaged after the digest was taken.
pub(super) fn block_frames(
    block: Block,
    whole: bool,
    bytes: &[u8],
    max_frame: usize,
    flip: Option<usize>,
    out: &mut Vec<u8>,
) {
    let digest = digest(bytes);
    let mut bytes = bytes.to_vec();
    if let Some(at) = flip {
        bytes[at] ^= 4;
    }
    if whole {
        let mut head = [0; HEAD_LEN + Whole::HEAD];
        put_whole_head(&mut head, block.file, digest, &bytes);
        out.extend_from_slice(&head);
        out.extend_from_slice(&bytes);
        return;
    }
    let mut offset = block.offset;
    for part in bytes.chunks(max_frame - Data::HEAD) {
        let mut head = [0; HEAD_LEN + Data::HEAD];
        put_data_head(&mut head, block.file, offset, part);
        out.extend_from_slice(&head);
        out.extend_from_slice(part);
        offset += part.len() as u64;
    }
    out.extend_from_slice(&put_block(BlockDigest { block, digest }));
}
