//! The values behind PROTOCOL.md's examples, and what decoding their bytes must give.

use std::fmt;

use fcp_proto::coding::decode_exact;
use fcp_proto::frame::{self, Frame, HEAD_LEN};
use fcp_proto::packet::*;
use fcp_proto::v1::{V1Chunk, V1Dir, V1File, V1Packet};
use fcp_proto::version::{Hello, negotiate};
use fcp_proto::{
    Digest, DirId, ErrorCode, FileId, Flag, Name, RelPath, SessionId, Timestamp, escape,
};

/// A value, its bytes, and names for the fields of the payloads.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Names and lengths that add up to the payload of each frame in turn.
    fields: Vec<(&'static str, usize)>,
    check: Box<dyn Fn(&[u8])>,
}

impl Example {
    /// Fails unless `bytes` decode to this example's value.
    pub(crate) fn check(&self, bytes: &[u8]) {
        (self.check)(bytes);
    }

    /// Its frames: flag and payload.
    pub(crate) fn frames(&self) -> Vec<(Flag, Vec<u8>)> {
        frames(&self.bytes)
    }
}

impl fmt::Display for Example {
    /// The body of its block in PROTOCOL.md.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = self.fields.iter();
        for (flag, payload) in self.frames() {
            let mut bytes = Vec::new();
            frame::encode(flag, &payload, &mut bytes);
            line(f, &bytes[..1], &format!("flag {flag}"))?;
            line(f, &bytes[1..5], "checksum of the payload")?;
            line(f, &bytes[5..7], &format!("length {}", payload.len()))?;
            let mut rest = &payload[..];
            while !rest.is_empty() {
                let (name, len) = fields.next().expect("a name for every field");
                let (field, more) = rest.split_at((*len).min(rest.len()));
                for (i, part) in field.chunks(16).enumerate() {
                    line(f, part, &if i == 0 { label(name, field) } else { String::new() })?;
                }
                rest = more;
            }
        }
        assert!(fields.next().is_none(), "{}: fields are left over", self.name);
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, bytes: &[u8], label: &str) -> fmt::Result {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text =
        if label.is_empty() { hex.join(" ") } else { format!("{:<47}  # {label}", hex.join(" ")) };
    writeln!(f, "{text}")
}

/// A name that ends in `=` is followed by the field's bytes as text.
fn label(name: &str, field: &[u8]) -> String {
    match name.strip_suffix('=') {
        Some(name) => format!("{name} \"{}\"", escape(field)),
        None => name.to_owned(),
    }
}

fn frames(mut bytes: &[u8]) -> Vec<(Flag, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((frame, used)) = frame::decode(bytes).expect("a right checksum") {
        all.push((frame.flag, frame.payload.to_vec()));
        bytes = &bytes[used..];
    }
    assert!(bytes.is_empty(), "half a frame");
    all
}

/// The one frame that `bytes` are.
fn one(bytes: &[u8]) -> Frame<'_> {
    let (frame, used) = frame::decode(bytes).expect("a right checksum").expect("a whole frame");
    assert_eq!(used, bytes.len());
    frame
}

const ALL: usize = usize::MAX;
const SID: SessionId =
    SessionId(*b"\x5f\x2d\x1c\x90\xa7\x3e\x4b\x06\x91\x88\xd4\x33\x0a\x6f\xe2\x17");
const CONTENT: &[u8] = b"hello";
const MD5: [u8; 16] = *b"\x5d\x41\x40\x2a\xbc\x4b\x2a\x76\xb9\x71\x9d\x91\x10\x17\xc5\x92";
const MTIME: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 500_000_000 };

/// Every example, in the order of PROTOCOL.md.
pub(crate) fn all() -> Vec<Example> {
    [version_1(), openings(), messages_of_the_sender(), messages_of_the_receiver(), rest()]
        .into_iter()
        .flatten()
        .collect()
}

