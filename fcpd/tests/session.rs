//! Sessions of version 2, spoken by hand over raw sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::MetadataExt;

use fcp_proto::packet::{Direction, Message, Options};
use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag, SessionId, frame};
use support::push::*;
use support::*;

#[test]
fn a_small_file_is_pushed_by_hand() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
    let path = home.path().join("in/greeting");
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
    assert_eq!((meta.mode() & 0o777, meta.mtime(), meta.mtime_nsec()), (0o640, 1_000_000_000, 7));
}

#[test]
fn w24_bytes_one_at_a_time_and_all_at_once_are_the_same() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut slow = daemon.connect();
    opening(Some(Hello::ours(1))).iter().for_each(|b| slow.send(&[*b]));
    assert_eq!(slow.frame().unwrap().0, Flag::SID);
    push_frames("slow").iter().for_each(|b| slow.send(&[*b]));
    finish_push(&mut slow);
    let mut fast = daemon.connect();
    // Before SID is there: what follows REQUEST must reach the engine.
    fast.send(&[opening(Some(Hello::ours(1))), push_frames("fast")].concat());
    assert_eq!(fast.frame().unwrap().0, Flag::SID);
    finish_push(&mut fast);
    for place in ["slow", "fast"] {
        assert_eq!(std::fs::read(home.path().join(place).join("greeting")).unwrap(), CONTENT);
    }
}

#[test]
fn a_request_may_come_in_parts() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    let whole = request(Direction::Push, "in", Options::default());
    let payload = &whole[frame::HEAD_LEN..];
    let mut out = Vec::new();
    frame::encode(Flag::KEEPALIVE, &[], &mut out);
    frame::encode(Flag::PART, &payload[..3], &mut out);
    frame::encode(Flag::PART, &payload[3..9], &mut out);
    frame::encode(Flag::REQUEST, &payload[9..], &mut out);
    peer.send(&[out, numbered(1, &entry(b"greeting"))].concat());
    finish_push(&mut peer);
}

#[test]
fn a_request_longer_than_a_message_may_be_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    let mut part = Vec::new();
    frame::encode(Flag::PART, &[0; 60_000], &mut part);
    // The server may close before the last one is out.
    let sent = (0..20).try_for_each(|_| std::io::Write::write_all(&mut peer.stream, &part));
    drop(sent);
    assert_eq!(peer.expect_error().code, ErrorCode::PROTOCOL);
}

#[test]
fn a_destination_that_cannot_be_is_an_error_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let daemon = Daemon::start(home.path());
    for (path, code) in
        [("no\n/such/dir", ErrorCode::NOT_FOUND), ("file", ErrorCode::NOT_DIRECTORY)]
    {
        let mut peer = daemon.connect();
        peer.greet();
        peer.send(&request(Direction::Push, path, Options::default()));
        let error = peer.expect_error();
        assert_eq!(error.code, code, "{}", error.text);
        assert!(error.text.contains(&fcp_proto::escape(path.as_bytes())), "{}", error.text);
        assert_eq!(peer.frame(), None);
    }
}

#[test]
fn a_pull_of_nothing_reports_it_and_ends_well() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    peer.send(&request(Direction::Pull, "gone", Options::RECURSIVE));
    let Message::Problem(problem) = peer.expect() else { panic!("PROBLEM expected") };
    assert_eq!((problem.path, problem.error.code), (b"gone".to_vec(), ErrorCode::NOT_FOUND));
    assert!(matches!(peer.expect(), Message::Finish(_)));
}

#[test]
fn a_pull_announces_what_the_pattern_matches() {
    let home = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.txt", "c.md"] {
        std::fs::write(home.path().join(name), CONTENT).unwrap();
    }
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    peer.send(&request(Direction::Pull, "*.txt", Options::default()));
    let mut names = Vec::new();
    loop {
        match peer.expect() {
            Message::Entries(all) => names.extend(all.into_iter().map(|e| e.name.to_string())),
            Message::Finish(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["a.txt", "b.txt"]);
}

#[test]
fn a14_what_the_json_says_about_the_user_decides_nothing() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    // `greet` says that it is root.
    peer.greet();
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
    let uid = std::fs::metadata(home.path().join("in/greeting")).unwrap().uid();
    assert_eq!(uid, rustix::process::geteuid().as_raw());
}

#[test]
fn a17_attach_to_no_session_is_closed_without_an_answer() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut first = daemon.connect();
    let (sid, _) = first.greet();
    let mut wrong = sid;
    wrong.0[15] ^= 1;
    let mut odd = Vec::new();
    frame::encode(Flag::ATTACH, &sid.0[..15], &mut odd);
    let mut long = Vec::new();
    frame::encode(Flag::ATTACH, &[&sid.0[..], &[0]].concat(), &mut long);
    for bytes in [attach(wrong), attach(SessionId([0; 16])), odd, long] {
        let mut peer = daemon.connect();
        peer.send(&bytes);
        peer.expect_silent_close(SOON);
    }
    drop(first);
    eventually("the id dies with the session", || is_refused(&daemon, sid));
}

