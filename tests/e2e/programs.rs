//! The two programs, run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fcp_tests::process::{Daemon, Finished, run};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// A uid without a passwd entry.
pub(crate) const NOBODY: u32 = 54_321;

pub(crate) const FCP: &str = env!("CARGO_BIN_EXE_fcp-dup");
pub(crate) const FCPD: &str = env!("CARGO_BIN_EXE_fcpd-dup");

/// An fcp command that is not yet run.
pub(crate) fn fcp() -> Command {
    let mut command = Command::new(FCP);
    command.env_remove("FCP_FAULT");
    command
}

/// Runs an fcp command.
pub(crate) fn ended(command: &mut Command) -> Finished {
    run(command, LIMIT)
}

/// Runs fcp with these arguments.
pub(crate) fn run_fcp<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Finished {
    ended(fcp().args(args.into_iter().map(Into::into)))
}

/// An fcpd of this uid on a free port.
pub(crate) fn fcpd_as(uid: Option<u32>) -> Daemon {
    Daemon::start_with(|port| {
        let mut command = Command::new(FCPD);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).env_remove("FCP_FAULT");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        command
    })
}

/// An fcpd of this test's own user.
pub(crate) fn fcpd() -> Daemon {
    fcpd_as(None)
}

/// How content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Push,
    Pull,
    Local,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Push, Way::Pull, Way::Local];

    /// The command that copies `src` to `dst` this way, a server on `port` helping.
    pub(crate) fn command(self, port: u16, src: &Path, dst: &Path) -> Command {
        let mut command = fcp();
        let (src, dst) = (src.as_os_str(), dst.as_os_str());
        let remote = |path: &std::ffi::OsStr| OsString::from(url(port, path.as_bytes()));
        match self {
            Way::Push => command.arg("push").args([src.to_owned(), remote(dst)]),
            Way::Pull => command.arg("pull").args([remote(src), dst.to_owned()]),
            Way::Local => command.args([src, dst]),
        };
        command
    }
}

/// A path as an operand of a server on this port: percent-encoded where it must be.
pub(crate) fn url(port: u16, path: &[u8]) -> String {
    let mut url = format!("fcp://127.0.0.1:{port}");
    for byte in path {
        match byte {
            b'%' | b'\0'..=b' ' | 0x7f.. => url.push_str(&format!("%{byte:02x}")),
            _ => url.push(char::from(*byte)),
        }
    }
    url
}

/// A scratch directory that everybody may enter.
pub(crate) fn scratch() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// `path/`.
pub(crate) fn slashed(path: &Path) -> PathBuf {
    path.join("")
}

/// The JSON lines of stdout.
pub(crate) fn json_lines(finished: &Finished) -> Vec<Value> {
    let text = String::from_utf8(finished.stdout.clone()).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The last JSON line, which is the summary.
pub(crate) fn summary(finished: &Finished) -> Value {
    let last = json_lines(finished).pop().expect("a summary");
    assert_eq!(last["event"], "summary", "{last}");
    last
}

/// Every path below a directory with what changes when anything touches it.
pub(crate) type Snapshot = BTreeMap<PathBuf, Stamp>;

/// Inode, ctime and mtime in nanoseconds, mode, size.
pub(crate) type Stamp = (u64, i128, i128, u32, u64);

/// The state of everything at and below `root`.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(m) = fs::symlink_metadata(&path) else { continue };
        if m.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let time = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        let (ctime, mtime) = (time(m.ctime(), m.ctime_nsec()), time(m.mtime(), m.mtime_nsec()));
        found.insert(path, (m.ino(), ctime, mtime, m.mode(), m.size()));
    }
    found
}

/// Panics with the paths that are not as they were.
#[track_caller]
pub(crate) fn assert_unchanged(before: &Snapshot, root: &Path) {
    let now = snapshot(root);
    let paths: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let changed: Vec<_> = paths.into_iter().filter(|p| before.get(*p) != now.get(*p)).collect();
    assert!(changed.is_empty(), "touched: {changed:?}");
}

/// How often a program did each kind of file-system operation.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What was counted into the file, in all.
pub(crate) fn counts(file: &Path) -> Counts {
    let mut counts = Counts::new();
    for line in fs::read_to_string(file).unwrap_or_default().lines() {
        let (name, n) = line.split_once(' ').unwrap();
        *counts.entry(name.to_owned()).or_default() += n.parse::<u64>().unwrap();
    }
    counts
}

/// One finished transfer with its file-system operations; a local copy has the client's only.
pub(crate) struct Counted {
    pub(crate) finished: Finished,
    pub(crate) client: Counts,
    pub(crate) server: Counts,
}

/// Copies `src` to `dst` this way with `options`, and counts at both ends.
pub(crate) fn counted(way: Way, options: &[&str], src: &Path, dst: &Path) -> Counted {
    let dir = scratch();
    let files = [dir.path().join("client"), dir.path().join("server")];
    let plan = |file: &Path| format!("count={}", file.display());
    let mut server = Daemon::start_with(|port| {
        let mut command = Command::new(FCPD);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command.env("FCP_FAULT", plan(&files[1]));
        command
    });
    let mut command = way.command(server.port(), src, dst);
    let finished = ended(command.args(options).env("FCP_FAULT", plan(&files[0])));
    assert!(server.terminate(LIMIT).is_some(), "fcpd does not end");
    Counted { finished, client: counts(&files[0]), server: counts(&files[1]) }
}