fn version_1() -> Vec<Example> {
    let id_mode = [("id 0", 4), ("mode 0o40755", 2)];
    vec![
        opening("PUSH-1", Opening::Push(push(None)), &[("JSON=", ALL)]),
        opening("PULL-1", Opening::Pull(pull(None)), &[("JSON=", ALL)]),
        reply("SID-1", Flag::SID, Reply { sid: SID, agreed: None }, &[("session id", 16)]),
        opening("ATTACH", Opening::Attach(SID), &[("session id", 16)]),
        v1("MONOFILE", V1Packet::Monofile(false), &[("a tree follows", 1)]),
        v1(
            "DIR_INFO",
            V1Packet::DirInfo(V1Dir { id: FileId(0), mode: 0o40755, path: path(b"docs") }),
            &[id_mode[0], id_mode[1], ("path=", ALL)],
        ),
        v1(
            "FILE_INFO",
            V1Packet::FileInfo(V1File {
                id: FileId(1),
                mode: 0o100_644u32 as u16,
                size: 5,
                mtime: MTIME,
                md5: MD5,
                path: path(b"docs/hello.txt"),
            }),
            &[
                ("id 1", 4),
                ("mode 0o100644", 2),
                ("size 5", 8),
                ("mtime 1700000000.5", 8),
                ("MD5 of \"hello\"", 16),
                ("path=", ALL),
            ],
        ),
        v1("FILE_COUNT", V1Packet::FileCount(2), &[("2 entries in all", 4)]),
        v1("FILE_READY", V1Packet::FileReady(FileId(1)), &[("id 1", 4)]),
        v1(
            "FILE_CHUNK",
            V1Packet::FileChunk(V1Chunk { file: FileId(1), seq: 0, bytes: CONTENT }),
            &[("id 1", 4), ("chunk 0", 4), ("content=", ALL)],
        ),
        v1("DONE", V1Packet::Done, &[("always 1", 1)]),
        v1("EXCEPTION", V1Packet::Exception("No such file or directory".into()), &[("text=", ALL)]),
    ]
}

