//! Bytes that can never change: put together by hand from the drafts and OpenSSH's PROTOCOL.

use bytes::Bytes;

use super::super::{
    Attrs, CheckFile, Extension, Extensions, Limits, NameEntry, OpenFlags, Reply, Request, StatVfs,
    StatusCode,
};
use super::samples::{bad_replies, odd_replies};
use super::{packet_of, packet_of_reply};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn requests_have_their_bytes() {
    let attrs = Attrs { permissions: Some(0o644), times: Some((1, 2)), ..Attrs::default() };
    let open = Request::Open { path: b"a", flags: OpenFlags::READ, attrs: Attrs::default() };
    let rename = Extension::PosixRename { from: b"a", to: b"b" };
    let check =
        Extension::CheckFileName { path: b"f", algorithms: b"sha256", offset: 1, len: 2, block: 3 };
    for (id, request, hex) in [
        (0, Request::Init { version: 3 }, "00000005 01 00000003"),
        (1, open, "00000012 03 00000001 00000001 61 00000001 00000000"),
        (
            2,
            Request::Read { handle: &[0; 4], offset: 0x1000, len: 0x3fc00 },
            "00000019 05 00000002 00000004 00000000 0000000000001000 0003fc00",
        ),
        (
            3,
            Request::Write { handle: b"h", offset: 5, data: b"hi" },
            "00000018 06 00000003 00000001 68 0000000000000005 00000002 6869",
        ),
        (
            4,
            Request::Fsetstat { handle: b"h", attrs },
            "0000001a 0a 00000004 00000001 68 0000000c 000001a4 00000001 00000002",
        ),
        (
            5,
            Request::Symlink { target: b"t", link: b"l" },
            "0000000f 14 00000005 00000001 74 00000001 6c",
        ),
        (
            6,
            Request::Extended(rename),
            "0000002b c8 00000006 00000018 706f7369782d72656e616d65406f70656e7373682e636f6d \
             00000001 61 00000001 62",
        ),
        (
            7,
            Request::Extended(check),
            "0000003b c8 00000007 0000000f 636865636b2d66696c652d6e616d65 00000001 66 \
             00000006 736861323536 0000000000000001 0000000000000002 00000003",
        ),
    ] {
        let bytes = unhex(hex);
        assert_eq!(packet_of(id, &request), bytes, "{request:?}");
        assert_eq!(Request::decode(&bytes[4..]), Ok((id, request)));
    }
}

#[test]
fn replies_have_their_bytes() {
    let attrs = Attrs { size: Some(7), owner: Some((1, 2)), ..Attrs::default() };
    let name = NameEntry { name: Bytes::from_static(b"n"), attrs };
    let message = Bytes::from_static(b"no");
    for (id, reply, hex) in [
        (
            0,
            Reply::Version { version: 3, extensions: Extensions::new([("x", "1")]) },
            "0000000f 02 00000003 00000001 78 00000001 31",
        ),
        (
            1,
            Reply::Status { code: StatusCode::PERMISSION_DENIED, message },
            "00000013 65 00000001 00000003 00000002 6e6f 00000000",
        ),
        (2, Reply::Handle(b"h"[..].into()), "0000000a 66 00000002 00000001 68"),
        (3, Reply::Data(b"hi"[..].into()), "0000000b 67 00000003 00000002 6869"),
        (
            4,
            Reply::Name(vec![name]),
            "00000026 68 00000004 00000001 00000001 6e 00000000 00000003 0000000000000007 \
             00000001 00000002",
        ),
        (
            5,
            Reply::Attrs(attrs),
            "00000019 69 00000005 00000003 0000000000000007 00000001 00000002",
        ),
        (6, Reply::Extended(b"x"[..].into()), "00000006 c9 00000006 78"),
    ] {
        let bytes = Bytes::from(unhex(hex));
        // The long name of NAME is dropped, so what has none is encoded.
        assert_eq!(packet_of_reply(id, &reply), bytes, "{reply:?}");
        assert_eq!(Reply::decode(&bytes.slice(4..)), Ok((id, reply)));
    }
}

#[test]
fn bodies_have_their_bytes() {
    let limits = Limits { packet: 1, read: 2, write: 3, handles: 4 };
    let numbers = |n: u64| (1..=n).flat_map(u64::to_be_bytes).collect::<Vec<u8>>();
    assert_eq!(Limits::decode(&numbers(4)), Ok(limits));
    assert_eq!(Limits::decode(&numbers(5)), Ok(limits));
    assert_eq!(limits.encode(), numbers(4));
    assert!(Limits::decode(&numbers(3)).is_err());
    let vfs = StatVfs::decode(&numbers(11)).unwrap();
    assert_eq!((vfs.frsize, vfs.bavail, vfs.namemax), (2, 5, 11));
    assert_eq!(vfs.available(), 10);
    assert!(StatVfs::decode(&numbers(10)).is_err());
    let check = CheckFile { algorithm: b"md5"[..].into(), digests: Bytes::from_static(&[9; 16]) };
    let body = [&b"\0\0\0\x03md5"[..], &[9; 16]].concat();
    assert_eq!(check.encode(), body);
    let old = Bytes::from([&b"\0\0\0\x0acheck-file"[..], &body].concat());
    for form in [body.into(), old] {
        assert_eq!(CheckFile::decode(&form).as_ref(), Ok(&check));
    }
}

#[test]
fn odd_replies_are_taken() {
    for (name, bytes) in odd_replies() {
        let (_, reply) = Reply::decode(&bytes.into()).unwrap_or_else(|e| panic!("{name}: {e}"));
        match (name, reply) {
            ("status-bare" | "status-cut", Reply::Status { code, message }) => {
                assert_eq!((code, &message[..]), (StatusCode::FAILURE, &b""[..]));
            }
            ("status-no-language", Reply::Status { message, .. }) => assert_eq!(message, "no"),
            ("attrs-extended", Reply::Attrs(attrs)) => assert_eq!(attrs, Attrs::default()),
            ("attrs-unknown", Reply::Attrs(attrs)) => assert_eq!(attrs.permissions, Some(0o644)),
            ("name-long", Reply::Name(names)) => assert_eq!(names[0].name, "a"),
            (name, other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn s17_bad_replies_are_refused() {
    for (name, words, bytes) in bad_replies() {
        let error = Reply::decode(&bytes.into()).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn kinds_are_told_by_the_mode() {
    let of = |mode| Attrs { permissions: mode, ..Attrs::default() };
    assert_eq!(of(Some(0o100_644)).is_file(), Some(true));
    assert_eq!(of(Some(0o120_777)).is_file(), Some(false));
    assert_eq!(of(Some(0o120_777)).is_symlink(), Some(true));
    assert_eq!(of(Some(0o040_755)).is_dir(), Some(true));
    assert_eq!(of(Some(0o644)).is_file(), None);
    assert_eq!(of(None).is_dir(), None);
}
