//! The program as fcp starts it over ssh: one session over its stdin and stdout.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod early;
mod host;
mod joining;
mod scope;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use fcp_common::engine::Duplex;
use fcp_proto::packet::{Direction, Opening, Options, STDIO_PREAMBLE};
use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag};
use host::*;
use rustix::process::Signal;
use support::*;

#[test]
fn a_session_over_a_socket_is_quiet_and_ends_well() {
    let host = Host::new();
    let mut program = host.start(&[]);
    let reply = program.hello(Hello::ours(1));
    let summary = push(&host, &reply, "there", vec![program.duplex()]).unwrap();
    assert_eq!((summary.failed, summary.received), (0, 5_000_005));
    assert_eq!(program.end(), (Some(0), String::new()));
    host.check_pushed("home/there");
    assert_eq!(fs::read_dir(host.path("run/fcp")).unwrap().count(), 0, "the socket is left over");
}

#[test]
fn a_session_over_pipes_ends_well() {
    let host = Host::new();
    let mut command = host.command(&[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut hello = Vec::new();
    Opening::Hello(Hello::ours(1)).encode(&mut hello).unwrap();
    // At once, as a client does that need not wait for the preamble.
    input.write_all(&hello).unwrap();
    let mut head = [0; 16];
    output.read_exact(&mut head).unwrap();
    assert_eq!(head, STDIO_PREAMBLE);
    let mut peer = Peer { stream: Pipes(output, input) };
    let reply = peer.reply(Flag::ACCEPT);
    let Peer { stream: Pipes(output, input) } = peer;
    let conn = Duplex::fds(output.into(), input.into(), IDLE).unwrap();
    push(&host, &reply, "there", vec![conn]).unwrap();
    assert_eq!(wait(&mut child), (Some(0), String::new()));
    host.check_pushed("home/there");
}

/// A child's stdout and stdin.
struct Pipes(std::process::ChildStdout, std::process::ChildStdin);

impl Read for Pipes {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Pipes {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.1.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.1.flush()
    }
}

#[test]
fn a_terminal_is_refused_in_one_line() {
    let host = Host::new();
    let terminal = || fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    for (stdin, stdout) in
        [(terminal().into(), Stdio::piped()), (Stdio::piped(), terminal().into())]
    {
        let mut child = host.command(&[]).stdin::<Stdio>(stdin).stdout::<Stdio>(stdout).spawn();
        let (code, text) = wait(child.as_mut().unwrap());
        assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("ssh") && text.contains("terminal"), "{text}");
    }
}

#[test]
fn hanging_up_before_the_first_byte_is_no_failure() {
    let host = Host::new();
    assert_eq!(host.start(&[]).end(), (Some(0), String::new()));
    assert_eq!(host.start(&["--attach"]).end(), (Some(0), String::new()));
}

#[test]
fn w24_other_openings_are_refused() {
    let host = Host::new();
    let mut program = host.start(&[]);
    program.peer.send(&opening(Some(Hello::ours(1))));
    assert_eq!(program.peer.expect_error().code, ErrorCode::PROTOCOL);
    assert_eq!(program.end(), (Some(1), String::new()), "the peer was told");

    let mut program = host.start(&["--attach"]);
    let mut hello = Vec::new();
    Opening::Hello(Hello::ours(1)).encode(&mut hello).unwrap();
    program.peer.send(&hello);
    assert_eq!(program.peer.expect_error().code, ErrorCode::PROTOCOL);
    assert_eq!(program.end().0, Some(1));

    let mut program = host.start(&[]);
    program.peer.send(b"GET / HTTP/1.0\r\n");
    let (code, text) = program.end();
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
}

#[test]
fn a26_signals_cancel_the_session_and_leave_nothing() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let host = Host::new();
        let mut program = host.start(&[]);
        program.hello(Hello::ours(1));
        program.peer.send(&request(Direction::Push, "in", Options::default()));
        eventually("the session begins", || host.path("home/in").is_dir());
        program.signal(signal);
        assert_eq!(program.peer.expect_error().code, ErrorCode::CANCELLED);
        assert_eq!(program.end(), (Some(1), String::new()));
        assert_eq!(fs::read_dir(host.path("run/fcp")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(host.path("home/in")).unwrap().count(), 0);
    }
}

#[test]
fn a26_a_signal_within_the_greeting_ends_it() {
    let host = Host::new();
    let mut program = host.start(&[]);
    program.signal(Signal::TERM);
    assert_eq!(wait(&mut program.child), (Some(1), String::new()));
}
