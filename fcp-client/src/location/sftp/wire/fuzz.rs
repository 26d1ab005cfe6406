//! What a fuzzer calls: any bytes in; a panic out when the codec breaks a promise.
//!
//! The promises: nothing panics, what decodes encodes to bytes that decode to the same, and nothing
//! decoded holds much more memory than its bytes. The tests replay and mutate `fuzz/corpus`.

use bytes::{Bytes, BytesMut};
pub use fcp_proto::fuzz::Target;

use super::{CheckFile, Limits, NameEntry, Reply, Request, StatVfs, frame};

/// Decoded memory per input byte: the worst is a list of extensions without name and version, 8
/// bytes each on the wire, 64 in a vector that may have doubled.
const FACTOR: usize = 16;
/// Decoded memory that any packet may hold besides.
const BASE: usize = 512;

/// Everything there is to fuzz; the names are those of the folders in `fuzz/corpus`.
pub const ENTRIES: &[Target] = &[
    Target { name: "sftp-stream", run: stream },
    Target { name: "sftp-reply", run: reply },
    Target { name: "sftp-request", run: request },
    Target { name: "sftp-body", run: body },
];

/// What a client reads: packets with their lengths, cut at any place.
fn stream(bytes: &[u8]) -> Result<(), String> {
    let mut whole = BytesMut::from(bytes);
    let mut at_once = Vec::new();
    let all = loop {
        match frame::take(&mut whole) {
            Ok(Some(packet)) => at_once.push(packet),
            Ok(None) => break Ok(()),
            Err(error) => break Err(text(error)),
        }
    };
    // Byte by byte, the same packets come out.
    let (mut slow, mut buffer) = (Vec::new(), BytesMut::new());
    for byte in bytes {
        buffer.extend_from_slice(&[*byte]);
        match frame::take(&mut buffer) {
            Ok(packet) => slow.extend(packet),
            Err(_) => break,
        }
    }
    assert_eq!(at_once, slow);
    all?;
    at_once.iter().try_for_each(|packet| reply(packet))
}

fn reply(bytes: &[u8]) -> Result<(), String> {
    let packet = Bytes::copy_from_slice(bytes);
    let (id, value) = Reply::decode(&packet).map_err(text)?;
    let held = match &value {
        Reply::Name(names) => names.capacity() * size_of::<NameEntry>(),
        Reply::Version { extensions, .. } => extensions.held(),
        _ => 0,
    };
    assert!(held <= BASE + FACTOR * bytes.len(), "{held} bytes from {}", bytes.len());
    let again = encoded(|out| value.encode(id, out));
    assert_eq!(Reply::decode(&again), Ok((id, value)));
    Ok(())
}

fn request(bytes: &[u8]) -> Result<(), String> {
    let (id, value) = Request::decode(bytes).map_err(text)?;
    let again = encoded(|out| {
        value.encode(id, out);
        if let Request::Write { data, .. } = value {
            out.extend_from_slice(data);
        }
    });
    assert_eq!(Request::decode(&again), Ok((id, value)));
    Ok(())
}

/// The bodies of extended replies, each read as every kind.
fn body(bytes: &[u8]) -> Result<(), String> {
    let body = Bytes::copy_from_slice(bytes);
    let check = CheckFile::decode(&body).map_err(text).map(|check| {
        // An algorithm that is called like the extension reads as one of the older draft.
        if !check.algorithm.starts_with(b"check-file") {
            assert_eq!(CheckFile::decode(&check.encode()).as_ref(), Ok(&check));
        }
    });
    let limits = Limits::decode(bytes).map_err(text).map(|limits| {
        assert_eq!(Limits::decode(&limits.encode()), Ok(limits));
    });
    let vfs = StatVfs::decode(bytes)
        .map_err(text)
        .map(|vfs| assert!(vfs.available() >= vfs.bavail.min(vfs.frsize)));
    check.or(limits).or(vfs)
}

/// The packet that we encoded ourselves, without its length.
fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    let len = out.len() - frame::LEN;
    assert_eq!(out[..frame::LEN], u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out.freeze().slice(frame::LEN..)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
