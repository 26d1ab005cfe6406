//! Runs programs with a time limit, and `fcpd` for as long as a test needs it.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long a server may take until it accepts.
const START_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);
/// Another process may take a free port before the server binds it.
const START_ATTEMPTS: u32 = 3;

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its status; after a timeout that of the kill.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Whether it was killed because the time was over.
    pub timed_out: bool,
}

impl Finished {
    /// Stdout as text; bytes that are not UTF-8 are replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text; bytes that are not UTF-8 are replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code; none after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Panics with all it said, unless it ended with this code in time.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        let asked = !self.timed_out && self.code() == Some(code);
        assert!(asked, "wanted exit code {code}, got {}{}", self.status, self.told());
        self
    }

    /// Panics with all it said, unless it succeeded in time.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        self.assert_code(0)
    }

    fn told(&self) -> String {
        let late = if self.timed_out { " (timed out)" } else { "" };
        format!("{late}\n--- stdout\n{}\n--- stderr\n{}", self.stdout_text(), self.stderr_text())
    }
}

/// Runs a program with empty stdin and captures what it says. Past the limit it is killed together
/// with all it started, so that a hanging test ends.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    start(command).finish(limit)
}

/// Starts a program as [`run`] does, to be finished or killed later.
pub fn start(command: &mut Command) -> Running {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    Running { child, stdout: Some(stdout), stderr: Some(stderr) }
}

/// A program under way; killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as a crash; then [`Running::finish`] tells what it had said.
    pub fn kill9(&mut self) {
        kill9(self.child.id());
    }

    /// Another signal, such as SIGINT or SIGSTOP.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid_of(self.child.id()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if !timed_out && Instant::now() > deadline {
                timed_out = true;
                self.kill_group();
            }
            thread::sleep(POLL);
        };
        let text =
            |reader: Option<JoinHandle<Vec<u8>>>| reader.map_or(vec![], |r| r.join().unwrap());
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        Finished { status, stdout, stderr, timed_out }
    }

    /// The group is its own: `start` made it.
    fn kill_group(&self) {
        let _ = kill_process_group(pid_of(self.child.id()), Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once waited for, the number may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}

/// SIGKILL to one process, which must be a child that nobody has waited for yet.
pub fn kill9(pid: u32) {
    kill_process(pid_of(pid), Signal::KILL).unwrap();
}

/// SIGKILL to a process that may be gone already.
pub fn kill9_any(pid: u32) {
    let _ = kill_process(pid_of(pid), Signal::KILL);
}

/// A port on loopback that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A server on a loopback port; killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
    _dir: TempDir,
}

impl Daemon {
    /// Starts this `fcpd` with `--listen 127.0.0.1:<a free port>` and waits until it accepts.
    pub fn start(fcpd: &Path) -> Self {
        Self::start_with(|port| {
            let mut command = Command::new(fcpd);
            command.arg("--listen").arg(format!("127.0.0.1:{port}"));
            command
        })
    }

    /// Starts any server; `command` is told the port and may add arguments and environment.
    pub fn start_with(command: impl Fn(u16) -> Command) -> Self {
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut command = command(port);
            let name = command.get_program().display().to_string();
            let mut daemon = Self::spawn(&mut command, port);
            if daemon.wait_until_it_accepts() {
                return daemon;
            }
            eprintln!("{name} did not listen on {port}: {}", daemon.log());
        }
        panic!("the server does not start");
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `fcp://127.0.0.1:<port><path>`; the path must be absolute and need no percent-encoding.
    pub fn url(&self, path: &Path) -> String {
        format!("fcp://127.0.0.1:{}{}", self.port, path.display())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, as a crash, and waits until it is gone.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its status if it ends within the limit.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        if self.is_alive() {
            kill_process(pid_of(self.child.id()), Signal::TERM).unwrap();
        }
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.child.try_wait().unwrap()
    }

    fn spawn(command: &mut Command, port: u16) -> Self {
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("log");
        let out = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        Self { child, port, log, _dir: dir }
    }

    fn wait_until_it_accepts(&mut self) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        while self.is_alive() && Instant::now() < deadline {
            if TcpStream::connect(self.address()).is_ok() {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the server on port {}\n{}", self.port, self.log());
        }
        self.kill9();
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a child's pid is positive")
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
