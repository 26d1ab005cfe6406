//! Signals before there is a session: an exit code, and no ssh that stays behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fcp_tests::process::{Finished, start};
use fcp_tests::processes::{descendants, name, with_environment};
use rustix::process::Signal;

use crate::programs::{LIMIT, fcp, fcpd, json_lines, scratch, url};

const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];
/// What a signal may take. A program that does not want to end has one second of it.
const SOON: Duration = Duration::from_secs(2);
const SOON_BY_FORCE: Duration = Duration::from_secs(3);
/// In the environment of fcp and all that it starts.
const MARK: &str = "FCP_TEST_MARK";

/// The arguments that have fcp use this script as its ssh; by the name `ssh` it is also asked what
/// it would do.
fn ssh(dir: &Path, name: &str, script: &str) -> [String; 2] {
    let (shell, file): (PathBuf, PathBuf) = (dir.join(name), dir.join(format!("{name}.sh")));
    let _ = symlink("/bin/sh", &shell);
    fs::write(&file, script).unwrap();
    ["-e".to_owned(), format!("{} {}", shell.display(), file.display())]
}

/// Sends the signal once so many `sleep`s run, or after a while where none are to; tells how fcp
/// ended and how long that took.
fn interrupted(command: &mut Command, signal: Signal, sleeping: usize) -> (Finished, Duration) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mark = format!("{}-{count}", std::process::id());
    let running = start(command.env(MARK, &mark));
    let asleep = || {
        let found = descendants(running.pid());
        found.into_iter().filter(|pid| name(*pid).is_some_and(|name| name == "sleep")).count()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while asleep() < sleeping && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if sleeping == 0 {
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(asleep(), sleeping, "what waits for ever");
    running.signal(signal);
    let began = Instant::now();
    let told = running.finish(LIMIT);
    let took = began.elapsed();
    assert_eq!(with_environment(MARK, &mark), [0; 0], "nothing stays behind: {told:?}");
    (told, took)
}

fn assert_cancelled(told: &Finished, took: Duration, limit: Duration) {
    told.assert_code(20);
    assert_eq!(told.stderr_text(), "fcp: cancelled; run the same command again to go on\n");
    assert!(took < limit, "{took:?}");
}

#[test]
fn a_signal_during_a_login_is_exit_20_and_ends_the_ssh() {
    let dir = scratch();
    let never = ssh(dir.path(), "other", "exec sleep 60");
    for signal in SIGNALS {
        for operands in [["/etc/hostname", "host:x"], ["host:x", "/nonexistent"]] {
            let (told, took) = interrupted(fcp().args(&never).args(operands), signal, 1);
            assert_cancelled(&told, took, SOON);
        }
    }
    let mut command = fcp();
    let (told, _) = interrupted(
        command.args(&never).args(["--json", "host:x", "/nonexistent"]),
        Signal::TERM,
        1,
    );
    told.assert_code(20);
    let last = json_lines(&told).pop().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&"summary".into(), &20.into()), "{last}");
}

#[test]
fn a_signal_ends_also_what_asks_beforehand_and_starts_no_more() {
    let dir = scratch();
    // The question what it would do; the login that would follow hangs, too.
    let asks = ssh(dir.path(), "ssh", "exec sleep 60");
    let (told, took) =
        interrupted(fcp().args(asks).args(["host:x", "/nonexistent"]), Signal::TERM, 1);
    assert_cancelled(&told, took, SOON);
    let script = "case $* in *-G*) exit 1;; esac; exec sleep 60";
    let logs_in = ssh(dir.path(), "ssh", script);
    let (told, took) =
        interrupted(fcp().args(logs_in).args(["host:x", "/nonexistent"]), Signal::INT, 1);
    assert_cancelled(&told, took, SOON);
}

#[test]
fn an_ssh_that_does_not_want_to_end_is_ended() {
    let dir = scratch();
    // What a shell ignores is ignored by what it becomes.
    let stubborn = ssh(dir.path(), "other", "trap '' INT TERM HUP; exec sleep 60");
    let (told, took) =
        interrupted(fcp().args(stubborn).args(["host:x", "/nonexistent"]), Signal::TERM, 1);
    assert_cancelled(&told, took, SOON_BY_FORCE);
}

#[test]
fn a_signal_while_the_second_server_of_a_relay_does_not_answer() {
    let (dir, server) = (scratch(), fcpd());
    let never = ssh(dir.path(), "other", "exec sleep 60");
    let from = url(server.port(), b"/etc/hostname");
    let (told, took) = interrupted(fcp().args(never).args([&from, "host:x"]), Signal::TERM, 1);
    assert_cancelled(&told, took, SOON);
}

#[test]
fn a_signal_while_a_server_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = url(silent.local_addr().unwrap().port(), b"/x");
    let (told, took) = interrupted(fcp().args([&from, "/nonexistent"]), Signal::TERM, 0);
    assert_cancelled(&told, took, SOON);
}
