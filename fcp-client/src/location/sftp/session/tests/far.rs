//! How much is on its way to a server that is far.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::super::{DirReader, Handle, RangeReader, RangeWriter, Session};
use super::evil::{Act, honest, packet};
use super::{create, open, soon};
use crate::location::sftp::wire::{Extensions, Reply, Request, VERSION};

const FAR: Duration = Duration::from_millis(30);

/// A server that answers everything 30 ms later, and the most requests that it ever had.
async fn far() -> (Session, Arc<AtomicUsize>) {
    let (ours, theirs) = tokio::io::duplex(8 << 20);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    let (to, mut answers) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now_of_reader, most_of_reader) = (now.clone(), most.clone());
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        let content = Bytes::from(vec![7; 64 << 20]);
        while let Some(packet) = packet(&mut reader, &mut buffer).await {
            let at_a_time = now_of_reader.fetch_add(1, Ordering::Relaxed) + 1;
            most_of_reader.fetch_max(at_a_time, Ordering::Relaxed);
            let (id, request) = Request::decode(&packet).unwrap();
            let extensions = Extensions::default();
            let act = match request {
                Request::Init { .. } => {
                    Act::Answer(Reply::Version { version: VERSION, extensions })
                }
                other => honest(&content, other),
            };
            let Act::Answer(reply) = act else { return };
            let mut out = BytesMut::new();
            reply.encode(id, &mut out);
            to.send((Instant::now() + FAR, out.freeze())).unwrap();
        }
    });
    tokio::spawn(async move {
        while let Some((at, answer)) = answers.recv().await {
            sleep_until(at).await;
            now.fetch_sub(1, Ordering::Relaxed);
            if writer.write_all(&answer).await.is_err() {
                return;
            }
        }
    });
    let (reader, writer) = tokio::io::split(ours);
    (soon(Session::start(reader, writer, Default::default())).await.unwrap(), most)
}

async fn read(handle: &Handle, bytes: u64) {
    let mut reader = handle.read_range(0..bytes);
    while let Some(piece) = soon(reader.next()).await {
        piece.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_grow_to_what_a_far_server_needs() {
    let (session, most) = far().await;
    let file = open(&session, b"f").await.unwrap();
    read(&file, 32 * 1024 * 1000).await;
    let most = most.load(Ordering::Relaxed);
    assert!((48..=65).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_grow_to_what_a_far_server_needs() {
    let (session, most) = far().await;
    let writer = create(&session, b"f").await.unwrap().write_range();
    soon(writer.write_at(0, vec![1; 32 * 1024 * 1000].into())).await.unwrap();
    soon(writer.finish(None, false)).await.unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((48..=65).contains(&most), "{most}");
}

#[tokio::test]
async fn a_cap_holds_for_all_ranges_together() {
    let (session, most) = far().await;
    session.cap_depth(4);
    let file = open(&session, b"f").await.unwrap();
    tokio::join!(read(&file, 1 << 20), read(&file, 1 << 20), read(&file, 1 << 20));
    // One more for each but the first: a reader can always go on.
    let most = most.load(Ordering::Relaxed);
    assert!((4..=6).contains(&most), "{most}");
}

#[tokio::test]
async fn what_follows_the_writes_does_not_wait_for_them() {
    let (session, _) = far().await;
    let writer = create(&session, b"f").await.unwrap().write_range();
    let start = std::time::Instant::now();
    writer.write_at(0, vec![1; 100_000].into()).await.unwrap();
    soon(writer.finish(Some(Default::default()), false)).await.unwrap();
    assert!(start.elapsed() < 2 * FAR, "{:?}", start.elapsed());
}

#[test]
fn everything_may_go_to_another_thread() {
    fn goes<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Session>();
    is_shared::<Handle>();
    is_shared::<RangeWriter>();
    goes::<RangeReader>();
    goes::<DirReader>();
}
