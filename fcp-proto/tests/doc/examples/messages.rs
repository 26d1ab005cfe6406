//! The numbered stream.

use fcp_proto::packet::*;
use fcp_proto::{DirId, ErrorCode, FileId, Name, Timestamp};

use super::*;

pub(super) fn of_the_sender() -> Vec<Example> {
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
        rules: vec![Rule { action: 2, pattern: b"*.tmp".to_vec() }],
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

pub(super) fn of_the_receiver() -> Vec<Example> {
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

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("a name")
}
