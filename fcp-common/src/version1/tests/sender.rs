//! The sender, with every answer of its peer scripted.

use std::time::Duration;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::v1::{V1Dir, V1File, V1Packet};
use fcp_proto::{ConnId, FileId, RelPath, SourceVersion, Timestamp, Violation, frame};

use crate::version1::{SEND_WINDOW, Sender, Work};

const NOW: Duration = Duration::ZERO;
const A: ConnId = ConnId(0);
const B: ConnId = ConnId(1);

fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// A sender of a directory, an empty file and files of these sizes, over A and B.
fn sender(sizes: &[u64]) -> Sender<u32> {
    let mut s = Sender::new(false, SEND_WINDOW);
    s.handle_conn_opened(A);
    s.handle_conn_opened(B);
    s.handle_dir(|id| V1Dir { id, mode: 0o755, path: rel("d") }, NOW);
    for (n, size) in [0].iter().chain(sizes).enumerate() {
        let draft = |id| V1File {
            id,
            mode: 0o644,
            size: *size,
            mtime: Timestamp::default(),
            md5: [0; 16],
            path: rel(&format!("d/{n}")),
        };
        s.handle_file(n as u32, SourceVersion::default(), draft, NOW);
    }
    s.handle_walked(NOW);
    s
}

fn sent(s: &mut Sender<u32>, conn: ConnId) -> Vec<String> {
    let mut out = Vec::new();
    s.poll_transmit(conn, &mut out);
    let (mut at, mut seen) = (0, Vec::new());
    while let Some((frame, used)) = frame::decode(&out[at..]).unwrap() {
        seen.push(format!("{:?}", V1Packet::decode(frame).unwrap()));
        at += used;
    }
    seen
}

fn ready(s: &mut Sender<u32>, id: u32) -> Result<(), Violation> {
    s.handle_packet(&V1Packet::FileReady(FileId(id)), NOW)
}

fn works(s: &mut Sender<u32>) -> Vec<Work<u32>> {
    std::iter::from_fn(|| s.poll_work()).collect()
}

#[test]
fn announcements_go_over_one_connection_in_order() {
    let mut s = sender(&[5]);
    assert!(sent(&mut s, B).is_empty());
    let seen = sent(&mut s, A);
    for (text, start) in
        seen.iter().zip(["Monofile(false)", "DirInfo", "FileInfo", "FileInfo", "FileCount(3)"])
    {
        assert!(text.starts_with(start), "{text}");
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn nothing_to_send_is_an_exception() {
    let mut s: Sender<u32> = Sender::new(true, SEND_WINDOW);
    s.handle_conn_opened(A);
    s.handle_walked(NOW);
    let seen = sent(&mut s, A);
    assert_eq!(seen[1], "Exception(\"No such file or directory\")");
    s.handle_packet(&V1Packet::Done, NOW).unwrap();
    assert!(s.is_over() && s.summary().is_ok());
}

#[test]
fn content_comes_in_order_and_done_ends_the_session() {
    let size = 300 * V1_CHUNK as u64 + 1;
    let mut s = sender(&[size]);
    ready(&mut s, 2).unwrap();
    let works = works(&mut s);
    let chunks: Vec<_> = works.iter().flat_map(|w| w.run.chunks.clone()).collect();
    assert_eq!(chunks, (0..301).collect::<Vec<_>>());
    assert_eq!(works.iter().map(|w| w.len as u64).sum::<u64>(), size);
    for (n, work) in works.into_iter().enumerate() {
        s.handle_sent([A, B][n % 2], work.run, NOW);
    }
    assert!(s.poll_event().is_some());
    s.handle_packet(&V1Packet::Done, NOW).unwrap();
    let summary = s.summary().unwrap();
    assert!(s.is_over() && (summary.changed, summary.same) == (1, 2));
    assert_eq!(s.unasked().count(), 1);
}

#[test]
fn d05_what_a_lost_connection_carried_is_sent_again() {
    let mut s = sender(&[200 * V1_CHUNK as u64]);
    ready(&mut s, 2).unwrap();
    let (first, second) = (s.poll_work().unwrap(), s.poll_work().unwrap());
    s.handle_sent(A, first.run.clone(), NOW);
    s.handle_unsent(second.run.clone());
    s.handle_conn_lost(A);
    let again: Vec<_> = works(&mut s).into_iter().flat_map(|w| w.run.chunks).collect();
    let mut sorted = again.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..200).collect::<Vec<_>>());
}

#[test]
fn d06_a_file_that_cannot_be_sent_ends_the_session_after_the_others() {
    let mut s = sender(&[5, 5]);
    sent(&mut s, A);
    ready(&mut s, 2).unwrap();
    ready(&mut s, 3).unwrap();
    let (bad, good) = (s.poll_work().unwrap(), s.poll_work().unwrap());
    assert!(s.handle_source_failed(&bad.run, "d/1 vanished", NOW));
    s.handle_sent(A, good.run, NOW);
    s.handle_timeout(Duration::from_secs(1)).unwrap();
    assert!(sent(&mut s, A).is_empty());
    s.handle_timeout(Duration::from_secs(6)).unwrap();
    assert_eq!(sent(&mut s, A), ["Exception(\"cannot send 1 files: d/1 vanished\")"]);
    ready(&mut s, 3).unwrap();
    s.handle_packet(&V1Packet::Done, NOW).unwrap();
    assert!(s.is_over() && s.summary().is_err());
}

#[test]
fn d08_w15_ready_for_what_was_not_announced_is_refused() {
    for id in [0, 1, 3, u32::MAX] {
        assert!(ready(&mut sender(&[5]), id).is_err(), "{id}");
    }
}

#[test]
fn w15_a_flood_of_ready_is_refused() {
    let mut s = sender(&[5]);
    for _ in 0..4 {
        ready(&mut s, 2).unwrap();
    }
    assert!(ready(&mut s, 2).is_err());
    let mut s = Sender::new(false, 2);
    for n in 0..3 {
        let path = rel(&n.to_string());
        let (mode, mtime, md5) = (0, Timestamp::default(), [0; 16]);
        let draft = |id| V1File { id, mode, size: 1, mtime, md5, path };
        s.handle_file(n, SourceVersion::default(), draft, NOW);
    }
    ready(&mut s, 0).unwrap();
    ready(&mut s, 1).unwrap();
    assert!(ready(&mut s, 2).is_err());
}

#[test]
fn done_before_the_content_that_was_asked_for_is_refused() {
    let mut s = sender(&[5]);
    ready(&mut s, 2).unwrap();
    assert!(s.handle_packet(&V1Packet::Done, NOW).is_err());
    let mut early: Sender<u32> = Sender::new(false, SEND_WINDOW);
    assert!(early.handle_packet(&V1Packet::Done, NOW).is_err());
}

#[test]
fn d04_a_silent_peer_ends_the_session() {
    let mut s = sender(&[5]);
    sent(&mut s, A);
    assert!(s.handle_timeout(Duration::from_secs(299)).is_ok());
    assert!(s.handle_timeout(Duration::from_secs(300)).is_err());
}

#[test]
fn nothing_to_send_is_told_even_when_it_is_known_before_the_first_connection() {
    let mut sender: Sender<u8> = Sender::new(false, 8);
    sender.handle_walked(Duration::ZERO);
    assert!(!sender.is_over());
}
