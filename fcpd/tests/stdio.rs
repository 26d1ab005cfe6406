//! The program as fcp starts it over ssh: one session over its stdin and stdout.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fcp_common::engine::{
    Destination, DestinationOptions, Duplex, Inlet, NoReport, ReceiveOptions, RequestBy,
    SendOptions, SessionError, receive, send,
};
use fcp_common::fs::DirPool;
use fcp_common::tls;
use fcp_common::transfer::Config;
use fcp_common::walk::{SourceRoot, WalkOptions};
use fcp_proto::packet::{
    Direction, Durability, Opening, Options, Reply, Request, STDIO_PREAMBLE, Summary,
};
use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag, SessionId};
use rustix::process::{Pid, Signal, kill_process};
use support::*;

const IDLE: Duration = Duration::from_secs(20);

/// What a test has on its disk: a home, a place for sockets and files to send.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "run", "here"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("here/small"), "small").unwrap();
        let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(dir.path().join("here/large"), large).unwrap();
        Host { dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fcpd"));
        command.arg("--stdio").args(args).env_clear().stderr(Stdio::piped());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    /// The program with one socket for stdin and stdout, as sshd has it.
    fn start(&self, args: &[&str]) -> Program {
        Program::start(&mut self.command(args))
    }

    fn check_pushed(&self, to: &str) {
        for name in ["small", "large"] {
            let (from, to) = (self.path("here").join(name), self.path(to).join(name));
            assert!(fs::read(from).unwrap() == fs::read(&to).unwrap(), "{}", to.display());
        }
    }
}

