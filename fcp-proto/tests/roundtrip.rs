//! Every packet of both versions, with any values that it allows: encoded, framed, decoded, equal.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use fcp_proto::auth::{AuthOffer, DirectOffer, Signature};
use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{self, Frame};
use fcp_proto::limits::{BLOCK, MAX_FILE_SIZE, MAX_TEXT, V1_CHUNK, V1_MAX_FILE_SIZE};
use fcp_proto::packet::*;
use fcp_proto::v1::{V1Chunk, V1Dir, V1File, V1Packet, timestamp_from_f64};
use fcp_proto::version::{Features, Hello, ReplyExtra, negotiate};
use fcp_proto::{
    Digest, DirId, ErrorCode, FileId, Fingerprint, Flag, Name, RelPath, SessionId, SourceVersion,
    Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn one(bytes: &[u8]) -> Frame<'_> {
    let (frame, used) = frame::decode(bytes).unwrap().expect("a whole frame");
    assert_eq!(used, bytes.len());
    frame
}

fn name() -> impl Strategy<Value = Name> {
    vec(1..=255u8, 1..=255).prop_filter_map("a name", |bytes| Name::new(&bytes).ok())
}

fn short_name() -> impl Strategy<Value = Name> {
    vec(1..=255u8, 1..12).prop_filter_map("a name", |bytes| Name::new(&bytes).ok())
}

