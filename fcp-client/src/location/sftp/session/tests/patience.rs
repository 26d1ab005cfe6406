//! S02: servers that stall, and those that are only slow.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::super::{Session, SessionError};
use super::evil::{self, Act, honest, packet, status};
use super::{content, open, quick, soon};
use crate::location::sftp::wire::{Extensions, Reply, Request, StatusCode, VERSION, extension};

#[tokio::test]
async fn s02_a_stall_ends_the_session() {
    let session =
        evil::session(quick(200, 60_000), Extensions::default(), |_, request| match request {
            Request::Open { .. } => evil::handle(b"h"),
            _ => Act::Nothing,
        })
        .await;
    let file = open(&session, b"f").await.unwrap();
    // Nobody waits: a pause is no stall.
    sleep(Duration::from_millis(400)).await;
    assert!(!session.is_closed());
    let start = Instant::now();
    let mut reader = file.read_range(0..1 << 30);
    let error = soon(reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error, SessionError::Stalled(Duration::from_millis(200)));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(session.is_closed());
}

#[tokio::test]
async fn a_server_that_hashes_for_long_is_waited_for() {
    let extensions = Extensions::new([(extension::CHECK_FILE, "1")]);
    let session = evil::session(quick(100, 600), extensions, |_, _| Act::Nothing).await;
    let start = Instant::now();
    // Behind it, others wait as long.
    let (check, other) =
        tokio::join!(soon(session.check_file(b"f", b"md5", (0, 0), 0)), soon(session.lstat(b"f")));
    assert!(check.is_err() && other.is_err());
    assert!(start.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn s02_a_server_that_reads_nothing_ends_the_session() {
    let stream = slow(|_| async {}, false).await;
    let (reader, writer) = tokio::io::split(stream);
    let session = soon(Session::start(reader, writer, quick(300, 60_000))).await.unwrap();
    let file = open(&session, b"f").await.unwrap();
    let writer = file.write_range();
    let error = soon(async {
        let mut offset = 0;
        loop {
            match writer.write_at(offset, Bytes::from(vec![1; 200_000])).await {
                Ok(()) => offset += 200_000,
                Err(error) => break error,
            }
        }
    })
    .await;
    assert!(matches!(error, SessionError::Stalled(_)), "{error}");
    assert!(soon(writer.settle()).await.is_err());
}

#[tokio::test]
async fn s02_a_trickle_is_a_stall_and_a_slow_line_is_none() {
    for (step, ok) in [(1, false), (8192, true)] {
        let stream = slow(move |_| sleep(Duration::from_millis(20)), step == 8192).await;
        let (reader, writer) = tokio::io::split(stream);
        let session = soon(Session::start(reader, writer, quick(300, 60_000))).await.unwrap();
        let file = open(&session, b"f").await.unwrap();
        let read = soon(file.read(0, 32 * 1024)).await;
        assert_eq!(read.is_ok(), ok, "{step}: {read:?}");
    }
}

/// A server whose answer to the first READ comes in steps with a pause after each, and which then
/// reads nothing any more.
async fn slow<F: Future<Output = ()> + Send>(
    pause: impl Fn(usize) -> F + Send + 'static,
    fast: bool,
) -> tokio::io::DuplexStream {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        while let Some(packet) = packet(&mut theirs, &mut buffer).await {
            let mut out = BytesMut::new();
            let (id, request) = Request::decode(&packet).unwrap();
            match request {
                Request::Init { .. } => {
                    let extensions = Extensions::default();
                    Reply::Version { version: VERSION, extensions }.encode(0, &mut out);
                }
                Request::Open { .. } => Reply::Handle(b"h"[..].into()).encode(id, &mut out),
                Request::Read { len, .. } => {
                    Reply::Data(vec![1; len as usize].into()).encode(id, &mut out);
                    // Slower than the watchdog in all, but never still for so long.
                    for step in out.chunks(if fast { 2048 } else { 1 }) {
                        theirs.write_all(step).await.unwrap();
                        pause(step.len()).await;
                    }
                    continue;
                }
                _ => break,
            }
            theirs.write_all(&out).await.unwrap();
        }
        sleep(Duration::from_secs(60)).await;
    });
    ours
}

#[tokio::test]
async fn s02_one_request_may_fail_while_others_go_on() {
    let seen = Arc::new(Mutex::new((None, Vec::new())));
    let state = seen.clone();
    let script = move |id, request: Request<'_>| {
        let mut state = state.lock().unwrap();
        match request {
            Request::Open { path: b"late", .. } => {
                state.0 = Some(id);
                Act::Nothing
            }
            // The late answer, once somebody asks for it, with that one's own.
            Request::Lstat { path: b"now" } => {
                let mut out = BytesMut::new();
                Reply::Handle(b"late"[..].into()).encode(state.0.unwrap(), &mut out);
                Reply::Attrs(Default::default()).encode(id, &mut out);
                Act::Raw(out.to_vec())
            }
            Request::Close { handle } => {
                state.1.push(handle.to_vec());
                status(StatusCode::OK)
            }
            other => honest(&Bytes::new(), other),
        }
    };
    let session = evil::session(quick(60_000, 300), Extensions::default(), script).await;
    let error = soon(open(&session, b"late")).await.unwrap_err();
    assert!(matches!(error, SessionError::Timeout { .. }), "{error}");
    assert!(!error.is_fatal());
    soon(session.lstat(b"now")).await.unwrap();
    // The handle that came too late is closed.
    soon(async {
        while seen.lock().unwrap().1.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(seen.lock().unwrap().1, [b"late".to_vec()]);
    assert!(!session.is_closed());
}

#[tokio::test]
async fn a_handle_that_nobody_waits_for_is_closed() {
    let closed = Arc::new(Mutex::new(0));
    let count = closed.clone();
    let session = evil::scripted(move |_, request| {
        if let Request::Close { handle: b"h" } = request {
            *count.lock().unwrap() += 1;
        }
        honest(&Bytes::new(), request)
    })
    .await;
    for n in 0..20 {
        let mut opening = Box::pin(open(&session, b"f"));
        // Sent, and sometimes answered, but never taken.
        assert!(futures_poll(opening.as_mut()).await.is_none() || n > 0);
        if n % 2 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        drop(opening);
    }
    soon(async {
        while *closed.lock().unwrap() < 20 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(*closed.lock().unwrap(), 20);
    assert!(!session.is_closed());
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn dropped_readers_disturb_nobody() {
    let whole = Bytes::from(content(3_000_000));
    let file = whole.clone();
    let session = evil::scripted(move |_, request| honest(&file, request)).await;
    let handle = open(&session, b"f").await.unwrap();
    for _ in 0..20 {
        let mut reader = handle.read_range(0..3_000_000);
        soon(reader.next()).await.unwrap().unwrap();
        let mut other = handle.read_range(0..3_000_000);
        // Both at a time, neither taken to its end.
        soon(other.next()).await.unwrap().unwrap();
        soon(reader.next()).await.unwrap().unwrap();
    }
    let mut reader = handle.read_range(0..3_000_000);
    let mut sum = 0;
    while let Some(piece) = soon(reader.next()).await {
        sum += piece.unwrap().1.len();
    }
    assert_eq!(sum, whole.len());
}
