//! Bytes as the drafts and OpenSSH have them, both ways, and every other bytes.

mod corpus;
mod golden;
mod round_trip;
mod samples;

use bytes::{Bytes, BytesMut};

use super::frame::{self, FrameError};
use super::{MAX_PACKET, Reply, Request};

/// A request with its length and its data.
fn packet_of(id: u32, request: &Request<'_>) -> Bytes {
    let mut out = BytesMut::new();
    request.encode(id, &mut out);
    if let Request::Write { data, .. } = request {
        out.extend_from_slice(data);
    }
    out.freeze()
}

fn packet_of_reply(id: u32, reply: &Reply) -> Bytes {
    let mut out = BytesMut::new();
    reply.encode(id, &mut out);
    out.freeze()
}

#[test]
fn s17_lengths_are_judged_before_anything_is_waited_for() {
    assert_eq!(frame::size(&[0, 0, 0]), Ok(None));
    assert_eq!(frame::size(&[0, 0, 0, 1]), Ok(Some(5)));
    assert_eq!(frame::size(&[0; 4]), Err(FrameError::Empty));
    assert_eq!(frame::size(&[0xff; 4]), Err(FrameError::TooLong(u32::MAX)));
    let most = u32::try_from(MAX_PACKET).unwrap();
    assert_eq!(frame::size(&most.to_be_bytes()), Ok(Some(4 + MAX_PACKET)));
    assert_eq!(frame::size(&(most + 1).to_be_bytes()), Err(FrameError::TooLong(most + 1)));
}

#[test]
fn payloads_are_not_copied() {
    let mut stream = BytesMut::from(&packet_of_reply(1, &Reply::Data(vec![7; 1000].into()))[..]);
    let at = stream.as_ptr() as usize + stream.len() - 1000;
    let packet = frame::take(&mut stream).unwrap().unwrap();
    let Ok((1, Reply::Data(data))) = Reply::decode(&packet) else { panic!() };
    assert_eq!(data.as_ptr() as usize, at);
    let mut head = BytesMut::new();
    Request::Write { handle: b"h", offset: 0, data: &data }.encode(1, &mut head);
    assert_eq!(head.len(), 4 + 1 + 4 + 5 + 8 + 4);
}