fn path() -> impl Strategy<Value = RelPath> {
    vec(short_name(), 1..6).prop_map(|names| {
        names.iter().fold(RelPath::root(), |dir, name| dir.join(name).expect("short"))
    })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn error() -> impl Strategy<Value = WireError> {
    (any::<u16>(), "\\PC{0,400}").prop_map(|(code, text)| WireError::new(ErrorCode(code), text))
}

fn file_id() -> impl Strategy<Value = FileId> {
    any::<u32>().prop_map(FileId)
}

fn body() -> impl Strategy<Value = EntryBody> {
    prop_oneof![
        (0..=MAX_FILE_SIZE, any::<u64>()).prop_map(|(size, token)| EntryBody::File { size, token }),
        Just(EntryBody::Dir),
        vec(1..=255u8, 1..=4095).prop_map(|t| EntryBody::Symlink { target: t.into() }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..u32::MAX, any::<u32>(), name(), any::<u16>(), timestamp(), body()).prop_map(
        |(id, parent, name, mode, mtime, body)| Entry {
            id: FileId(id),
            parent: DirId(parent),
            name,
            mode,
            mtime,
            body,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let path = || vec(1..=255u8, 0..50);
    let rule =
        (1..=2u8, vec(any::<u8>(), 0..50)).prop_map(|(action, pattern)| Rule { action, pattern });
    let durability =
        prop_oneof![Just(Durability::None), Just(Durability::Batch), Just(Durability::Always)];
    let paths = prop_oneof![
        path().prop_map(|p| (Direction::Push, vec![p])),
        proptest::collection::vec(path(), 1..9).prop_map(|p| (Direction::Pull, p)),
    ];
    (paths, 0..256u32, durability, vec(rule, 0..9)).prop_map(
        |((direction, paths), options, durability, rules)| Request {
            direction,
            options: Options(options),
            durability,
            paths,
            rules,
        },
    )
}

fn want() -> impl Strategy<Value = Want> {
    let range = (0..MAX_FILE_SIZE / BLOCK, 1..=BLOCK)
        .prop_map(|(block, len)| block * BLOCK..(block * BLOCK + len).min(MAX_FILE_SIZE));
    (file_id(), vec(range, 0..20)).prop_map(|(file, ranges)| Want { file, ranges })
}

fn result() -> impl Strategy<Value = FileResult> {
    let outcome = prop_oneof![
        Just(Outcome::Same),
        Just(Outcome::Created),
        Just(Outcome::Replaced),
        Just(Outcome::Metadata),
        error().prop_map(Outcome::Failed),
    ];
    (file_id(), outcome).prop_map(|(file, outcome)| FileResult { file, outcome })
}

fn written() -> impl Strategy<Value = Written> {
    (file_id(), 0..MAX_FILE_SIZE / BLOCK)
        .prop_map(|(file, block)| Written { file, offset: block * BLOCK })
}

fn message() -> impl Strategy<Value = Message> {
    let digests = (file_id(), any::<u32>(), vec(any::<[u8; 32]>(), 1..20))
        .prop_map(|(file, first, hashes)| FileDigests { file, first, hashes });
    let problem =
        (vec(any::<u8>(), 0..200), error()).prop_map(|(path, error)| Problem { path, error });
    let summary = any::<[u64; 5]>().prop_map(|[changed, same, failed, received, kept]| Summary {
        changed,
        same,
        failed,
        received,
        kept,
    });
    prop_oneof![
        request().prop_map(Message::Request),
        vec(entry(), 0..9).prop_map(Message::Entries),
        vec(any::<u32>().prop_map(DirId), 0..9).prop_map(Message::DirsEnd),
        vec(want(), 0..9).prop_map(Message::Want),
        vec(result(), 0..9).prop_map(Message::Results),
        vec(written(), 0..9).prop_map(Message::Written),
        vec(file_id(), 0..9).prop_map(Message::DigestsWanted),
        digests.prop_map(Message::Digests),
        problem.prop_map(Message::Problem),
        (file_id(), entry()).prop_map(|(old, entry)| Message::Replaced(old, entry)),
        (file_id(), error()).prop_map(|(id, error)| Message::Gone(id, error)),
        proptest::option::of((any::<u16>(), timestamp()))
            .prop_map(|root| Message::Finish(RootMeta(root))),
        summary.prop_map(Message::Close),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let versions = (1..=u16::MAX, any::<u16>()).prop_map(|(a, b)| (a.min(b.max(1)), a.max(b)));
    let limits = (8192..=u16::MAX, 1..=u16::MAX, 1..=u32::MAX, 5..=u16::MAX);
    (versions, any::<u64>(), limits).prop_map(
        |((min_version, max_version), features, (max_frame, connections, open_entries, idle))| {
            Hello {
                min_version,
                max_version,
                features: Features(features),
                max_frame,
                connections,
                open_entries,
                idle_secs: idle,
                auth: None,
                direct: None,
            }
        },
    )
}

/// A HELLO with any of its extensions.
fn offer() -> impl Strategy<Value = Hello> {
    let auth = proptest::option::of(("|[a-z0-9._][a-zA-Z0-9._-]{0,63}", any::<[u8; 32]>()));
    (hello(), auth, any::<Option<[u8; 32]>>()).prop_map(|(hello, auth, direct)| Hello {
        auth: auth.map(|(name, nonce)| AuthOffer::new(&name, nonce).unwrap()),
        direct: direct.map(Fingerprint),
        ..hello
    })
}

fn opening() -> impl Strategy<Value = Opening> {
    let text = || "\\PC{0,40}";
    let texts = || vec("\\PC{0,40}", 0..9);
    let fcp = || proptest::option::of(offer());
    prop_oneof![
        (text(), text(), fcp()).prop_map(|(user, dst, fcp)| Opening::Push(PushOpening {
            user,
            dst,
            fcp
        })),
        (text(), texts(), text(), texts(), fcp()).prop_map(
            |(user, srcs, include, exclude, fcp)| {
                Opening::Pull(PullOpening { user, srcs, include, exclude, fcp })
            }
        ),
        any::<[u8; 16]>().prop_map(|sid| Opening::Attach(SessionId(sid))),
        offer().prop_map(Opening::Hello),
    ]
}

fn v1_owned() -> impl Strategy<Value = V1Packet<'static>> {
    let mtime = any::<f64>().prop_filter_map("a time", timestamp_from_f64);
    let dir =
        (file_id(), any::<u16>(), path()).prop_map(|(id, mode, path)| V1Dir { id, mode, path });
    let meta = (file_id(), any::<u16>(), 0..=V1_MAX_FILE_SIZE, mtime, any::<[u8; 16]>(), path());
    let file = meta.prop_map(|(id, mode, size, mtime, md5, path)| V1File {
        id,
        mode,
        size,
        mtime,
        md5,
        path,
    });
    prop_oneof![
        any::<bool>().prop_map(V1Packet::Monofile),
        dir.prop_map(V1Packet::DirInfo),
        file.prop_map(V1Packet::FileInfo),
        any::<u32>().prop_map(V1Packet::FileCount),
        file_id().prop_map(V1Packet::FileReady),
        Just(V1Packet::Done),
        "\\PC{0,250}".prop_map(V1Packet::Exception),
    ]
}

proptest! {
    #[test]
    fn messages_in_any_frames(message in message(), seq: u32, max_frame in 1..70_000usize) {
        let payload = message.to_payload(seq);
        let max_frame = max_frame.min(frame::MAX_PAYLOAD);
        let mut wire = Vec::new();
        Sequenced::put_frames(message.flag(), &payload, max_frame, &mut wire);
        let (mut rest, mut joined, mut flags) = (&wire[..], Vec::new(), Vec::new());
        while let Some((frame, used)) = frame::decode(rest).unwrap() {
            prop_assert!(!frame.payload.is_empty() && frame.payload.len() <= max_frame);
            joined.extend_from_slice(frame.payload);
            flags.push(frame.flag);
            rest = &rest[used..];
        }
        prop_assert_eq!(flags.pop(), Some(message.flag()));
        prop_assert!(flags.iter().all(|f| *f == Flag::PART));
        let back = Sequenced::from_payload(message.flag(), &joined);
        prop_assert_eq!(back, Ok(Sequenced { seq, message }));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_a_shorter_one(message in message(), seq: u32, cut: u16) {
        let payload = message.to_payload(seq);
        let cut = usize::from(cut) % payload.len();
        match Sequenced::from_payload(message.flag(), &payload[..cut]) {
            Ok(shorter) => prop_assert_eq!(shorter.message.to_payload(seq), &payload[..cut]),
            Err(violation) => prop_assert!(violation.to_string().contains("sent a packet")),
        }
    }

    #[test]
    fn openings(value in opening()) {
        let mut bytes = Vec::new();
        prop_assert!(value.encode(&mut bytes).is_some());
        prop_assert_eq!(Opening::decode(one(&bytes)), Ok(value));
    }

    #[test]
    fn replies(
        ours in hello(),
        theirs in hello(),
        sid: [u8; 16],
        signature: Option<[u8; 32]>,
        direct in proptest::option::of((1u16.., any::<[u8; 32]>())),
    ) {
        let agreed = negotiate(&ours, &theirs).ok();
        prop_assert!(agreed.as_ref().is_none_or(|a| a.is_within(&ours) && a.is_within(&theirs)));
        let bare = agreed.is_none();
        let extra = ReplyExtra {
            auth: signature.filter(|_| !bare).map(Signature),
            direct: direct.filter(|_| !bare).map(|(port, key)| DirectOffer { port, fingerprint: Fingerprint(key) }),
        };
        let reply = Reply { sid: SessionId(sid), agreed, extra };
        for flag in [Flag::SID, Flag::ACCEPT] {
            let mut bytes = Vec::new();
            reply.encode(flag, &mut bytes);
            let back = Reply::decode(one(&bytes));
            if flag == Flag::ACCEPT && bare {
                prop_assert!(back.is_err());
            } else {
                prop_assert_eq!(back.as_ref(), Ok(&reply));
            }
        }
    }

    #[test]
    fn version_1(value in v1_owned()) {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        prop_assert_eq!(V1Packet::decode(one(&bytes)), Ok(value));
    }

    #[test]
    fn version_1_chunks(file: u32, seq: u32, bytes in vec(any::<u8>(), 1..=V1_CHUNK)) {
        let value = V1Packet::FileChunk(V1Chunk { file: FileId(file), seq, bytes: &bytes });
        let mut out = Vec::new();
        value.encode(&mut out);
        prop_assert_eq!(V1Packet::decode(one(&out)), Ok(value));
    }

    #[test]
    fn version_1_times_of_our_days_are_exact_to_the_microsecond(secs in 0..1i64 << 33, nanos in 0..1_000_000_000u32) {
        let back = timestamp_from_f64(fcp_proto::v1::timestamp_to_f64(Timestamp { secs, nanos })).unwrap();
        let nanos_of = |t: Timestamp| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
        let off = nanos_of(back) - nanos_of(Timestamp { secs, nanos });
        prop_assert!(off.abs() < 1000);
    }

    #[test]
    fn content(file: u32, at in 0..MAX_FILE_SIZE / BLOCK, digest: [u8; 16], bytes in vec(any::<u8>(), 1..3000)) {
        let (file, offset, digest) = (FileId(file), at * BLOCK, Digest(digest));
        let mut head = [0; frame::HEAD_LEN + Data::HEAD];
        put_data_head(&mut head, file, offset, &bytes);
        let data = [&head, &bytes[..]].concat();
        prop_assert_eq!(Data::decode(one(&data).payload), Ok(Data { file, offset, bytes: &bytes }));

        let mut head = [0; frame::HEAD_LEN + Whole::HEAD];
        put_whole_head(&mut head, file, digest, &bytes);
        let whole = [&head, &bytes[..]].concat();
        prop_assert_eq!(Whole::decode(one(&whole).payload), Ok(Whole { file, digest, bytes: &bytes }));

        let block = BlockDigest { block: Block { file, offset, len: bytes.len() as u32 }, digest };
        prop_assert_eq!(BlockDigest::decode(one(&put_block(block)).payload), Ok(block));
    }

    #[test]
    fn errors_and_acks(error in error(), next: u32) {
        let mut bytes = Vec::new();
        error.encode(&mut bytes);
        prop_assert!(error.text.len() <= MAX_TEXT);
        prop_assert_eq!(decode_exact::<WireError>(&bytes), Ok(error));
        let mut bytes = Vec::new();
        Ack { next }.encode(&mut bytes);
        prop_assert_eq!(decode_exact::<Ack>(&bytes), Ok(Ack { next }));
    }

    #[test]
    fn any_frame(flag: u8, payload in vec(any::<u8>(), 0..500)) {
        let mut bytes = Vec::new();
        frame::encode(Flag(flag), &payload, &mut bytes);
        prop_assert_eq!(one(&bytes), Frame { flag: Flag(flag), payload: &payload });
    }

    #[test]
    fn an_entry_knows_its_version(entry in entry()) {
        let SourceVersion { size, mtime, .. } = entry.version();
        prop_assert_eq!((size, mtime), (entry.size(), entry.mtime));
    }
}
