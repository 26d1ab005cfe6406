//! The program itself: its arguments, the background, the log, signals.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fcp_proto::packet::{Direction, Options};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::*;

/// The program with nothing of our environment.
fn fcpd(home: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fcpd"));
    command.env_clear().stdin(Stdio::null());
    if let Some(home) = home {
        command.env("HOME", home);
    }
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A process in the foreground that listens.
struct Foreground {
    child: Child,
    addr: SocketAddr,
}

impl Foreground {
    fn start(command: &mut Command) -> Foreground {
        let mut child =
            command.args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("fcpd: listening on ").expect(&line).parse().unwrap();
        // Keeps the pipe open, so that later lines do not fail.
        std::thread::spawn(move || stderr.lines().for_each(drop));
        Foreground { child, addr }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + 3 * SOON;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("fcpd does not end");
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends the process in the background whatever the test comes to.
struct Background(Pid);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

fn is_running(pid: Pid) -> bool {
    // What has ended but was not waited for, as nobody adopts orphans in a container, is over.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_ok() && !stat.is_ok_and(|s| s.contains(") Z "))
}

#[test]
fn a_mistake_is_one_line_and_exit_code_1() {
    for args in [&["--nonsense"][..], &["-c", "0"], &["--listen", "nowhere"], &["extra"]] {
        let output = run(fcpd(None).args(args));
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("fcpd --help"), "{text}");
    }
}

#[test]
fn an_address_that_others_reach_is_refused_in_one_line() {
    for args in [&["--listen", "0.0.0.0:0"][..], &["-d", "--listen", "0.0.0.0:0"]] {
        let output = run(fcpd(None).args(args));
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("loopback") && text.contains("ssh"), "{text}");
    }
}

#[test]
fn a_port_that_is_taken_is_refused_in_foreground_and_background() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for background in [&[][..], &["-d"]] {
        let output = run(fcpd(Some(home.path())).args(background).args(["--listen", &addr]));
        let text = stderr(&output);
        let wanted = format!("fcpd: {addr} is already in use: another fcpd, or choose --listen\n");
        assert_eq!((output.status.code(), text), (Some(1), wanted));
    }
}

#[test]
fn in_the_background_it_prints_its_pid_logs_and_ends_when_told() {
    let home = tempfile::tempdir().unwrap();
    let output = run(fcpd(Some(home.path())).args(["-d", "--listen", "127.0.0.1:0"]));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let told = text.trim().strip_prefix("fcpd: listening on ").unwrap();
    let (addr, pid) = told.split_once(" (pid ").unwrap();
    let pid = Pid::from_raw(pid.trim_end_matches(')').parse().unwrap()).unwrap();
    let _guard = Background(pid);
    Peer::connect(addr.parse().unwrap()).greet();
    let log = home.path().join(".local/state/fcp/fcpd.log");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&log), mode(log.parent().unwrap())), (0o600, 0o700));
    let (cwd, stdout) = (format!("/proc/{}/cwd", pid.as_raw_nonzero()), "fd/1");
    assert_eq!(std::fs::read_link(&cwd).unwrap(), Path::new("/"));
    let stdout = Path::new(&cwd).with_file_name(stdout);
    assert_eq!(std::fs::read_link(stdout).unwrap(), Path::new("/dev/null"));

    kill_process(pid, Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(is_running(pid), "a terminal that goes away does not end it");
    kill_process(pid, Signal::TERM).unwrap();
    eventually("it ends", || !is_running(pid));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains(&format!("listening on {addr}")), "{logged}");
    assert!(logged.contains("no more connections are accepted"), "{logged}");
}

