//! The receiver, with its peer and its disk scripted.

use std::time::Duration;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::packet::{Outcome, WireError};
use fcp_proto::v1::{V1Dir, V1File, V1Packet};
use fcp_proto::{ErrorCode, FileId, RelPath, Timestamp, Violation, frame};

use crate::version1::{Action, Admission, Admit, ReceiveConfig, Receiver};

const NOW: Duration = Duration::ZERO;
const SIZE: u64 = 2 * V1_CHUNK as u64 + 10;

fn config() -> ReceiveConfig {
    ReceiveConfig { may_be_single: true, admit: None, window: 8 }
}

fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn file(id: u32, size: u64) -> V1Packet<'static> {
    let path = rel(&format!("f{id}"));
    let (id, mtime) = (FileId(id), Timestamp::default());
    V1Packet::FileInfo(V1File { id, mode: 0o104_755, size, mtime, md5: [0; 16], path })
}

fn dir(id: u32) -> V1Packet<'static> {
    let path = rel(&format!("d{id}"));
    V1Packet::DirInfo(V1Dir { id: FileId(id), mode: 0o41_777, path })
}

fn give(r: &mut Receiver, packets: &[V1Packet<'_>]) -> Result<(), Violation> {
    packets.iter().try_for_each(|p| r.handle_packet(p.clone(), NOW))
}

/// A receiver with its root open and two connections.
fn receiver() -> Receiver {
    let mut r = Receiver::new(config());
    r.handle_conn_opened();
    r.handle_conn_opened();
    give(&mut r, &[V1Packet::Monofile(false)]).unwrap();
    assert_eq!(r.poll_action(), Some(Action::OpenRoot { single: false }));
    r.handle_rooted(NOW);
    r
}

/// As [`receiver`], with file 0 of three chunks asked for.
fn asked() -> Receiver {
    let mut r = receiver();
    give(&mut r, &[file(0, SIZE), V1Packet::FileCount(1)]).unwrap();
    assert!(matches!(r.poll_action(), Some(Action::Begin(_))));
    r.handle_begun(FileId(0), Ok(None), NOW);
    assert_eq!(sent(&mut r), ["FileReady(FileId(0))"]);
    r
}

fn sent(r: &mut Receiver) -> Vec<String> {
    let mut out = Vec::new();
    r.poll_transmit(&mut out);
    let (mut at, mut seen) = (0, Vec::new());
    while let Some((frame, used)) = frame::decode(&out[at..]).unwrap() {
        seen.push(format!("{:?}", V1Packet::decode(frame).unwrap()));
        at += used;
    }
    seen
}

fn len_of(seq: u32) -> usize {
    (SIZE as usize - seq as usize * V1_CHUNK).min(V1_CHUNK)
}

fn chunk(r: &mut Receiver, seq: u32) -> Result<bool, Violation> {
    let written = r.handle_chunk(FileId(0), seq, len_of(seq), NOW)?;
    if written {
        r.handle_written(FileId(0), 1, Ok(()), NOW);
    }
    Ok(written)
}

fn chunks(r: &mut Receiver) {
    for seq in [2, 0, 1] {
        assert!(chunk(r, seq).unwrap());
    }
    assert_eq!(r.poll_action(), Some(Action::Verify(FileId(0))));
}

fn end(r: &mut Receiver) {
    assert_eq!(r.poll_action(), Some(Action::Finish));
    r.handle_finished();
    // Failures are told before DONE, which alone would say that everything is there.
    let told = sent(r);
    assert_eq!(told.last().map(String::as_str), Some("Done"));
    assert_eq!(told.len() > 1, r.summary().failed > 0, "{told:?}");
    assert!(r.is_over());
}

#[test]
fn a_file_is_asked_for_written_checked_and_done() {
    let mut r = asked();
    chunks(&mut r);
    r.handle_verified(FileId(0), Ok(Some(Outcome::Created)), NOW);
    end(&mut r);
    assert_eq!((r.summary().changed, r.summary().received), (1, SIZE));
}

#[test]
fn what_overtakes_monofile_is_kept() {
    let mut r = Receiver::new(config());
    give(&mut r, &[dir(1), file(0, 0), V1Packet::FileCount(2)]).unwrap();
    assert_eq!(r.poll_action(), None);
    give(&mut r, &[V1Packet::Monofile(false)]).unwrap();
    assert_eq!(r.poll_action(), Some(Action::OpenRoot { single: false }));
    r.handle_rooted(NOW);
    assert!(matches!(r.poll_action(), Some(Action::MakeDir { mode: 0o777, .. })));
    r.handle_dir_made(rel("d1"), Ok(Outcome::Created), NOW);
    assert!(matches!(r.poll_action(), Some(Action::Begin(_))));
    r.handle_begun(FileId(0), Ok(Some(Outcome::Same)), NOW);
    end(&mut r);
}

#[test]
fn only_a_window_of_files_is_under_way() {
    let mut r = receiver();
    for id in 0..20 {
        give(&mut r, &[file(id, 10)]).unwrap();
        r.handle_begun(FileId(id), Ok(None), NOW);
    }
    assert_eq!(sent(&mut r).len(), 8);
    assert!(r.handle_chunk(FileId(3), 0, 10, NOW).unwrap());
    r.handle_written(FileId(3), 1, Ok(()), NOW);
    r.handle_verified(FileId(3), Ok(Some(Outcome::Created)), NOW);
    assert_eq!(sent(&mut r), ["FileReady(FileId(8))"]);
}

#[test]
fn d03_w14_a_file_that_never_matches_is_asked_for_four_times_and_fails() {
    let mut r = asked();
    for again in [true, true, true, false] {
        chunks(&mut r);
        r.handle_verified(FileId(0), Ok(None), NOW);
        assert_eq!(sent(&mut r).len(), usize::from(again));
    }
    assert_eq!(r.poll_action(), Some(Action::Discard(FileId(0))));
    end(&mut r);
    assert_eq!(r.summary().failed, 1);
}

#[test]
fn d04_a_silent_sender_ends_the_session() {
    let mut r = receiver();
    assert!(r.handle_timeout(Duration::from_secs(59)).is_ok());
    assert!(r.handle_timeout(Duration::from_secs(60)).is_err());
    let mut r = asked();
    assert!(r.handle_timeout(Duration::from_secs(299)).is_ok());
    assert!(r.handle_timeout(Duration::from_secs(300)).is_err());
}

#[test]
fn d05_what_a_lost_connection_carried_is_asked_for_again_three_times() {
    let mut r = asked();
    assert!(chunk(&mut r, 0).unwrap());
    r.handle_timeout(Duration::from_secs(10)).unwrap();
    assert!(sent(&mut r).is_empty(), "nothing is lost without a lost connection");
    for n in 1..=3u64 {
        r.handle_conn_lost();
        r.handle_conn_opened();
        r.handle_timeout(Duration::from_secs(10 * n + 10)).unwrap();
        assert_eq!(sent(&mut r), ["FileReady(FileId(0))"]);
        r.handle_timeout(Duration::from_secs(10 * n + 19)).unwrap();
        assert!(sent(&mut r).is_empty());
    }
    assert!(!chunk(&mut r, 0).unwrap(), "what is there already is dropped");
    r.handle_conn_lost();
    r.handle_timeout(Duration::from_secs(100)).unwrap();
    assert_eq!(r.poll_action(), Some(Action::Discard(FileId(0))));
    end(&mut r);
}

#[test]
fn d09_a_huge_size_costs_nothing() {
    let mut r = receiver();
    give(&mut r, &[file(0, 1 << 44)]).unwrap();
    r.handle_begun(FileId(0), Ok(None), NOW);
    assert!(r.handle_chunk(FileId(0), u32::MAX, V1_CHUNK, NOW).unwrap());
}

#[test]
fn d11_w12_w13_chunks_of_a_wrong_length_or_place_are_refused() {
    for (seq, len) in [(0, 10), (0, V1_CHUNK + 1), (2, V1_CHUNK), (2, 9), (3, 1), (u32::MAX, 1)] {
        assert!(asked().handle_chunk(FileId(0), seq, len, NOW).is_err(), "{seq} {len}");
    }
    let mut r = asked();
    assert!(chunk(&mut r, 1).unwrap());
    assert!(!chunk(&mut r, 1).unwrap(), "a second one is dropped");
}

#[test]
fn d12_only_permission_bits_of_a_mode_count() {
    let mut r = receiver();
    give(&mut r, &[file(0, 1)]).unwrap();
    assert!(matches!(r.poll_action(), Some(Action::Begin(file)) if file.mode == 0o755));
}

#[test]
fn d16_monofile_does_not_decide_alone() {
    let single = V1Packet::Monofile(true);
    let mut r = Receiver::new(ReceiveConfig { may_be_single: false, ..config() });
    assert!(give(&mut r, std::slice::from_ref(&single)).is_err());
    let below = V1Packet::FileInfo(V1File {
        id: FileId(0),
        mode: 0,
        size: 0,
        mtime: Timestamp::default(),
        md5: [0; 16],
        path: rel("a/b"),
    });
    for after in [vec![dir(0)], vec![file(0, 1), file(1, 1)], vec![below]] {
        let mut r = Receiver::new(config());
        give(&mut r, std::slice::from_ref(&single)).unwrap();
        assert!(give(&mut r, &after).is_err(), "{after:?}");
        let mut r = Receiver::new(config());
        give(&mut r, &after).unwrap();
        assert!(give(&mut r, std::slice::from_ref(&single)).is_err(), "{after:?}");
    }
}

#[test]
fn p11_unasked_paths_are_refused() {
    let admit: Admit = Box::new(|path, _, _| match path.as_bytes() {
        b"f0" => Admission::Take,
        _ => Admission::Refuse,
    });
    let mut r = Receiver::new(ReceiveConfig { admit: Some(admit), ..config() });
    assert!(give(&mut r, &[file(0, 1)]).is_ok());
    assert!(give(&mut r, &[file(1, 1)]).is_err());
}

#[test]
fn what_rules_leave_out_is_neither_asked_for_nor_missed() {
    let admit: Admit = Box::new(|_, _, _| Admission::Skip);
    let mut r = Receiver::new(ReceiveConfig { admit: Some(admit), ..config() });
    give(&mut r, &[V1Packet::Monofile(false), dir(0), file(1, 1)]).unwrap();
    assert!(matches!(r.poll_action(), Some(Action::OpenRoot { .. })));
    r.handle_rooted(NOW);
    give(&mut r, &[file(2, 1), V1Packet::FileCount(3)]).unwrap();
    assert_eq!(r.poll_action(), Some(Action::Finish));
}

#[test]
fn w09_numbers_are_used_once_and_without_large_gaps() {
    for (first, second) in
        [(file(0, 1), file(0, 1)), (file(0, 1), dir(0)), (dir(0), file(u32::MAX, 1))]
    {
        let mut r = receiver();
        give(&mut r, &[first]).unwrap();
        assert!(give(&mut r, &[second]).is_err());
    }
}

#[test]
fn w10_a_count_comes_once_and_holds() {
    let count = V1Packet::FileCount;
    assert!(give(&mut receiver(), &[count(2), count(2)]).is_err());
    assert!(give(&mut receiver(), &[dir(0), dir(1), count(1)]).is_err());
    assert!(give(&mut receiver(), &[count(1), dir(1)]).is_err());
    assert!(give(&mut Receiver::new(config()), &[count(1), count(1)]).is_err());
    for n in [2, u32::MAX] {
        let mut r = receiver();
        give(&mut r, &[count(n), dir(0)]).unwrap();
        r.handle_dir_made(rel("d0"), Ok(Outcome::Created), NOW);
        assert!(r.handle_timeout(Duration::from_secs(300)).is_err(), "{n} is never filled");
    }
    let mut r = receiver();
    give(&mut r, &[count(0)]).unwrap();
    end(&mut r);
}

#[test]
fn w11_chunks_of_what_was_not_asked_for_are_refused() {
    let mut r = receiver();
    give(&mut r, &[dir(0), file(1, 1)]).unwrap();
    for id in [0, 1, 2, u32::MAX] {
        assert!(r.handle_chunk(FileId(id), 0, 1, NOW).is_err(), "{id}");
    }
    let mut early = Receiver::new(config());
    give(&mut early, &[file(0, 1)]).unwrap();
    assert!(early.handle_chunk(FileId(0), 0, 1, NOW).is_err());
}

#[test]
fn w11_chunks_of_a_file_that_failed_come_late_and_are_dropped() {
    let mut r = asked();
    assert!(r.handle_chunk(FileId(0), 0, V1_CHUNK, NOW).unwrap());
    let full = WireError::new(ErrorCode::NO_SPACE, "full");
    r.handle_written(FileId(0), 1, Err(full), NOW);
    assert!(!chunk(&mut r, 1).unwrap());
    assert_eq!(r.poll_action(), Some(Action::Discard(FileId(0))));
    end(&mut r);
}

#[test]
fn an_exception_fails_what_is_unfinished_and_ends_with_done() {
    let mut r = asked();
    give(&mut r, &[V1Packet::Exception("gone".into())]).unwrap();
    assert_eq!(r.exception(), Some("gone"));
    assert_eq!(r.poll_action(), Some(Action::Discard(FileId(0))));
    end(&mut r);
}