/// A program that runs, and the other end of its stdin and stdout.
struct Program {
    child: Child,
    peer: Peer<UnixStream>,
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(SOON)).unwrap();
        let theirs = OwnedFd::from(theirs);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs);
        let child = command.spawn().unwrap();
        // What was given to the child must not stay open here.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut program = Program { child, peer: Peer { stream: ours } };
        let mut preamble = [0; 16];
        program.peer.stream.read_exact(&mut preamble).unwrap();
        assert_eq!(preamble, STDIO_PREAMBLE);
        program
    }

    fn hello(&mut self, hello: Hello) -> Reply {
        let mut out = Vec::new();
        Opening::Hello(hello).encode(&mut out).unwrap();
        self.peer.send(&out);
        self.peer.reply(Flag::ACCEPT)
    }

    /// This end for the engine.
    fn duplex(&self) -> Duplex {
        let fd = || self.peer.stream.try_clone().unwrap().into();
        Duplex::fds(fd(), fd(), IDLE).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Hangs up; the exit code and what was printed to stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let _ = self.peer.stream.shutdown(std::net::Shutdown::Both);
        wait(&mut self.child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> (Option<i32>, String) {
    let until = Instant::now() + 2 * SOON;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "fcpd does not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.code(), text)
}

fn ask(direction: Direction, path: &str) -> Request {
    Request {
        direction,
        options: Options::RECURSIVE.with(Options::PERMS, true).with(Options::TIMES, true),
        durability: Durability::None,
        paths: vec![path.into()],
        rules: Vec::new(),
    }
}

/// Pushes everything in `here` to `to`, over `conns`.
fn push(host: &Host, reply: &Reply, to: &str, conns: Vec<Duplex>) -> Result<Summary, SessionError> {
    let source = [host.path("here").as_os_str().as_encoded_bytes(), b"/"].concat();
    let options = SendOptions {
        agreed: reply.agreed.clone().unwrap(),
        request: RequestBy::Us(ask(Direction::Push, to)),
        roots: vec![SourceRoot::open(&source, &DirPool::new(8)).unwrap()],
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        problems: Vec::new(),
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    send(options, conns, Inlet::new())
}

/// Pulls `from` into `to`.
fn pull(reply: &Reply, from: &str, to: &Path, conns: Vec<Duplex>) -> Result<Summary, SessionError> {
    let to = to.as_os_str().as_encoded_bytes().to_vec();
    let options = ReceiveOptions {
        agreed: reply.agreed.clone().unwrap(),
        request: RequestBy::Us(ask(Direction::Pull, from)),
        open_now: false,
        destination: Box::new(move |_| Destination::open(&to, DestinationOptions::default())),
        config: Config {
            checksum: false,
            dry_run: false,
            perms: true,
            times: true,
            links: false,
            umask: 0o022,
            one_thing: false,
            report: false,
            admits: None,
        },
        durability: Durability::None,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    receive(options, conns, Inlet::new())
}

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

/// A root with ways out of it, and the program restricted to it.
fn restricted(args: &[&str]) -> (Host, Program) {
    let host = Host::new();
    fs::create_dir_all(host.path("root/sub")).unwrap();
    fs::create_dir(host.path("outside")).unwrap();
    fs::write(host.path("outside/secret"), "secret").unwrap();
    fs::write(host.path("root/sub/file"), "file").unwrap();
    symlink("../outside", host.path("root/up")).unwrap();
    symlink(host.path("outside"), host.path("root/absolute")).unwrap();
    symlink("../outside/secret", host.path("root/file")).unwrap();
    symlink("sub", host.path("root/inside")).unwrap();
    let root = host.path("root");
    let args = [&["--restrict", root.to_str().unwrap()], args].concat();
    let program = host.start(&args);
    (host, program)
}

#[test]
fn p14_a_restricted_push_stays_below_the_root() {
    for (to, really) in [
        ("new", "root/new"),
        ("/new", "root/new"),
        ("~/new", "root/new"),
        ("", "root"),
        ("inside", "root/sub"),
    ] {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        push(&host, &reply, to, vec![program.duplex()]).unwrap();
        assert_eq!(program.end().0, Some(0), "{to}");
        host.check_pushed(really);
    }
    for to in ["..", "../outside", "up", "up/new", "absolute", "file", "sub/../../outside"] {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        let Err(SessionError::Peer(error)) = push(&host, &reply, to, vec![program.duplex()]) else {
            panic!("{to} was not refused");
        };
        assert_eq!(error.code, ErrorCode::PERMISSION, "{to}");
        assert!(error.text.contains(&format!("'{to}'")), "{}", error.text);
        assert_eq!(program.end().0, Some(1));
        assert_eq!(fs::read_dir(host.path("outside")).unwrap().count(), 1, "{to}");
    }
}

#[test]
fn p14_a_restricted_pull_reads_nothing_outside() {
    for (from, name) in [("sub/", "file"), ("/sub/file", "file"), ("i*/*", "file")] {
        let (host, mut program) = restricted(&["--read-only"]);
        let reply = program.hello(Hello::ours(1));
        let to = host.path("home");
        pull(&reply, from, &to, vec![program.duplex()]).unwrap();
        assert_eq!(fs::read(to.join(name)).unwrap(), b"file", "{from}");
    }
    let outside = [
        "up/",
        "up/secret",
        "../outside/secret",
        "absolute/*",
        "*/secret",
        "/proc/self/root/etc/passwd",
    ];
    for from in outside {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        let to = host.path("home");
        // Nothing can be opened, of which the client hears as a problem.
        let _ = pull(&reply, from, &to, vec![program.duplex()]);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "{from}");
    }
}

#[test]
fn a_root_that_is_no_absolute_directory_is_refused() {
    let host = Host::new();
    let file = host.path("here/small");
    for root in ["here", ".", "/no/such/directory", file.to_str().unwrap()] {
        let output = host.command(&["--restrict", root]).stdin(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(root) && output.stdout.is_empty(), "{text}");
    }
}

#[test]
fn reading_only_makes_nothing_not_even_in_a_dry_run() {
    for options in [Options::default(), Options::DRY_RUN, Options::MKPATH] {
        let host = Host::new();
        let mut program = host.start(&["--read-only"]);
        program.hello(Hello::ours(1));
        program.peer.send(&request(Direction::Push, "new/deep", options));
        assert_eq!(program.peer.expect_error().code, ErrorCode::READ_ONLY);
        assert_eq!(program.end(), (Some(1), String::new()));
        assert_eq!(fs::read_dir(host.path("home")).unwrap().count(), 0);
    }
}

fn attach_to(host: &Host, args: &[&str], sid: SessionId) -> Program {
    let mut program = host.start(args);
    program.peer.send(&attach(sid));
    program
}

#[test]
fn further_channels_join_the_session() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(3));
    // A forced command in authorized_keys is the same for every channel.
    let root = host.path("home");
    let others = [
        attach_to(&host, &["--attach"], reply.sid),
        attach_to(&host, &["--restrict", root.to_str().unwrap()], reply.sid),
    ];
    let conns = std::iter::once(&first).chain(&others).map(Program::duplex).collect();
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    for program in others.into_iter().chain([first]) {
        assert_eq!(program.end(), (Some(0), String::new()));
    }
}

#[test]
fn a17_a19_channels_that_may_not_join_leave_the_session_alone() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(2));
    for sid in [SessionId([0; 16]), SessionId([7; 16])] {
        let mut wrong = attach_to(&host, &["--attach"], sid);
        assert_eq!(wrong.peer.frame(), None);
        assert_eq!(wrong.end(), (Some(1), String::new()));
    }
    let second = attach_to(&host, &["--attach"], reply.sid);
    std::thread::sleep(Duration::from_millis(300));
    let mut third = attach_to(&host, &["--attach"], reply.sid);
    assert_eq!(third.peer.frame(), None);
    assert_eq!(third.end().0, Some(1));
    push(&host, &reply, "there", vec![first.duplex(), second.duplex()]).unwrap();
    assert_eq!(first.end().0, Some(0));
    assert_eq!(second.end().0, Some(0));
    let late = attach_to(&host, &["--attach"], reply.sid);
    assert_eq!(late.end().0, Some(1), "the session is over");
}