#[test]
fn sigterm_drains_and_a_second_one_cancels() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Foreground::start(&mut fcpd(Some(home.path())));
    let mut peer = Peer::connect(daemon.addr);
    peer.greet();
    peer.send(&request(Direction::Push, "in", Options::default()));
    eventually("the session begins", || home.path().join("in").is_dir());
    daemon.signal(Signal::TERM);
    eventually("the port is closed", || std::net::TcpStream::connect(daemon.addr).is_err());
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.child.try_wait().unwrap().is_none(), "the session may go on");
    daemon.signal(Signal::TERM);
    assert_eq!(peer.expect_error().code, fcp_proto::ErrorCode::CANCELLED);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn without_sessions_sigterm_and_sigint_end_it_at_once() {
    let home = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Foreground::start(&mut fcpd(Some(home.path())));
        let start = Instant::now();
        daemon.signal(signal);
        assert_eq!(daemon.wait(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

/// Greets as the user that runs it; what comes back is printed.
const GREET: &str = "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.settimeout(5)
s.sendall(bytes.fromhex(sys.argv[2]))
print(s.recv(1).hex())
";

#[test]
fn a_user_without_name_and_home_can_run_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become a user without a name");
        return;
    }
    const AS_NOBODY: [&str; 3] = ["--reuid=54321", "--regid=54321", "--clear-groups"];
    // Our build directory may be closed to others.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("fcpd");
    std::fs::copy(env!("CARGO_BIN_EXE_fcpd"), &program).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut command = Command::new("setpriv");
    command.args(AS_NOBODY).arg(&program).env_remove("HOME").env_remove("XDG_STATE_HOME");
    let daemon = Foreground::start(&mut command);
    let hello = opening(Some(fcp_proto::version::Hello::ours(1)));
    let hex: String = hello.iter().map(|b| format!("{b:02x}")).collect();
    let python = Path::new("/usr/bin/python3");
    let python = if python.exists() { python } else { Path::new("python3") };
    let ran = Command::new("setpriv")
        .args(AS_NOBODY)
        .arg(python)
        .args(["-c", GREET, &daemon.addr.port().to_string(), &hex])
        .output();
    match ran {
        Ok(output) if output.status.success() => assert_eq!(output.stdout, b"03\n"),
        other => eprintln!("not greeted, as python3 cannot be used here: {other:?}"),
    }
    // And in the background, with a notice that there is no log.
    let output = Command::new("setpriv")
        .args(AS_NOBODY)
        .arg(&program)
        .args(["-d", "--listen", "127.0.0.1:0"])
        .env_remove("HOME")
        .env_remove("XDG_STATE_HOME")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (_, pid) = text.trim().split_once(" (pid ").expect(&text);
    let _guard = Background(Pid::from_raw(pid.trim_end_matches(')').parse().unwrap()).unwrap());
    assert!(output.status.success());
    assert!(stderr(&output).contains("HOME"), "{}", stderr(&output));
}

/// A process that may open at most `files` files.
fn with_few_files(home: &Path, files: u32) -> Foreground {
    let mut command = Command::new("/bin/sh");
    let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
    command.env_clear().env("HOME", home);
    Foreground::start(command.args(["-c", &script, env!("CARGO_BIN_EXE_fcpd")]))
}

/// strace, told to fail every socket that fcpd makes after the listening one: those that ask
/// sock_diag, as a seccomp filter would.
fn without_sock_diag(home: &Path) -> Command {
    let mut command = Command::new("strace");
    // With -D the child is fcpd and strace its grandchild, so that ending the child ends both.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=socket"]);
    command.args(["-e", "inject=socket:error=EPERM:when=2+", env!("CARGO_BIN_EXE_fcpd")]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).stdin(Stdio::null());
    command
}

#[test]
fn a10_without_sock_diag_the_other_table_says_who_it_is() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED what needs strace: it is not installed");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(&mut without_sock_diag(home.path()));
    Peer::connect(daemon.addr).greet();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED the other user, as that needs root");
        return;
    }
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{} && cat <&3", daemon.addr.port());
    let other = Command::new("setpriv")
        .args(["--reuid=12345", "--clear-groups", "bash", "-c", &connect])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(told.contains("serves another user"), "{told}");
}

#[test]
fn w27_a_flood_leaves_descriptors_for_the_honest() {
    let home = tempfile::tempdir().unwrap();
    let daemon = with_few_files(home.path(), 40);
    let _flood: Vec<_> = (0..200).map(|_| Peer::connect(daemon.addr)).collect();
    let start = Instant::now();
    Peer::connect(daemon.addr).greet();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn w27_without_descriptors_accept_backs_off_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let daemon = with_few_files(home.path(), 20);
    // Sessions keep their descriptors, more than there are.
    let hello = opening(Some(fcp_proto::version::Hello::ours(1)));
    let held: Vec<_> = (0..15)
        .map(|_| {
            let mut peer = Peer::connect(daemon.addr);
            peer.send(&hello);
            peer
        })
        .collect();
    // One may stay free: with it a connection is accepted, and then its owner cannot be looked up.
    let files = format!("/proc/{}/fd", daemon.child.id());
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::read_dir(&files).unwrap().count() < 19 {
        assert!(Instant::now() < end, "sessions did not take all descriptors");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = ticks(&daemon.child);
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks(&daemon.child) - before;
    assert!(spent < 20, "{spent} hundredths of a second spent on waiting");
    drop(held);
    let start = Instant::now();
    Peer::connect(daemon.addr).greet();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

/// Processor time that a child has used, in hundredths of a second.
fn ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn the_token_for_tunnels_is_made_at_the_first_start() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".config/fcp/token");
    let read = || std::fs::read_to_string(&path).unwrap();
    drop(Foreground::start(&mut fcpd(Some(home.path()))));
    let first = read();
    first.parse::<fcp_common::auth::Token>().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(Foreground::start(&mut fcpd(Some(home.path()))));
    assert_eq!(read(), first);
}

#[test]
fn a_home_that_cannot_be_written_to_stops_nothing() {
    // Root writes to every read-only directory, but not there.
    drop(Foreground::start(&mut fcpd(Some(Path::new("/proc/self/fd")))));
}
