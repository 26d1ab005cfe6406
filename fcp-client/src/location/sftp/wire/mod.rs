//! SFTP version 3 as bytes: draft-ietf-secsh-filexfer-02, OpenSSH's extensions, `check-file`.
//!
//! PURE: no runtime, no clock, no I/O. [`Request`] goes from client to server, [`Reply`] back; both
//! are encoded and decoded here, since the tests play servers. [`frame`] cuts packets out of a
//! stream and refuses a length over [`MAX_PACKET`] before a byte of it is waited for.
//!
//! Why our own: russh-sftp turns handles and names into lossy UTF-8. openssh-sftp-client-lowlevel
//! 0.7 can pipeline READ and CLOSE, but allocates up to 4 GiB on a reply's word (`len - 5` of an
//! unchecked `u32`, which also wraps), and has no request for `check-file` or any other extension.

mod attrs;
mod extended;
pub mod frame;
pub mod fuzz;
mod reply;
mod request;
mod status;
#[cfg(test)]
mod tests;

pub use attrs::Attrs;
pub use extended::{CheckFile, Extension, Limits, StatVfs, name as extension};
pub use frame::{FrameError, MAX_PACKET};
pub use reply::{Extensions, NameEntry, Reply};
pub use request::{OpenFlags, Request};
pub use status::StatusCode;

use fcp_proto::coding::{DecodeError, Reader};

/// The protocol version that we speak.
pub const VERSION: u32 = 3;
/// Bytes of a handle, draft section 6.2: "the length of the handle string MUST NOT exceed 256".
pub const MAX_HANDLE: usize = 256;
/// Bytes of one READ or WRITE that OpenSSH takes, and that fit a packet with their head.
pub const MAX_DATA: u32 = 255 * 1024;
/// Bytes of one READ or WRITE that every server takes, draft section 3.
pub const DEFAULT_DATA: u32 = 32 * 1024;

/// Takes a string: bytes behind a four-byte length.
fn string<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let n = r.u32()?;
    r.take(usize::try_from(n).map_err(|_| DecodeError::Truncated)?)
}

/// Takes a handle.
fn handle<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    match string(r)? {
        [] => Err(DecodeError::Malformed("an empty handle")),
        long if long.len() > MAX_HANDLE => Err(DecodeError::Malformed("a handle over 256 bytes")),
        handle => Ok(handle),
    }
}

/// Appends a string. Callers keep them below [`MAX_PACKET`].
fn put_string(out: &mut bytes::BytesMut, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a length.
fn put_len(out: &mut bytes::BytesMut, len: usize) {
    // Nothing that is sent comes near 4 GiB; a length that cannot be told makes the peer refuse.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}
