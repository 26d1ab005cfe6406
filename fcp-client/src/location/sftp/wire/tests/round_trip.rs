//! Whatever is encoded decodes to the same.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::{Attrs, Extension, NameEntry, OpenFlags, Reply, Request, StatusCode};
use super::samples;
use super::{packet_of, packet_of_reply};

fn attrs() -> impl Strategy<Value = Attrs> {
    (option::of(any::<u64>()), option::of(any::<(u32, u32)>()), option::of(any::<u32>()))
        .prop_flat_map(|(size, owner, permissions)| {
            option::of(any::<(u32, u32)>()).prop_map(move |times| Attrs {
                size,
                owner,
                permissions,
                times,
            })
        })
}

/// A handle and two paths.
fn strings() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>)> {
    (vec(any::<u8>(), 1..=256), vec(any::<u8>(), 0..600), vec(any::<u8>(), 0..600))
}

/// The sample, with other fields.
fn varied<'a>(
    sample: Request<'a>,
    (handle, path, other): (&'a [u8], &'a [u8], &'a [u8]),
    (offset, len, number): (u64, u64, u32),
    attrs: Attrs,
) -> Request<'a> {
    match sample {
        Request::Open { .. } => Request::Open { path, flags: OpenFlags(number), attrs },
        Request::Close { .. } => Request::Close { handle },
        Request::Read { .. } => Request::Read { handle, offset, len: number },
        Request::Write { .. } => Request::Write { handle, offset, data: other },
        Request::Setstat { .. } => Request::Setstat { path, attrs },
        Request::Fsetstat { .. } => Request::Fsetstat { handle, attrs },
        Request::Mkdir { .. } => Request::Mkdir { path, attrs },
        Request::Rename { .. } => Request::Rename { from: path, to: other },
        Request::Symlink { .. } => Request::Symlink { target: path, link: other },
        Request::Lstat { .. } => Request::Lstat { path },
        Request::Extended(Extension::Lsetstat { .. }) => {
            Request::Extended(Extension::Lsetstat { path, attrs })
        }
        Request::Extended(Extension::CopyData { .. }) => Request::Extended(Extension::CopyData {
            from: handle,
            offset,
            len,
            to: handle,
            to_offset: len,
        }),
        Request::Extended(Extension::CheckFileHandle { .. }) => {
            let (algorithms, block) = (other, number);
            let check = Extension::CheckFileHandle { handle, algorithms, offset, len, block };
            Request::Extended(check)
        }
        same => same,
    }
}

proptest! {
    #[test]
    fn requests(
        id: u32,
        (handle, path, other) in strings(),
        numbers: (u64, u64, u32),
        attrs in attrs(),
    ) {
        for (name, sample) in samples::requests() {
            let id = if name == "init" { 0 } else { id };
            let request = varied(sample, (&handle, &path, &other), numbers, attrs);
            let packet = packet_of(id, &request);
            prop_assert_eq!(Request::decode(&packet[4..]), Ok((id, request)));
        }
    }

    #[test]
    fn names(id: u32, all in vec((vec(any::<u8>(), 0..300), attrs()), 0..50)) {
        let entry = |(name, attrs): (Vec<u8>, Attrs)| NameEntry { name: name.into(), attrs };
        let reply = Reply::Name(all.into_iter().map(entry).collect());
        let packet = packet_of_reply(id, &reply).slice(4..);
        prop_assert_eq!(Reply::decode(&packet), Ok((id, reply)));
    }

    #[test]
    fn other_replies(id: u32, code: u32, bytes in vec(any::<u8>(), 1..256), attrs in attrs()) {
        let bytes = Bytes::from(bytes);
        for reply in [
            Reply::Status { code: StatusCode(code), message: bytes.clone() },
            Reply::Handle(bytes.clone()),
            Reply::Data(bytes.clone()),
            Reply::Extended(bytes.clone()),
            Reply::Attrs(attrs),
        ] {
            let packet = packet_of_reply(id, &reply).slice(4..);
            prop_assert_eq!(Reply::decode(&packet), Ok((id, reply)));
        }
    }
}

#[test]
fn samples_come_back() {
    for (name, request) in samples::requests() {
        let packet = packet_of(0, &request);
        assert_eq!(Request::decode(&packet[4..]), Ok((0, request)), "{name}");
        // Nothing shorter is taken, but for those whose last field has no length.
        for end in 0..packet.len() - 4 {
            let cut = Request::decode(&packet[4..4 + end]);
            assert!(cut.is_err() || name == "unknown", "{name} cut at {end}: {cut:?}");
        }
    }
    for (name, reply) in samples::replies() {
        let packet = packet_of_reply(0, &reply).slice(4..);
        assert_eq!(Reply::decode(&packet), Ok((0, reply)), "{name}");
    }
}