#[test]
fn the_session_goes_on_when_a_further_channel_is_killed() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(2));
    let mut second = attach_to(&host, &["--attach"], reply.sid);
    std::thread::sleep(Duration::from_millis(200));
    second.signal(Signal::KILL);
    wait(&mut second.child);
    let conns = vec![first.duplex(), second.duplex()];
    // sshd would close the channel.
    second.peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn direct_connections_carry_the_content() {
    let host = Host::new();
    let key = tls::Identity::fresh().unwrap();
    let mut command = host.command(&[]);
    command.env("SSH_CONNECTION", "127.0.0.1 50000 127.0.0.1 22");
    let mut program = Program::start(&mut command);
    let hello = Hello { direct: Some(key.fingerprint()), ..Hello::ours(3) };
    let reply = program.hello(hello);
    let offer = reply.extra.direct.expect("an offer");
    let pin = tls::ServerPin::Exactly(offer.fingerprint);
    let config = tls::client_config(&key, pin).unwrap();
    let mut conns = vec![program.duplex().spare(Duration::from_millis(200))];
    for _ in 0..2 {
        let tcp = std::net::TcpStream::connect(("127.0.0.1", offer.port)).unwrap();
        let (tcp, mut conn) =
            tls::connect(tcp, Arc::clone(&config), Instant::now() + SOON).unwrap();
        conn.writer().write_all(&attach(reply.sid)).unwrap();
        conns.push(Duplex::tls(tcp, conn, IDLE).unwrap());
    }
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    assert_eq!(program.end(), (Some(0), String::new()));
    assert!(std::net::TcpStream::connect(("127.0.0.1", offer.port)).is_err());
}

#[test]
fn a_direct_port_is_offered_only_if_all_want_it() {
    let host = Host::new();
    let key = tls::Identity::fresh().unwrap().fingerprint();
    let local = "127.0.0.1 50000 127.0.0.1 22";
    for (args, connection, direct, offered) in [
        (&[][..], Some(local), Some(key), true),
        (&["--no-direct"], Some(local), Some(key), false),
        (&[], Some(local), None, false),
        (&[], None, Some(key), false),
        (&[], Some("127.0.0.1 1 192.0.2.1 22"), Some(key), false),
        (&[], Some("; rm -rf /"), Some(key), false),
    ] {
        let mut command = host.command(args);
        if let Some(connection) = connection {
            command.env("SSH_CONNECTION", connection);
        }
        let mut program = Program::start(&mut command);
        let reply = program.hello(Hello { direct, ..Hello::ours(2) });
        assert_eq!(reply.extra.direct.is_some(), offered, "{args:?} {connection:?}");
        // Without direct connections ssh carries the data, offered or not.
        push(&host, &reply, "there", vec![program.duplex()]).unwrap();
        assert_eq!(program.end(), (Some(0), String::new()));
    }
}
