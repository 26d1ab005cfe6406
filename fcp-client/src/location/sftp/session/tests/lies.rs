//! S17, S04, S05: replies that a server must not send, and files that are not what was said.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};

use super::super::{FoundSize, SessionError, SessionOptions};
use super::evil::{Act, honest, names, read, scripted, serve, session, status};
use super::{content, open, protocol_text, quick, soon};
use crate::location::sftp::wire::{
    Attrs, Extensions, Limits, Reply, Request, StatusCode, extension,
};

/// A READ answered so ends the session, and everybody who waits is told.
async fn ends(what: &str, words: &str, act: impl Fn(u32) -> Act + Send + 'static) {
    let session = scripted(move |id, request| match request {
        Request::Open { .. } => super::evil::handle(b"h"),
        Request::Read { .. } => act(id),
        _ => Act::Nothing,
    })
    .await;
    let file = open(&session, b"f").await.unwrap();
    let others: Vec<_> = (0..3)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.lstat(b"other").await })
        })
        .collect();
    tokio::task::yield_now().await;
    let error = soon(file.read(0, 10)).await.unwrap_err();
    assert!(protocol_text(&error).contains(words), "{what}: {error}");
    assert!(session.is_closed(), "{what}");
    for other in others {
        assert_eq!(soon(other).await.unwrap(), Err(error.clone()), "{what}");
    }
    assert_eq!(soon(session.closed()).await, error);
    assert_eq!(soon(session.lstat(b"x")).await, Err(error), "{what}");
}

fn raw(kind: u8, id: u32, rest: &[u8]) -> Act {
    let mut out = BytesMut::new();
    out.put_u32(5 + rest.len() as u32);
    out.put_u8(kind);
    out.put_u32(id);
    out.put_slice(rest);
    Act::Raw(out.to_vec())
}

#[tokio::test]
async fn s17_wrong_replies_end_the_session() {
    ends("unknown id", "does not wait", |id| raw(101, id + 1000, &[0; 12])).await;
    ends("wrong type", "with NAME", |_| names(&[b"x"])).await;
    ends("wrong type", "with ATTRS", |_| Act::Answer(Reply::Attrs(Attrs::default()))).await;
    ends("no news", "status \"ok\"", |_| status(StatusCode::OK)).await;
    ends("too much", "11 bytes where 10", |_| Act::Answer(Reply::Data(vec![0; 11].into()))).await;
    ends("no bytes", "no bytes", |_| Act::Raw(vec![0; 4])).await;
    ends("4 GiB", "4294967295 bytes", |_| Act::Raw(vec![0xff; 4])).await;
    ends("just too long", "263169 bytes", |_| Act::Raw(263_169u32.to_be_bytes().to_vec())).await;
    ends("unknown type", "type 77", |id| raw(77, id, &[])).await;
    ends("a request", "type 5", |id| raw(5, id, &[])).await;
    ends("cut short", "ends inside", |id| raw(103, id, &[0, 0, 0, 9, 1])).await;
    ends("left over", "behind its last field", |id| raw(103, id, &[0, 0, 0, 1, 1, 1])).await;
    ends("a version", "VERSION", |_| raw(2, 3, &[])).await;
    ends("too short for an id", "ends inside", |_| Act::Raw(vec![0, 0, 0, 2, 101, 0])).await;
}

#[tokio::test]
async fn s17_bad_handles_and_counts_end_the_session() {
    for (words, act) in [
        ("empty handle", raw_fn(102, &[0, 0, 0, 0])),
        ("over 256", raw_fn(102, &[&[0, 0, 1, 1][..], &[7; 257]].concat())),
        ("status \"ok\"", raw_fn(101, &[0; 12])),
        ("more names", raw_fn(104, &[0xff; 4])),
    ] {
        let session = scripted(move |id, _| act(id)).await;
        let error = soon(open(&session, b"f")).await.unwrap_err();
        assert!(protocol_text(&error).contains(words), "{error}");
    }
}

