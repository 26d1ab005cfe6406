//! Openings and their answers, and version 1.

use fcp_proto::auth::{AuthOffer, Challenge, DirectOffer};
use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::packet::*;
use fcp_proto::v1::{V1Chunk, V1Dir, V1File, V1Packet};
use fcp_proto::version::{Hello, ReplyExtra, negotiate};
use fcp_proto::{FileId, Fingerprint, Flag, RelPath, SessionId};

use super::*;

const SID: SessionId =
    SessionId(*b"\x5f\x2d\x1c\x90\xa7\x3e\x4b\x06\x91\x88\xd4\x33\x0a\x6f\xe2\x17");
const MD5: [u8; 16] = *b"\x5d\x41\x40\x2a\xbc\x4b\x2a\x76\xb9\x71\x9d\x91\x10\x17\xc5\x92";

pub(super) fn version_1() -> Vec<Example> {
    let id_mode = [("id 0", 4), ("mode 0o40755", 2)];
    vec![
        opening("PUSH-1", Opening::Push(push(None)), &[("JSON=", ALL)]),
        opening("PULL-1", Opening::Pull(pull(None)), &[("JSON=", ALL)]),
        reply("SID-1", Flag::SID, Reply::version_1(SID), &[("session id", 16)]),
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

pub(super) fn both() -> Vec<Example> {
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
    let answer = Reply { sid: SID, agreed: Some(agreed), extra: ReplyExtra::default() };
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

/// The packets of a proof, and of a direct data port.
pub(super) fn identities() -> Vec<Example> {
    let proven = proof::computed();
    let offer = AuthOffer::new(proof::NAME, proof::CLIENT_NONCE).expect("a name");
    let hello =
        Hello { auth: Some(offer), direct: Some(Fingerprint([0xc1; 32])), ..Hello::ours(8) };
    let agreed = negotiate(&hello, &Hello::ours(128)).expect("one version");
    let direct = DirectOffer { port: 40_123, fingerprint: Fingerprint([0x5e; 32]) };
    let extra = ReplyExtra { auth: Some(proven.signature), direct: Some(direct) };
    let accept = Reply { sid: SID, agreed: Some(agreed), extra };
    let challenge = Challenge { nonce: proof::SERVER_NONCE };
    vec![
        opening(
            "HELLO-proof",
            Opening::Hello(hello),
            &[
                ("as in HELLO", 22),
                ("field 1, 39 bytes", 4),
                ("client nonce", 32),
                ("token name=", 7),
                ("field 2, 32 bytes", 4),
                ("client's certificate", 32),
            ],
        ),
        value("CHALLENGE", Flag::CHALLENGE, challenge, &[("server nonce", 32)]),
        value("PROOF", Flag::PROOF, proven.proof, &[("proof", 32)]),
        reply(
            "ACCEPT-proof",
            Flag::ACCEPT,
            accept,
            &[
                ("as in ACCEPT", 36),
                ("field 1, 32 bytes", 4),
                ("server's signature", 32),
                ("field 2, 34 bytes", 4),
                ("port 40123", 2),
                ("server's certificate", 32),
            ],
        ),
    ]
}

fn value<T: Wire + PartialEq + fmt::Debug + 'static>(
    name: &'static str,
    flag: Flag,
    value: T,
    fields: &[(&'static str, usize)],
) -> Example {
    let mut payload = Vec::new();
    value.encode(&mut payload);
    bare(name, flag, &payload, fields, move |bytes| {
        assert_eq!(decode_exact::<T>(bytes).as_ref(), Ok(&value));
    })
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

fn path(bytes: &[u8]) -> RelPath {
    RelPath::new(bytes).expect("a path")
}