#[test]
fn a20_guessed_ids_open_nothing_and_cost_little() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut first = daemon.connect();
    let (sid, _) = first.greet();
    let mut guess = u128::from_be_bytes(sid.0);
    for _ in 0..5_000 {
        // A full period of 2^128, which does not come back to where it began here.
        guess = guess.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        let mut peer = daemon.connect();
        peer.send(&attach(SessionId(guess.to_be_bytes())));
        peer.expect_silent_close(SOON);
    }
    first.send(&push_frames("in"));
    finish_push(&mut first);
}

#[test]
fn a19_no_more_connections_than_were_agreed_on() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut first = daemon.connect();
    first.send(&opening(Some(Hello::ours(3))));
    let (_, payload) = first.frame().unwrap();
    let sid = SessionId(payload[..16].try_into().unwrap());
    first.send(&push_frames("in"));
    let join = || {
        let mut peer = daemon.connect();
        peer.send(&attach(sid));
        peer
    };
    let others = [join(), join()];
    join().expect_silent_close(SOON);
    finish_push(&mut first);
    // The client hangs up, and with that the session is over.
    drop((first, others));
    eventually("the id dies with the session", || is_refused(&daemon, sid));
}

/// Whether ATTACH to `sid` is answered by nothing but the end of the connection.
fn is_refused(daemon: &Daemon, sid: SessionId) -> bool {
    let mut peer = daemon.connect();
    peer.send(&attach(sid));
    peer.stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    std::io::Read::read(&mut peer.stream, &mut [0]).is_ok_and(|n| n == 0)
}

#[test]
fn a19_a_second_attach_on_one_connection_ends_the_session() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut first = daemon.connect();
    let (sid, _) = first.greet();
    first.send(&push_frames("in"));
    assert!(matches!(first.expect(), Message::Want(_)));
    let mut second = daemon.connect();
    second.send(&[attach(sid), attach(sid)].concat());
    assert_eq!(first.expect_error().code, ErrorCode::PROTOCOL);
}

#[test]
fn hello_and_versions_to_come_are_refused_with_a_reason() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    let mut hello = Vec::new();
    frame::encode(Flag::HELLO, &to_vec(&Hello::ours(1)), &mut hello);
    peer.send(&hello);
    assert_eq!(peer.expect_error().code, ErrorCode::PROTOCOL);
    let mut peer = daemon.connect();
    let future = Hello { min_version: 900, max_version: 901, ..Hello::ours(1) };
    peer.send(&opening(Some(future)));
    assert_eq!(peer.expect_error().code, ErrorCode::VERSION);
}

#[test]
fn w28_a_session_too_many_is_told_so_and_abandoned_ones_make_room() {
    let home = tempfile::tempdir().unwrap();
    let limits = fcpd::config::Limits { sessions_per_uid: 2, ..Default::default() };
    let daemon = Daemon::with_limits(home.path(), limits);
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut peer = daemon.connect();
            peer.greet();
            peer
        })
        .collect();
    let mut third = daemon.connect();
    third.send(&opening(Some(Hello::ours(1))));
    assert_eq!(third.expect_error().code, ErrorCode::LIMIT);
    drop(held);
    eventually("abandoned sessions make room", || {
        let mut peer = daemon.connect();
        peer.send(&opening(Some(Hello::ours(1))));
        peer.frame().is_some_and(|(flag, _)| flag == Flag::SID)
    });
}

#[test]
fn a_drain_lets_the_running_session_finish() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut peer = daemon.connect();
    peer.greet();
    peer.send(&push_frames("in"));
    eventually("the session begins", || home.path().join("in").is_dir());
    daemon.shutdown.drain();
    eventually("the port is closed", || std::net::TcpStream::connect(daemon.addr).is_err());
    finish_push(&mut peer);
    drop(peer);
    eventually("the server ends", || daemon.is_over());
    assert_eq!(std::fs::read(home.path().join("in/greeting")).unwrap(), CONTENT);
}

#[test]
fn ipv6_is_served_where_the_host_has_it() {
    let home = tempfile::tempdir().unwrap();
    let Ok(listener) = fcpd::server::bind("[::1]:0".parse().unwrap()) else {
        eprintln!("skipped: this host has no ::1");
        return;
    };
    let daemon = Daemon::on(listener, home.path(), Default::default());
    let mut peer = daemon.connect();
    peer.greet();
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
}
