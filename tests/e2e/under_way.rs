//! While it runs: progress, signals, and a reader that goes away.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fcp_tests::process::{Daemon, Finished, start};
use fcp_tests::tree::{self, Item};
use rustix::process::Signal;

use crate::programs::{FCP, LIMIT, Way, ended, fcpd, scratch, slashed};

/// The command in a pseudo-terminal of 120 columns; what the terminal saw and the exit code.
fn on_a_terminal(command: &Command) -> Option<Finished> {
    let script = "\
import os, pty, sys, struct, fcntl, termios
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 120, 0, 0))
while True:
    try:
        seen = os.read(fd, 65536)
    except OSError:
        break
    if not seen:
        break
    os.write(1, seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED what needs a terminal: python3 is not installed");
        return None;
    }
    let mut python = Command::new("python3");
    python.args(["-c", script, FCP]).args(command.get_args()).env("TERM", "xterm");
    Some(ended(&mut python))
}

/// Stops fcpd for a while as soon as something is in `dst`, so that a transfer takes its time.
fn while_fcpd_pauses<T>(server: &Daemon, dst: &Path, doing: impl FnOnce() -> T) -> T {
    let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            wait_for_entries(dst);
            rustix::process::kill_process(pid, Signal::STOP).unwrap();
            std::thread::sleep(Duration::from_millis(1_500));
            rustix::process::kill_process(pid, Signal::CONT).unwrap();
        });
        doing()
    })
}

fn wait_for_entries(dst: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let begun = || fs::read_dir(dst).is_ok_and(|mut entries| entries.next().is_some());
    while !begun() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn progress_is_shown_on_a_terminal_with_total_rate_and_time_left() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let items = (0..30).map(|n| Item::file(format!("f{n}"), 8 << 20)).collect::<Vec<_>>();
    tree::build(&src, &items);
    for way in [Way::Push, Way::Pull] {
        let dst = dir.path().join(format!("{way:?}"));
        let command = way.command(server.port(), &slashed(&src), &dst);
        let Some(told) = while_fcpd_pauses(&server, &dst, || on_a_terminal(&command)) else {
            return;
        };
        told.assert_success();
        let text = told.stdout_text();
        assert!(text.contains("/240.00 MiB") && text.contains("iB/s"), "{way:?}: {text:?}");
        assert!(text.contains("/30 files") && text.contains("ETA "), "{way:?}: {text:?}");
        // Nothing of it stays on the line.
        assert!(text.trim_end().ends_with("\u{1b}[2K") || text.ends_with('\r'), "{text:?}");
        let _ = fs::remove_dir_all(&dst);
        // Nothing at all when quiet, or when nobody looks.
        let mut quiet = way.command(server.port(), &slashed(&src), &dst);
        quiet.arg("-q");
        let told = while_fcpd_pauses(&server, &dst, || on_a_terminal(&quiet)).unwrap();
        assert!(told.stdout.is_empty(), "{}", told.stdout_text());
        let _ = fs::remove_dir_all(&dst);
        let mut piped = way.command(server.port(), &slashed(&src), &dst);
        let told = while_fcpd_pauses(&server, &dst, || ended(&mut piped));
        assert!(told.stdout.is_empty() && told.stderr.is_empty(), "{told:?}");
    }
}

#[test]
fn sigint_is_exit_20_and_leaves_no_half_file() {
    for (way, signal) in [
        (Way::Push, Signal::INT),
        (Way::Pull, Signal::INT),
        (Way::Local, Signal::INT),
        (Way::Pull, Signal::TERM),
    ] {
        let (dir, server) = (scratch(), fcpd());
        let src = dir.path().join("src");
        let sizes = 40;
        let items: Vec<Item> = (0..sizes).map(|n| Item::file(format!("f{n}"), 16 << 20)).collect();
        tree::build(&src, &items);
        let dst = dir.path().join("dst");
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        let running = start(command.arg("-v"));
        wait_for_entries(&dst);
        running.signal(signal);
        let told = running.finish(LIMIT);
        told.assert_code(20);
        assert!(told.stderr_text().contains("run the same command again"), "{told:?}");
        std::thread::sleep(Duration::from_millis(200));
        let mut whole = 0;
        for entry in fs::read_dir(&dst).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') {
                continue;
            }
            assert_eq!(entry.metadata().unwrap().len(), 16 << 20, "{way:?}: {name}");
            whole += 1;
        }
        assert!(whole < sizes, "{way:?}: it was over before the signal came");
        // The same command again goes on, and cleans up.
        let told = ended(command.arg("--json"));
        told.assert_success();
        let left: Vec<_> = fs::read_dir(&dst)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{way:?}: {left:?}");
        fcp_tests::rsync::assert_agrees(&src, &dst);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let items = (0..2_000).map(|n| Item::file(format!("file-{n}"), 10)).collect::<Vec<_>>();
    tree::build(&src, &items);
    for (way, option) in [(Way::Push, "-v"), (Way::Pull, "--json"), (Way::Local, "-v")] {
        let dst = dir.path().join(format!("{way:?}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        let mut child = command
            .arg(option)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{way:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{way:?}: {output:?}");
        assert_eq!(fs::read_dir(&dst).unwrap().count(), 2_000);
    }
}
