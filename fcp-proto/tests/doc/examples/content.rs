//! Content, and the frames that are not numbered.

use fcp_proto::coding::decode_exact;
use fcp_proto::frame::HEAD_LEN;
use fcp_proto::packet::*;
use fcp_proto::{Digest, ErrorCode, FileId, Flag};

use super::*;

pub(super) fn all() -> Vec<Example> {
    let error = WireError::new(ErrorCode::CANCELLED, "interrupted");
    let mut error_payload = Vec::new();
    fcp_proto::coding::Wire::encode(&error, &mut error_payload);
    vec![
        part(),
        bare("ACK", Flag::ACK, &7u32.to_be_bytes(), &[("7 is next", 4)], |payload| {
            assert_eq!(decode_exact(payload), Ok(Ack { next: 7 }));
        }),
        bare("KEEPALIVE", Flag::KEEPALIVE, &[], &[], |payload| assert!(payload.is_empty())),
        bare(
            "ERROR",
            Flag::ERROR,
            &error_payload,
            &[("CANCELLED", 2), ("length 11", 2), ("text=", 11)],
            move |payload| assert_eq!(decode_exact(payload).as_ref(), Ok(&error)),
        ),
        data(),
        block(),
        whole(),
    ]
}

fn part() -> Example {
    let want = Message::Want(vec![Want { file: FileId(1), ranges: vec![] }]);
    let mut bytes = Vec::new();
    Sequenced::put_frames(Flag::WANT, &want.to_payload(0), 6, &mut bytes);
    let check = move |bytes: &[u8]| {
        let all = frames(bytes);
        let flags: Vec<_> = all.iter().map(|f| f.0).collect();
        assert_eq!(flags, [Flag::PART, Flag::WANT]);
        let joined: Vec<u8> = all.into_iter().flat_map(|f| f.1).collect();
        let expected = Sequenced { seq: 0, message: want.clone() };
        assert_eq!(Sequenced::from_payload(Flag::WANT, &joined), Ok(expected));
    };
    let fields = vec![
        ("number 0", 4),
        ("the front of id 1", 2),
        ("the rest of id 1", 2),
        ("the whole file", 2),
    ];
    Example { name: "PART", bytes, fields, check: Box::new(check) }
}

fn data() -> Example {
    let mut head = [0; HEAD_LEN + Data::HEAD];
    put_data_head(&mut head, FileId(1), 0, CONTENT);
    let check = |bytes: &[u8]| {
        let expected = Data { file: FileId(1), offset: 0, bytes: CONTENT };
        assert_eq!(one(bytes).flag, Flag::DATA);
        assert_eq!(Data::decode(one(bytes).payload), Ok(expected));
    };
    let fields = vec![("id 1", 4), ("offset 0", 8), ("content=", ALL)];
    Example { name: "DATA", bytes: [&head, CONTENT].concat(), fields, check: Box::new(check) }
}

fn block() -> Example {
    let block = Block { file: FileId(1), offset: 0, len: 5 };
    let value = BlockDigest { block, digest: xxh3(CONTENT) };
    let check = move |bytes: &[u8]| {
        assert_eq!(one(bytes).flag, Flag::BLOCK);
        assert_eq!(BlockDigest::decode(one(bytes).payload), Ok(value));
    };
    let fields = vec![("id 1", 4), ("offset 0", 8), ("5 bytes", 4), ("xxh3-128 of \"hello\"", 16)];
    Example { name: "BLOCK", bytes: put_block(value).to_vec(), fields, check: Box::new(check) }
}

fn whole() -> Example {
    let mut head = [0; HEAD_LEN + Whole::HEAD];
    put_whole_head(&mut head, FileId(1), xxh3(CONTENT), CONTENT);
    let check = |bytes: &[u8]| {
        let expected = Whole { file: FileId(1), digest: xxh3(CONTENT), bytes: CONTENT };
        assert_eq!(one(bytes).flag, Flag::WHOLE);
        assert_eq!(Whole::decode(one(bytes).payload), Ok(expected));
    };
    let fields = vec![("id 1", 4), ("xxh3-128 of \"hello\"", 16), ("content=", ALL)];
    Example { name: "WHOLE", bytes: [&head, CONTENT].concat(), fields, check: Box::new(check) }
}

/// The xxh3-128 of `bytes`, big-endian.
fn xxh3(bytes: &[u8]) -> Digest {
    Digest(twox_hash::XxHash3_128::oneshot(bytes).to_be_bytes())
}
