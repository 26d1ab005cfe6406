//! Reading packets without copying their content.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::location::sftp::wire::frame;

/// Bytes asked of the stream at a time while packets are small.
const CHUNK: usize = 32 * 1024;

/// Bytes that came and are not yet packets.
pub(super) struct Input<R> {
    reader: R,
    pub(super) buffer: BytesMut,
    /// Size of the last packet, if it was large: the next one will be as large.
    large: usize,
}

impl<R> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Input { reader, buffer: BytesMut::new(), large: 0 }
    }

    /// A packet of so many bytes, without its length, was taken out.
    pub(super) fn handle_size(&mut self, packet: usize) {
        self.large = if packet > CHUNK { frame::LEN + packet } else { 0 };
    }

    /// What to read next: bytes there must be room for, and bytes to take at most. A large packet
    /// is read into a buffer of its size and not beyond its end, so that nothing is ever copied.
    fn wanted(&self) -> (usize, usize) {
        let have = self.buffer.len();
        match frame::size(&self.buffer) {
            Ok(Some(size)) if size > CHUNK => (size - have, size - have),
            Ok(None) if self.large > have => (self.large - have, self.large - have),
            Ok(Some(size)) => (size.saturating_sub(have).max(1), usize::MAX),
            _ => (1, usize::MAX),
        }
    }
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Reads once; 0 is the end.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let (room, most) = self.wanted();
        if self.buffer.capacity() - self.buffer.len() < room {
            self.buffer.reserve(if most == usize::MAX { room.max(CHUNK) } else { room });
        }
        let spare = self.buffer.capacity() - self.buffer.len();
        let mut limited = (&mut self.buffer).limit(most.min(spare));
        self.reader.read_buf(&mut limited).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn packet<R: AsyncRead + Unpin>(input: &mut Input<R>) -> bytes::Bytes {
        loop {
            if let Some(packet) = frame::take(&mut input.buffer).unwrap() {
                input.handle_size(packet.len());
                return packet;
            }
            assert_ne!(input.fill().await.unwrap(), 0);
        }
    }

    fn put(out: &mut Vec<u8>, len: usize, fill: u8) {
        out.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        out.resize(out.len() + len, fill);
    }

    #[tokio::test]
    async fn large_packets_have_a_buffer_each_and_of_their_size() {
        const LEN: usize = 255 * 1024 + 13;
        let mut wire = Vec::new();
        (0..20).for_each(|n| put(&mut wire, LEN, n));
        let (mut to, from) = tokio::io::duplex(50_000);
        tokio::spawn(async move { to.write_all(&wire).await });
        let mut input = Input::new(from);
        let mut kept = Vec::new();
        for n in 0..20 {
            let packet = packet(&mut input).await;
            assert!(packet.len() == LEN && packet.iter().all(|b| *b == n));
            // Nothing of the next one is here, so nothing of it will be copied.
            assert!(input.buffer.is_empty() && input.buffer.capacity() == 0);
            kept.push(packet);
        }
    }

    #[tokio::test]
    async fn mixed_packets_come_whole_and_buffers_stay_small() {
        let sizes: Vec<usize> = (0..600).map(|n| 1 + (n * 7919) % 200_003 / (1 + n % 40)).collect();
        let mut wire = Vec::new();
        sizes.iter().enumerate().for_each(|(n, len)| put(&mut wire, *len, n as u8));
        let (mut to, from) = tokio::io::duplex(10_007);
        tokio::spawn(async move { to.write_all(&wire).await });
        let mut input = Input::new(from);
        for (n, len) in sizes.into_iter().enumerate() {
            let packet = packet(&mut input).await;
            assert!(packet.len() == len && packet.iter().all(|b| *b == n as u8), "{n}");
            assert!(input.buffer.capacity() <= 2 * frame::MAX_PACKET);
        }
    }
}
