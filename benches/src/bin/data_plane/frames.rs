//! The frames both kinds of data plane carry: `flag u8 | crc32 u32 | length u16 | payload`, big-endian.
//! A data payload is `offset u64 | bytes`; each block ends with `offset u64 | xxh3-128 of the block`.

use std::fs::File;
use std::io::{self, IoSlice};

use twox_hash::xxhash3_128;

/// Bytes read, hashed and sent at a time.
pub(crate) const BLOCK: usize = 1 << 20;
/// A receiver's buffer: one block and the longest frame that may straddle its end.
pub(crate) const RECEIVE_BUFFER: usize = BLOCK + (128 << 10);

const HEAD: usize = 7;
const OFFSET: usize = 8;
const FLAG_DATA: u8 = 1;
const FLAG_BLOCK_END: u8 = 2;

/// How the bytes are cut up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Data bytes in a frame.
    pub(crate) frame: usize,
    /// Whether each frame is read and written by a call of its own, as small files are.
    pub(crate) call_per_frame: bool,
}

/// One block made ready to send: its data and the heads that go between.
pub(crate) struct Block {
    shape: Shape,
    data: Vec<u8>,
    heads: Vec<[u8; HEAD + OFFSET]>,
    end: [u8; HEAD + OFFSET + 16],
}

impl Block {
    pub(crate) fn new(shape: Shape) -> Self {
        let data = vec![0; BLOCK];
        Self { shape, data, heads: Vec::new(), end: [0; HEAD + OFFSET + 16] }
    }

    /// Reads the block at `offset`, which must lie inside the file, and computes its heads.
    pub(crate) fn load(&mut self, file: &File, offset: u64) -> io::Result<()> {
        let step = if self.shape.call_per_frame { self.shape.frame } else { BLOCK };
        let mut at = offset;
        for piece in self.data.chunks_mut(step) {
            pread_exact(file, piece, at)?;
            at += piece.len() as u64;
        }
        self.heads.clear();
        let mut at = offset;
        for piece in self.data.chunks(self.shape.frame) {
            self.heads.push(data_head(at, piece)?);
            at += piece.len() as u64;
        }
        let hash = xxhash3_128::Hasher::oneshot(&self.data);
        self.end[HEAD..HEAD + OFFSET].copy_from_slice(&offset.to_be_bytes());
        self.end[HEAD + OFFSET..].copy_from_slice(&hash.to_be_bytes());
        let crc = crc32fast::hash(&self.end[HEAD..]);
        write_head(&mut self.end, FLAG_BLOCK_END, crc, (OFFSET + 16) as u16);
        Ok(())
    }

    /// The block as it goes on the wire, for one `writev`.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.heads.len() + 1);
        for (head, piece) in self.heads.iter().zip(self.data.chunks(self.shape.frame)) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(piece));
        }
        slices.push(IoSlice::new(&self.end));
        slices
    }
}

/// Where one connection's frames are checked and written.
pub(crate) struct Sink {
    file: File,
    shape: Shape,
    hash: xxhash3_128::Hasher,
    /// Data bytes written so far.
    pub(crate) written: u64,
}

impl Sink {
    pub(crate) fn new(file: File, shape: Shape) -> Self {
        Self { file, shape, hash: xxhash3_128::Hasher::new(), written: 0 }
    }

    /// Checks the whole frames at the start of `bytes`, writes their data and returns their length.
    pub(crate) fn consume(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut run: Vec<IoSlice<'_>> = Vec::new();
        let (mut run_start, mut run_end) = (0, 0);
        let mut used = 0;
        while let Some((flag, payload)) = next_frame(&bytes[used..])? {
            used += HEAD + payload.len();
            let (offset, data) = split_offset(payload)?;
            if flag == FLAG_BLOCK_END {
                self.check_block(offset, data)?;
                continue;
            }
            self.hash.write(data);
            if offset != run_end || (self.shape.call_per_frame && !run.is_empty()) {
                self.write_run(&mut run, run_start)?;
                run_start = offset;
            }
            run.push(IoSlice::new(data));
            run_end = offset + data.len() as u64;
        }
        self.write_run(&mut run, run_start)?;
        Ok(used)
    }

    fn check_block(&mut self, offset: u64, digest: &[u8]) -> io::Result<()> {
        let hash = std::mem::replace(&mut self.hash, xxhash3_128::Hasher::new()).finish_128();
        if digest == hash.to_be_bytes() {
            return Ok(());
        }
        Err(io::Error::other(format!("block at {offset} arrived with another xxh3")))
    }

    fn write_run(&mut self, run: &mut Vec<IoSlice<'_>>, mut at: u64) -> io::Result<()> {
        let mut left = run.as_mut_slice();
        while !left.is_empty() {
            let n = rustix::io::pwritev(&self.file, left, at)?;
            at += n as u64;
            self.written += n as u64;
            IoSlice::advance_slices(&mut left, n);
        }
        run.clear();
        Ok(())
    }
}

fn data_head(offset: u64, data: &[u8]) -> io::Result<[u8; HEAD + OFFSET]> {
    let mut head = [0; HEAD + OFFSET];
    head[HEAD..].copy_from_slice(&offset.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[HEAD..]);
    crc.update(data);
    let length = u16::try_from(OFFSET + data.len()).map_err(io::Error::other)?;
    write_head(&mut head, FLAG_DATA, crc.finalize(), length);
    Ok(head)
}

fn write_head(to: &mut [u8], flag: u8, crc: u32, length: u16) {
    to[0] = flag;
    to[1..5].copy_from_slice(&crc.to_be_bytes());
    to[5..7].copy_from_slice(&length.to_be_bytes());
}

/// The frame at the start of `bytes`, its crc checked; `None` while it is not all there.
fn next_frame(bytes: &[u8]) -> io::Result<Option<(u8, &[u8])>> {
    let &[flag, c0, c1, c2, c3, l0, l1, ref rest @ ..] = bytes else { return Ok(None) };
    let Some(payload) = rest.get(..usize::from(u16::from_be_bytes([l0, l1]))) else {
        return Ok(None);
    };
    if crc32fast::hash(payload) != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Err(io::Error::other("a frame arrived with another crc32"));
    }
    Ok(Some((flag, payload)))
}

fn split_offset(payload: &[u8]) -> io::Result<(u64, &[u8])> {
    let short = || io::Error::other("a frame without its offset");
    let (offset, data) = payload.split_first_chunk::<OFFSET>().ok_or_else(short)?;
    Ok((u64::from_be_bytes(*offset), data))
}

fn pread_exact(file: &File, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = rustix::io::pread(file, &mut *buf, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += n as u64;
        buf = &mut buf[n..];
    }
    Ok(())
}