fn raw_fn(kind: u8, rest: &[u8]) -> impl Fn(u32) -> Act + Send + use<> {
    let rest = rest.to_vec();
    move |id| raw(kind, id, &rest)
}

#[tokio::test]
async fn s17_the_same_answer_twice_ends_the_session() {
    let session = scripted(|id, _| {
        let mut out = BytesMut::new();
        for _ in 0..2 {
            Reply::Attrs(Attrs::default()).encode(id, &mut out);
        }
        Act::Raw(out.to_vec())
    })
    .await;
    assert!(soon(session.lstat(b"x")).await.is_ok());
    let error = soon(session.closed()).await;
    assert!(protocol_text(&error).contains("does not wait"), "{error}");
}

#[tokio::test]
async fn s17_text_of_a_login_shell_is_named() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut theirs, b"Welcome to host\n").await.unwrap();
    let (reader, writer) = tokio::io::split(ours);
    let start = super::super::Session::start(reader, writer, SessionOptions::default());
    let error = soon(start).await.unwrap_err();
    assert!(protocol_text(&error).contains("Welcome to host"), "{error}");
    assert!(protocol_text(&error).contains("login shell"), "{error}");
}

#[tokio::test]
async fn s17_a_server_that_says_nothing_or_goes_is_told_apart() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(ours);
    let start = super::super::Session::start(reader, writer, quick(100, 1000));
    assert!(matches!(soon(start).await, Err(SessionError::Stalled(_))));
    drop(theirs);
    let (ours, theirs) = tokio::io::duplex(1024);
    drop(theirs);
    let (reader, writer) = tokio::io::split(ours);
    let start = super::super::Session::start(reader, writer, quick(100, 1000));
    assert!(matches!(soon(start).await, Err(SessionError::Lost(_))));
}

#[tokio::test]
async fn s17_limits_of_nothing_and_of_everything_are_not_believed() {
    for (announced, expected) in
        [(0, 32 * 1024), (1, 1024), (40_000, 40_000), (u64::MAX, 255 * 1024)]
    {
        let extensions = Extensions::new([(extension::LIMITS, "1")]);
        let limits = Limits { read: announced, write: announced, packet: 0, handles: 0 };
        let session = session(SessionOptions::default(), extensions, move |_, _| {
            Act::Answer(Reply::Extended(limits.encode()))
        })
        .await;
        assert_eq!((session.limits().read, session.limits().write), (expected, expected));
    }
}

#[tokio::test]
async fn s17_limits_cut_short_fail_the_start() {
    let extensions = Extensions::new([(extension::LIMITS, "1")]);
    let script = |_, _: Request<'_>| Act::Answer(Reply::Extended(vec![0; 9].into()));
    let (reader, writer) = tokio::io::split(serve(extensions, Box::new(script)));
    let start = super::super::Session::start(reader, writer, SessionOptions::default());
    assert!(protocol_text(&soon(start).await.unwrap_err()).contains("limits"));
}

#[tokio::test]
async fn s17_short_reads_are_legal() {
    let whole = Bytes::from(content(300_000));
    let file = whole.clone();
    let session = scripted(move |_, request| match request {
        Request::Read { offset, len, .. } => read(&file, offset, len.min(1 + offset as u32 % 4999)),
        other => honest(&file, other),
    })
    .await;
    let (read, attrs) = soon(session.read_small(b"f", 300_000)).await.unwrap();
    assert!(read == whole);
    assert_eq!(attrs.size, Some(300_000));
    let handle = open(&session, b"f").await.unwrap();
    let mut reader = handle.read_range(0..300_000);
    let (mut back, mut got) = (vec![0; whole.len()], 0);
    while let Some(piece) = soon(reader.next()).await {
        let (at, data) = piece.unwrap();
        back[at as usize..][..data.len()].copy_from_slice(&data);
        got += data.len();
    }
    assert!(back == whole);
    assert_eq!(got, whole.len());
}

