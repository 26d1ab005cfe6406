//! One of each, as seeds for the corpus and for tests of all.

use bytes::Bytes;

use super::super::{
    Attrs, Extension, Extensions, Limits, NameEntry, OpenFlags, Reply, Request, StatusCode,
    extension,
};

pub(super) const FULL: Attrs = Attrs {
    size: Some(1 << 40),
    owner: Some((1000, 100)),
    permissions: Some(0o100_644),
    times: Some((1, 2)),
};

pub(super) fn requests() -> Vec<(&'static str, Request<'static>)> {
    let (path, handle, to) = (&b"caf\xe9/f"[..], &b"\0\0\0\x80"[..], &b"to"[..]);
    let (algorithms, offset, len, block) = (&b"sha256,md5"[..], 5, 0, 0);
    vec![
        ("init", Request::Init { version: 3 }),
        ("open", Request::Open { path, flags: OpenFlags::CREATE_NEW, attrs: FULL }),
        ("close", Request::Close { handle }),
        ("read", Request::Read { handle, offset: 1 << 33, len: 261_120 }),
        ("write", Request::Write { handle, offset: u64::MAX, data: b"content" }),
        ("lstat", Request::Lstat { path }),
        ("fstat", Request::Fstat { handle }),
        ("setstat", Request::Setstat { path, attrs: FULL }),
        ("fsetstat", Request::Fsetstat { handle, attrs: Attrs::default() }),
        ("opendir", Request::Opendir { path }),
        ("readdir", Request::Readdir { handle }),
        ("remove", Request::Remove { path }),
        ("mkdir", Request::Mkdir { path, attrs: FULL }),
        ("rmdir", Request::Rmdir { path }),
        ("realpath", Request::Realpath { path: b"." }),
        ("stat", Request::Stat { path: b"" }),
        ("rename", Request::Rename { from: path, to }),
        ("readlink", Request::Readlink { path }),
        ("symlink", Request::Symlink { target: path, link: to }),
        ("posix-rename", Request::Extended(Extension::PosixRename { from: path, to })),
        ("fsync", Request::Extended(Extension::Fsync { handle })),
        ("hardlink", Request::Extended(Extension::Hardlink { from: path, to })),
        ("statvfs", Request::Extended(Extension::StatVfs { path })),
        ("limits", Request::Extended(Extension::Limits)),
        ("lsetstat", Request::Extended(Extension::Lsetstat { path, attrs: FULL })),
        ("expand-path", Request::Extended(Extension::ExpandPath { path: b"~x" })),
        (
            "copy-data",
            Request::Extended(Extension::CopyData { from: handle, offset, len, to, to_offset: 9 }),
        ),
        (
            "check-file-name",
            Request::Extended(Extension::CheckFileName { path, algorithms, offset, len, block }),
        ),
        (
            "check-file-handle",
            Request::Extended(Extension::CheckFileHandle {
                handle,
                algorithms,
                offset,
                len,
                block: 256,
            }),
        ),
        ("unknown", Request::Extended(Extension::Unknown { name: b"x@y", body: b"\x01\x02" })),
    ]
}

pub(super) fn replies() -> Vec<(&'static str, Reply)> {
    let extensions = Extensions::new([(extension::POSIX_RENAME, "1"), (extension::STATVFS, "2")]);
    let name = |name: &'static [u8], attrs| NameEntry { name: name.into(), attrs };
    let names = vec![name(b".", FULL), name(b"caf\xe9", Attrs::default()), name(b"../x", FULL)];
    let limits = Limits { packet: 262_144, read: 261_120, write: 261_120, handles: 19_995 };
    let message = Bytes::from_static(b"No such file");
    vec![
        ("version", Reply::Version { version: 3, extensions }),
        ("status", Reply::Status { code: StatusCode::NO_SUCH_FILE, message }),
        ("handle", Reply::Handle(Bytes::from_static(b"\0\0\0\x80"))),
        ("data", Reply::Data(Bytes::from_static(b"content"))),
        ("name", Reply::Name(names)),
        ("names-none", Reply::Name(Vec::new())),
        ("attrs", Reply::Attrs(FULL)),
        ("attrs-none", Reply::Attrs(Attrs::default())),
        ("extended", Reply::Extended(limits.encode())),
    ]
}

/// Packets, without their length, that are taken though we never send them.
pub(super) fn odd_replies() -> Vec<(&'static str, Vec<u8>)> {
    let extended = b"\x80\0\0\0\0\0\0\x01\0\0\0\x01n\0\0\0\x02vv";
    vec![
        ("status-bare", b"\x65\0\0\0\x01\0\0\0\x04".to_vec()),
        ("status-no-language", b"\x65\0\0\0\x01\0\0\0\x04\0\0\0\x02no".to_vec()),
        ("status-cut", b"\x65\0\0\0\x01\0\0\0\x04\0\0\0\x09no".to_vec()),
        ("attrs-extended", [&b"\x69\0\0\0\x01"[..], extended].concat()),
        ("attrs-unknown", b"\x69\0\0\0\x01\x00\x00\x01\x04\0\0\x01\xa4".to_vec()),
        ("name-long", b"\x68\0\0\0\x01\0\0\0\x01\0\0\0\x01a\0\0\0\x04-rw-\0\0\0\0".to_vec()),
    ]
}

/// Packets, without their length, that are refused, and the words for it.
pub(super) fn bad_replies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let handle = |len: u32| [&b"\x66\0\0\0\x01"[..], &len.to_be_bytes(), &vec![7; 257]].concat();
    let many = [&b"\x02\0\0\0\x03"[..], &[0; 8 * 257]].concat();
    vec![
        ("no-id", "ends inside", b"\x65\0\0".to_vec()),
        ("type", "type that no reply has", b"\x63\0\0\0\x01".to_vec()),
        ("handle-none", "an empty handle", b"\x66\0\0\0\x01\0\0\0\0".to_vec()),
        ("handle-long", "over 256", handle(257)),
        ("handle-more", "behind its last", handle(256)),
        ("data-cut", "ends inside", b"\x67\0\0\0\x01\0\0\0\x09x".to_vec()),
        ("data-4-gib", "ends inside", b"\x67\0\0\0\x01\xff\xff\xff\xffx".to_vec()),
        ("names-4-billion", "more names", b"\x68\0\0\0\x01\xff\xff\xff\xff".to_vec()),
        ("names-cut", "ends inside", [&b"\x68\0\0\0\x01\0\0\0\x02"[..], &[0; 20]].concat()),
        ("pairs-4-billion", "ends inside", b"\x69\0\0\0\x01\x80\0\0\0\xff\xff\xff\xff".to_vec()),
        ("extensions", "256 extensions", many),
    ]
}
