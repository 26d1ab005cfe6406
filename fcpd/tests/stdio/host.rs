//! The program under test, what is on its disk, and the engine's own client side.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
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
use fcp_common::transfer::Config;
use fcp_common::walk::{SourceRoot, WalkOptions};
use fcp_proto::Flag;
use fcp_proto::packet::{
    Direction, Durability, Opening, Options, Reply, Request, STDIO_PREAMBLE, Summary,
};
use fcp_proto::version::Hello;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

pub const IDLE: Duration = Duration::from_secs(20);

/// What a test has on its disk: a home, a place for sockets and files to send.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "run", "here"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("here/small"), "small").unwrap();
        let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(dir.path().join("here/large"), large).unwrap();
        Host { dir }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fcpd"));
        command.arg("--stdio").args(args).env_clear().stderr(Stdio::piped());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    /// The program with one socket for stdin and stdout, as sshd has it.
    pub fn start(&self, args: &[&str]) -> Program {
        Program::start(&mut self.command(args))
    }

    pub fn check_pushed(&self, to: &str) {
        for name in ["small", "large"] {
            let (from, to) = (self.path("here").join(name), self.path(to).join(name));
            assert!(fs::read(from).unwrap() == fs::read(&to).unwrap(), "{}", to.display());
        }
    }
}

/// A program that runs, and the other end of its stdin and stdout.
pub struct Program {
    pub child: Child,
    pub peer: Peer<UnixStream>,
}

impl Program {
    pub fn start(command: &mut Command) -> Program {
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

    pub fn hello(&mut self, hello: Hello) -> Reply {
        let mut out = Vec::new();
        Opening::Hello(hello).encode(&mut out).unwrap();
        self.peer.send(&out);
        self.peer.reply(Flag::ACCEPT)
    }

    /// This end for the engine.
    pub fn duplex(&self) -> Duplex {
        let fd = || self.peer.stream.try_clone().unwrap().into();
        Duplex::fds(fd(), fd(), IDLE).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Hangs up; the exit code and what was printed to stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
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

pub fn wait(child: &mut Child) -> (Option<i32>, String) {
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

pub fn ask(direction: Direction, path: &str) -> Request {
    Request {
        direction,
        options: Options::RECURSIVE.with(Options::PERMS, true).with(Options::TIMES, true),
        durability: Durability::None,
        paths: vec![path.into()],
        rules: Vec::new(),
    }
}

/// Pushes everything in `here` to `to`, over `conns`.
pub fn push(
    host: &Host,
    reply: &Reply,
    to: &str,
    conns: Vec<Duplex>,
) -> Result<Summary, SessionError> {
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
pub fn pull(
    reply: &Reply,
    from: &str,
    to: &Path,
    conns: Vec<Duplex>,
) -> Result<Summary, SessionError> {
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
            root_meta: fcp_common::transfer::RootMetaRule::Take,
        },
        durability: Durability::None,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    receive(options, conns, Inlet::new())
}