#[tokio::test]
async fn s05_sizes_that_lie_are_noticed() {
    let whole = Bytes::from(content(70_000));
    let session = scripted(move |_, request| honest(&whole, request)).await;
    for size in [0, 1, 32_768, 69_999] {
        let error = soon(session.read_small(b"f", size)).await.unwrap_err();
        let SessionError::Size { expected, found: FoundSize::Longer, .. } = error else {
            panic!("{size}: {error}")
        };
        assert_eq!(expected, size);
    }
    for size in [70_001, 100_000, 4 << 20] {
        let error = soon(session.read_small(b"f", size)).await.unwrap_err();
        let SessionError::Size { found: FoundSize::Shorter(at), .. } = error else {
            panic!("{size}: {error}")
        };
        assert_eq!(at, 70_000);
    }
    assert_eq!(soon(session.read_small(b"f", 70_000)).await.unwrap().0.len(), 70_000);
    let huge = soon(session.read_small(b"f", u64::MAX)).await.unwrap_err();
    assert!(matches!(huge, SessionError::Unsupported(_)));
    assert!(!session.is_closed());
}

#[tokio::test]
async fn s04_a_file_that_ends_early_is_an_error_of_its_own() {
    let file = Bytes::from(content(1_000_000));
    let session = scripted(move |_, request| honest(&file, request)).await;
    let handle = open(&session, b"f").await.unwrap();
    for end in [1_000_001, 5_000_000, u64::MAX] {
        let mut reader = handle.read_range(0..end);
        let error = loop {
            match soon(reader.next()).await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, SessionError::Size { found: FoundSize::Shorter(_), .. }),
            "{error}"
        );
        assert!(soon(reader.next()).await.is_none());
    }
    assert!(!session.is_closed());
}

#[tokio::test]
async fn s04_no_bytes_are_an_end_and_not_a_loop() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let session = scripted(move |_, request| match request {
        Request::Read { .. } => {
            count.fetch_add(1, Ordering::Relaxed);
            Act::Answer(Reply::Data(Bytes::new()))
        }
        other => honest(&Bytes::new(), other),
    })
    .await;
    let error = soon(session.read_small(b"f", 10)).await.unwrap_err();
    assert!(matches!(error, SessionError::Size { .. }), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn s17_a_session_that_closes_mid_way_is_lost() {
    let session = scripted(|_, request| match request {
        Request::Open { .. } => super::evil::handle(b"h"),
        _ => Act::Close,
    })
    .await;
    let file = open(&session, b"f").await.unwrap();
    let mut reader = file.read_range(0..10 << 20);
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Lost(_)), "{error}");
}

#[tokio::test]
async fn offsets_beyond_any_file_are_not_sent() {
    let session = scripted(move |_, request| honest(&Bytes::new(), request)).await;
    let file = open(&session, b"f").await.unwrap();
    for offset in [i64::MAX as u64, u64::MAX] {
        let error = file.write(offset, Bytes::from_static(b"xy")).await.unwrap_err();
        assert!(matches!(error, SessionError::Unsupported(_)), "{error}");
    }
    let error = file.finish_write(u64::MAX, Bytes::from_static(b"xy"), None, false).await;
    assert!(matches!(error, Err(SessionError::Unsupported(_))));
}

#[tokio::test]
async fn the_words_of_a_server_are_bounded_and_escaped() {
    let message = Bytes::from([&b"\x1b[2Jno\n"[..], &[b'x'; 100_000]].concat());
    let session = scripted(move |_, _| {
        Act::Answer(Reply::Status { code: StatusCode(99), message: message.clone() })
    })
    .await;
    let text = soon(session.lstat(b"f")).await.unwrap_err().to_string();
    assert!(text.starts_with("stat f: status 99 (the server says: \\033[2Jno\\012xxx"), "{text}");
    assert!(text.len() < 1200, "{}", text.len());
}
