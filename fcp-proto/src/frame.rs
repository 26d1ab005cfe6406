//! The frame, the same in every version: `flag u8 | crc32(payload) u32 | length u16 | payload`.

use crate::flag::Flag;

/// Bytes in a frame's head.
pub const HEAD_LEN: usize = 7;
/// Most bytes in a frame's payload.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

/// A frame's head as read; the payload is not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the payload is.
    pub flag: Flag,
    /// CRC-32 (IEEE 802.3) of the payload.
    pub crc: u32,
    /// Payload length in bytes.
    pub len: u16,
}

/// A whole frame in somebody's buffer, its checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub flag: Flag,
    /// The verified payload.
    pub payload: &'a [u8],
}

/// A frame whose payload does not have the checksum that its head names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {flag} frame with a wrong checksum")]
pub struct BadChecksum {
    /// The frame's flag.
    pub flag: Flag,
}

impl Head {
    /// The head for `payload`.
    pub fn of(flag: Flag, payload: &[u8]) -> Head {
        debug_assert!(payload.len() <= MAX_PAYLOAD);
        Head { flag, crc: crc32fast::hash(payload), len: payload.len() as u16 }
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; HEAD_LEN] {
        let [c0, c1, c2, c3] = self.crc.to_be_bytes();
        let [l0, l1] = self.len.to_be_bytes();
        [self.flag.0, c0, c1, c2, c3, l0, l1]
    }

    /// Reads a head; every seven bytes are one.
    pub fn from_bytes([flag, c0, c1, c2, c3, l0, l1]: [u8; HEAD_LEN]) -> Head {
        Head {
            flag: Flag(flag),
            crc: u32::from_be_bytes([c0, c1, c2, c3]),
            len: u16::from_be_bytes([l0, l1]),
        }
    }
}

/// Takes one frame from the front of `buf`; `None` means that more bytes are needed.
///
/// On success also says how many bytes the frame took.
pub fn decode(buf: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadChecksum> {
    let Some((head, rest)) = buf.split_first_chunk() else { return Ok(None) };
    let head = Head::from_bytes(*head);
    let Some(payload) = rest.get(..usize::from(head.len)) else { return Ok(None) };
    if crc32fast::hash(payload) != head.crc {
        return Err(BadChecksum { flag: head.flag });
    }
    Ok(Some((Frame { flag: head.flag, payload }, HEAD_LEN + payload.len())))
}

/// Appends a whole frame to `out`.
pub fn encode(flag: Flag, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::of(flag, payload).to_bytes());
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload `write` appends, without a second buffer.
pub fn encode_with(flag: Flag, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_LEN]);
    write(out);
    let head = Head::of(flag, &out[start + HEAD_LEN..]);
    out[start..start + HEAD_LEN].copy_from_slice(&head.to_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w01_w02_every_cut_asks_for_more() {
        let mut bytes = Vec::new();
        encode(Flag::FILE_COUNT, &[0, 0, 0, 5], &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(None));
        }
        let (frame, used) = decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.flag, frame.payload, used), (Flag::FILE_COUNT, &[0, 0, 0, 5][..], 11));
    }

    #[test]
    fn w03_a_wrong_checksum_is_refused() {
        let mut bytes = Vec::new();
        encode(Flag::DONE, &[1], &mut bytes);
        for bit in 8..40 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), Err(BadChecksum { flag: Flag::DONE }));
        }
    }

    #[test]
    fn encode_with_writes_the_same_bytes() {
        let (mut a, mut b) = (vec![9], vec![9]);
        encode(Flag::SID, b"0123456789abcdef", &mut a);
        encode_with(Flag::SID, &mut b, |out| out.extend_from_slice(b"0123456789abcdef"));
        assert_eq!(a, b);
    }
}
