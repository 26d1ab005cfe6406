//! Packets out of a stream: a four-byte length, then that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Longest packet taken, without its length field: OpenSSH's 256 KiB, and room for a server that
/// puts 256 KiB of data behind its own head.
pub const MAX_PACKET: usize = 256 * 1024 + 1024;
/// Bytes of the length field.
pub const LEN: usize = 4;

/// A length that no packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even a type fits.
    #[error("a packet of no bytes")]
    Empty,
    /// Over [`MAX_PACKET`].
    #[error("a packet of {0} bytes, more than any SFTP packet has")]
    TooLong(u32),
}

/// The whole size, length field included, of the packet that `bytes` begin with; `None` when they
/// are too few to tell.
///
/// # Errors
/// The length is out of bounds.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(head) = bytes.first_chunk::<LEN>() else { return Ok(None) };
    let len = u32::from_be_bytes(*head);
    match usize::try_from(len) {
        Ok(0) => Err(FrameError::Empty),
        Ok(n) if n <= MAX_PACKET => Ok(Some(LEN + n)),
        _ => Err(FrameError::TooLong(len)),
    }
}

/// Takes the first packet, without its length, out of `buffer`; `None` when it is not all there.
///
/// # Errors
/// The length is out of bounds.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    match size(buffer)? {
        Some(size) if buffer.len() >= size => {
            let mut packet = buffer.split_to(size).freeze();
            packet.advance(LEN);
            Ok(Some(packet))
        }
        _ => Ok(None),
    }
}

/// Appends a packet: `body` writes it, `more` bytes of payload follow elsewhere.
pub(super) fn put(out: &mut BytesMut, more: usize, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.extend_from_slice(&[0; LEN]);
    body(out);
    let len = out.len() - start - LEN + more;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + LEN) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}
