//! What peers that are slow, foreign or many can do: nothing to the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag};
use fcpd::config::Limits;
use support::*;

fn impatient() -> Limits {
    let short = Duration::from_millis(300);
    Limits { first_frame: short, request: short, ..Limits::default() }
}

#[test]
fn a24_other_protocols_are_closed_on_their_first_byte() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    for first in (0..=255u8).filter(|b| ![1, 2, 4, 0x10].contains(b)) {
        let mut peer = daemon.connect();
        peer.send(&[first]);
        peer.expect_silent_close(Duration::from_secs(2));
    }
}

#[test]
fn w01_a_first_frame_that_stops_is_closed_at_the_deadline() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_limits(home.path(), impatient());
    let frame = opening(Some(Hello::ours(1)));
    for cut in [0, 1, 2, 3, 4, 5, 6, 7, 20, frame.len() - 1] {
        let mut silent = daemon.connect();
        silent.send(&frame[..cut]);
        let mut ended = daemon.connect();
        ended.send(&frame[..cut]);
        ended.stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Who has hung up before we came to it cannot be identified, and is told so.
        assert!(matches!(ended.frame(), None | Some((Flag::ERROR, _))));
        silent.expect_silent_close(Duration::from_secs(2));
    }
}

#[test]
fn w01_the_deadline_is_for_the_whole_frame() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_limits(home.path(), impatient());
    let mut peer = daemon.connect();
    let start = Instant::now();
    // A byte each 50 ms is never silent for long.
    for byte in opening(Some(Hello::ours(1))) {
        if peer.stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn w03_a_first_frame_with_a_wrong_checksum_is_closed() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut frame = opening(Some(Hello::ours(1)));
    frame[3] ^= 1;
    let mut peer = daemon.connect();
    peer.send(&frame);
    peer.expect_silent_close(SOON);
}

#[test]
fn w33_a_peer_that_stops_after_sid_is_told_and_closed() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_limits(home.path(), impatient());
    let mut peer = daemon.connect();
    peer.greet();
    assert_eq!(peer.expect_error().code, ErrorCode::TIMEOUT);
    assert_eq!(peer.frame(), None);
}

#[test]
fn w26_an_honest_client_is_served_within_a_second_among_300_slow_ones() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let frame = opening(Some(Hello::ours(1)));
    let slow: Vec<_> = (0..300)
        .map(|_| {
            let mut peer = daemon.connect();
            peer.send(&frame[..1]);
            peer
        })
        .collect();
    let start = Instant::now();
    daemon.connect().greet();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // The oldest gave way, the last one to the honest client.
    let open = |peer: &Peer| {
        peer.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        (&peer.stream).read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert_eq!(slow.iter().filter(|peer| open(peer)).count(), 63);
    assert!(open(&slow[299]) && !open(&slow[0]));
}

#[test]
fn w27_a_flood_of_connections_leaves_the_server_well() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    for _ in 0..3000 {
        drop(daemon.connect());
    }
    let start = Instant::now();
    daemon.connect().greet();
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a26_sigterm_during_a_handshake_closes_its_socket() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let mut waiting = daemon.connect();
    waiting.send(&opening(Some(Hello::ours(1)))[..9]);
    let mut greeted = daemon.connect();
    greeted.greet();
    daemon.shutdown.drain();
    waiting.expect_silent_close(SOON);
    assert_eq!(greeted.expect_error().code, ErrorCode::CANCELLED);
    eventually("the server ends", || daemon.is_over());
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

/// Connects as another user, sends a greeting and prints what comes back.
const STRANGER: &str = "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.settimeout(5)
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
except OSError:
    pass
out = b''
try:
    while True:
        more = s.recv(4096)
        if not more: break
        out += more
except ConnectionResetError:
    pass
print(out.hex())
";

#[test]
fn a05_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let hex: String = opening(Some(Hello::ours(1))).iter().map(|b| format!("{b:02x}")).collect();
    let (port, python) = (daemon.addr.port().to_string(), "/usr/bin/python3");
    let python = if std::path::Path::new(python).exists() { python } else { "python3" };
    let ran = Command::new("setpriv")
        .args(["--reuid=65533", "--regid=65533", "--clear-groups", python, "-c", STRANGER])
        .args([&port, &hex])
        .output();
    let output = match ran {
        Ok(output) if output.status.success() => output,
        other => {
            eprintln!("skipped: setpriv or python3 cannot be used here: {other:?}");
            return;
        }
    };
    let answer = String::from_utf8(output.stdout).unwrap();
    // ERROR with REFUSED; never SID.
    assert!(answer.starts_with(&format!("{:02x}", Flag::ERROR.0)), "{answer}");
    assert_eq!(answer.get(14..18), Some("0003"), "{answer}");
}