fn openings() -> Vec<Example> {
    let hello = Hello::ours(8);
    let agreed = negotiate(&hello, &Hello::ours(128)).expect("one version");
    let limits = [
        ("features 0, 1 and 2", 8),
        ("frame payload up to 65535", 2),
        ("8 connections", 2),
        ("65536 open entries", 4),
        ("60 s idle", 2),
    ];
    let fields = |first: &[(&'static str, usize)]| [first, &limits].concat();
    let answer = Reply { sid: SID, agreed: Some(agreed) };
    let agreed_fields = fields(&[("session id", 16), ("version 2", 2)]);
    vec![
        opening(
            "HELLO",
            Opening::Hello(hello.clone()),
            &fields(&[("lowest version 2", 2), ("highest version 2", 2)]),
        ),
        opening("PUSH-2", Opening::Push(push(Some(hello.clone()))), &[("JSON=", ALL)]),
        opening("PULL-2", Opening::Pull(pull(Some(hello))), &[("JSON=", ALL)]),
        reply("SID-2", Flag::SID, answer.clone(), &agreed_fields),
        reply("ACCEPT", Flag::ACCEPT, answer, &agreed_fields),
    ]
}

fn messages_of_the_sender() -> Vec<Example> {
    let push = Request {
        direction: Direction::Push,
        options: Options::PERMS
            .with(Options::TIMES, true)
            .with(Options::LINKS, true)
            .with(Options::RECURSIVE, true),
        durability: Durability::None,
        paths: vec![b"backup/".to_vec()],
        rules: vec![],
    };
    let pull = Request {
        direction: Direction::Pull,
        durability: Durability::Batch,
        paths: vec![b"docs".to_vec(), b"~/notes/".to_vec()],
        rules: vec![Rule { action: 0, pattern: b"*.tmp".to_vec() }],
        ..push.clone()
    };
    let error = WireError::new(ErrorCode::PERMISSION, "permission denied");
    let finish = RootMeta(Some((0o755, MTIME)));
    let seq = |n: &'static str| (n, 4);
    let error_fields = [("PERMISSION", 2), ("length 17", 2), ("text=", 17)];
    vec![
        message(
            "REQUEST-push",
            0,
            Message::Request(push),
            &[
                seq("number 0"),
                ("push", 1),
                ("PERMS, TIMES, LINKS, RECURSIVE", 4),
                ("durability none", 1),
                ("1 path", 4),
                ("length 7", 2),
                ("path=", 7),
                ("0 rules", 4),
            ],
        ),
        message(
            "REQUEST-pull",
            0,
            Message::Request(pull),
            &[
                seq("number 0"),
                ("pull", 1),
                ("PERMS, TIMES, LINKS, RECURSIVE", 4),
                ("durability batch", 1),
                ("2 paths", 4),
                ("length 4", 2),
                ("path=", 4),
                ("length 8", 2),
                ("path=", 8),
                ("1 rule", 4),
                ("exclude", 1),
                ("length 5", 2),
                ("pattern=", 5),
            ],
        ),
        message(
            "ENTRIES",
            1,
            Message::Entries(vec![dir_entry(), file_entry(1, MTIME), link_entry()]),
            &[&[seq("number 1")][..], &DIR_FIELDS, &FILE_FIELDS, &LINK_FIELDS].concat(),
        ),
        message("DIRS_END", 2, Message::DirsEnd(vec![DirId(0)]), &[seq("number 2"), ("id 0", 4)]),
        message(
            "DIGESTS",
            3,
            Message::Digests(FileDigests {
                file: FileId(1),
                first: 0,
                hashes: vec![*blake3::hash(CONTENT).as_bytes()],
            }),
            &[seq("number 3"), ("id 1", 4), ("first block 0", 4), ("BLAKE3 of \"hello\"", 32)],
        ),
        message(
            "PROBLEM",
            4,
            Message::Problem(Problem { path: b"docs/secret".to_vec(), error: error.clone() }),
            &[&[seq("number 4"), ("length 11", 2), ("path=", 11)][..], &error_fields].concat(),
        ),
        message(
            "REPLACED",
            5,
            Message::Replaced(
                FileId(1),
                file_entry(3, Timestamp { secs: 1_700_000_001, nanos: 0 }),
            ),
            &[
                &[seq("number 5"), ("void: id 1", 4), ("a file", 1), ("id 3", 4)][..],
                &FILE_FIELDS[2..],
            ]
            .concat(),
        ),
        message(
            "GONE",
            6,
            Message::Gone(FileId(3), error),
            &[&[seq("number 6"), ("id 3", 4)][..], &error_fields].concat(),
        ),
        message("FINISH", 7, Message::Finish(RootMeta(None)), &[seq("number 7")]),
        message(
            "FINISH-root",
            7,
            Message::Finish(finish),
            &[seq("number 7"), ("mode 0o755", 2), ("seconds", 8), ("nanoseconds", 4)],
        ),
    ]
}

fn messages_of_the_receiver() -> Vec<Example> {
    let failed = WireError::new(ErrorCode::NO_SPACE, "disk full");
    let results = vec![
        FileResult { file: FileId(1), outcome: Outcome::Created },
        FileResult { file: FileId(2), outcome: Outcome::Failed(failed) },
    ];
    let ranges = vec![0..1 << 20, 3 << 20..(3 << 20) + 5];
    let summary = Summary { changed: 2, same: 1, failed: 1, received: 5, kept: 0 };
    vec![
        message(
            "WANT",
            0,
            Message::Want(vec![Want { file: FileId(1), ranges: vec![] }]),
            &[("number 0", 4), ("id 1", 4), ("the whole file", 2)],
        ),
        message(
            "WANT-ranges",
            1,
            Message::Want(vec![Want { file: FileId(4), ranges }]),
            &[
                ("number 1", 4),
                ("id 4", 4),
                ("2 ranges", 2),
                ("from 0", 8),
                ("to 1048576", 8),
                ("from 3145728", 8),
                ("to 3145733", 8),
            ],
        ),
        message(
            "DIGESTS_WANTED",
            2,
            Message::DigestsWanted(vec![FileId(1)]),
            &[("number 2", 4), ("id 1", 4)],
        ),
        message(
            "WRITTEN",
            3,
            Message::Written(vec![Written { file: FileId(4), offset: 3 << 20 }]),
            &[("number 3", 4), ("id 4", 4), ("offset 3145728", 8)],
        ),
        message(
            "RESULTS",
            4,
            Message::Results(results),
            &[
                ("number 4", 4),
                ("id 1", 4),
                ("created", 1),
                ("id 2", 4),
                ("failed", 1),
                ("NO_SPACE", 2),
                ("length 9", 2),
                ("text=", 9),
            ],
        ),
        message(
            "CLOSE",
            5,
            Message::Close(summary),
            &[
                ("number 5", 4),
                ("2 changed", 8),
                ("1 the same", 8),
                ("1 failed", 8),
                ("5 bytes received", 8),
                ("0 bytes kept", 8),
            ],
        ),
    ]
}

fn rest() -> Vec<Example> {
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

const DIR_FIELDS: [(&str, usize); 8] = [
    ("a directory", 1),
    ("id 0", 4),
    ("in the root", 4),
    ("length 4", 1),
    ("name=", 4),
    ("mode 0o755", 2),
    ("seconds", 8),
    ("nanoseconds", 4),
];
const FILE_FIELDS: [(&str, usize); 10] = [
    ("a file", 1),
    ("id 1", 4),
    ("in id 0", 4),
    ("length 9", 1),
    ("name=", 9),
    ("mode 0o644", 2),
    ("seconds", 8),
    ("nanoseconds", 4),
    ("size 5", 8),
    ("token", 8),
];
const LINK_FIELDS: [(&str, usize); 10] = [
    ("a symbolic link", 1),
    ("id 2", 4),
    ("in id 0", 4),
    ("length 6", 1),
    ("name=", 6),
    ("mode 0o777", 2),
    ("seconds", 8),
    ("nanoseconds", 4),
    ("length 9", 2),
    ("target=", 9),
];

fn dir_entry() -> Entry {
    Entry {
        id: FileId(0),
        parent: DirId::ROOT,
        name: name(b"docs"),
        mode: 0o755,
        mtime: MTIME,
        body: EntryBody::Dir,
    }
}

fn file_entry(id: u32, mtime: Timestamp) -> Entry {
    Entry {
        id: FileId(id),
        parent: DirId(0),
        name: name(b"hello.txt"),
        mode: 0o644,
        mtime,
        body: EntryBody::File { size: 5, token: 0x0123_4567_89ab_cdef },
    }
}

fn link_entry() -> Entry {
    Entry {
        id: FileId(2),
        parent: DirId(0),
        name: name(b"latest"),
        mode: 0o777,
        mtime: MTIME,
        body: EntryBody::Symlink { target: b"hello.txt"[..].into() },
    }
}

fn push(fcp: Option<Hello>) -> PushOpening {
    PushOpening { user: "ada".into(), dst: "backup".into(), fcp }
}

fn pull(fcp: Option<Hello>) -> PullOpening {
    PullOpening {
        user: "ada".into(),
        srcs: vec!["docs".into()],
        include: "*".into(),
        exclude: vec!["*.tmp".into()],
        fcp,
    }
}

fn opening(name: &'static str, value: Opening, fields: &[(&'static str, usize)]) -> Example {
    let mut bytes = Vec::new();
    value.encode(&mut bytes).expect("fits a frame");
    let check = move |bytes: &[u8]| assert_eq!(Opening::decode(one(bytes)).as_ref(), Ok(&value));
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn reply(
    name: &'static str,
    flag: Flag,
    value: Reply,
    fields: &[(&'static str, usize)],
) -> Example {
    let mut bytes = Vec::new();
    value.encode(flag, &mut bytes);
    let check = move |bytes: &[u8]| {
        assert_eq!(one(bytes).flag, flag);
        assert_eq!(Reply::decode(one(bytes)).as_ref(), Ok(&value));
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn v1(name: &'static str, value: V1Packet<'static>, fields: &[(&'static str, usize)]) -> Example {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    let check = move |bytes: &[u8]| assert_eq!(V1Packet::decode(one(bytes)).as_ref(), Ok(&value));
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn message(
    name: &'static str,
    seq: u32,
    message: Message,
    fields: &[(&'static str, usize)],
) -> Example {
    let mut bytes = Vec::new();
    Sequenced::put_frames(message.flag(), &message.to_payload(seq), 8192, &mut bytes);
    let value = Sequenced { seq, message };
    let check = move |bytes: &[u8]| {
        let frame = one(bytes);
        assert_eq!(Sequenced::from_payload(frame.flag, frame.payload).as_ref(), Ok(&value));
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn bare(
    name: &'static str,
    flag: Flag,
    payload: &[u8],
    fields: &[(&'static str, usize)],
    check: impl Fn(&[u8]) + 'static,
) -> Example {
    let mut bytes = Vec::new();
    frame::encode(flag, payload, &mut bytes);
    let check = move |bytes: &[u8]| {
        assert_eq!(one(bytes).flag, flag);
        check(one(bytes).payload);
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

/// The xxh3-128 of `bytes`, big-endian.
pub(crate) fn xxh3(bytes: &[u8]) -> Digest {
    Digest(twox_hash::XxHash3_128::oneshot(bytes).to_be_bytes())
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("a name")
}

fn path(bytes: &[u8]) -> RelPath {
    RelPath::new(bytes).expect("a path")
}
