//! The two programs, run so that they can be hurt, and what must hold whatever happens to them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fcp_tests::process::{Daemon, Finished, run};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes; past it, it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const FCP: &str = env!("CARGO_BIN_EXE_fcp-dup");
pub(crate) const FCPD: &str = env!("CARGO_BIN_EXE_fcpd-dup");

/// A directory in memory, where there is one: these tests write the same bytes very often.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// An fcp command that is not yet run.
pub(crate) fn fcp() -> Command {
    let mut command = Command::new(FCP);
    command.env_remove("FCP_FAULT");
    command
}

/// An fcpd on a free port that logs its sessions.
pub(crate) fn fcpd() -> Daemon {
    fcpd_with(None)
}

/// An fcpd with faults in it.
pub(crate) fn fcpd_with(fault: Option<&str>) -> Daemon {
    Daemon::start_with(|port| {
        let mut command = Command::new(FCPD);
        command.args(["--loglevel", "info", "--listen"]).arg(format!("127.0.0.1:{port}"));
        command.env_remove("FCP_FAULT");
        if let Some(fault) = fault {
            command.env("FCP_FAULT", fault);
        }
        command
    })
}

/// Which way content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Push,
    Pull,
}

impl Way {
    pub(crate) const BOTH: [Way; 2] = [Way::Push, Way::Pull];

    /// `fcp push|pull --json -j N FROM TO`; `url` makes the server's operand.
    pub(crate) fn command(
        self,
        connections: u16,
        from: &Path,
        to: &Path,
        url: impl Fn(&Path) -> String,
    ) -> Command {
        let mut command = fcp();
        let slashed = |path: &Path| if path.is_dir() { path.join("") } else { path.to_owned() };
        command.arg(if self == Way::Push { "push" } else { "pull" });
        command.args(["--json", "-j", &connections.to_string()]);
        match self {
            Way::Push => command.arg(slashed(from)).arg(url(to)),
            Way::Pull => command.arg(url(&slashed(from))).arg(to),
        };
        command
    }
}

/// Runs a command to its end.
pub(crate) fn ended(command: &mut Command) -> Finished {
    let finished = run(command, LIMIT);
    assert!(!finished.timed_out, "it hangs: {finished:?}");
    finished
}

/// The numbers of `--json`'s last line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) total: u64,
    pub(crate) sent: u64,
    pub(crate) kept: u64,
}

/// What fcp counted.
pub(crate) fn numbers(finished: &Finished) -> Numbers {
    let text = finished.stdout_text();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let Some(last) = lines.filter(|v| v["event"] == "summary").last() else {
        panic!("no summary in {finished:?}");
    };
    let number = |name: &str| last[name].as_u64().unwrap();
    Numbers { total: number("total_bytes"), sent: number("sent_bytes"), kept: number("kept_bytes") }
}

/// Every path below a root, relative to it.
pub(crate) fn paths_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        // A directory may vanish between two looks while something runs.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
                open.push(path.clone());
            }
            found.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Whether a path is a temp or a journal of fcp.
pub(crate) fn is_ours(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == ".fcp-journal" || (name.starts_with(".fcp-") && name.ends_with(".tmp"))
    })
}

/// The temps that stand below a root.
pub(crate) fn temps(root: &Path) -> Vec<PathBuf> {
    let paths = paths_below(root).into_iter().filter(|p| is_ours(p) && root.join(p).is_file());
    paths.filter(|p| p.extension().is_some_and(|e| e == "tmp")).map(|p| root.join(p)).collect()
}

/// Panics if something of fcp's own is left.
#[track_caller]
pub(crate) fn assert_clean(root: &Path) {
    let ours: Vec<_> = paths_below(root).into_iter().filter(|p| is_ours(p)).collect();
    assert!(ours.is_empty(), "left behind in {}: {ours:?}", root.display());
}

/// Panics unless every final name below `now` holds what it held in `old`, or what `new` holds:
/// whole, never a part nor a mix, and nothing that neither has.
#[track_caller]
pub(crate) fn assert_old_or_new(old: &Path, new: &Path, now: &Path) {
    for path in paths_below(now).iter().filter(|path| !is_ours(path)) {
        let seen = content(&now.join(path));
        // Published away or replaced while we looked.
        let Some(seen) = seen else { continue };
        let known = [old, new].iter().any(|root| content(&root.join(path)).as_ref() == Some(&seen));
        assert!(known, "{} is neither old nor new: {}", path.display(), seen.describe());
    }
}

#[derive(PartialEq, Eq)]
enum Content {
    Dir,
    Link(PathBuf),
    File(Vec<u8>),
}

impl Content {
    fn describe(&self) -> String {
        match self {
            Content::Dir => "a directory".into(),
            Content::Link(target) => format!("a link to {}", target.display()),
            Content::File(bytes) => format!("a file of {} bytes", bytes.len()),
        }
    }
}

fn content(path: &Path) -> Option<Content> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_dir() {
        return Some(Content::Dir);
    }
    if metadata.is_symlink() {
        return fs::read_link(path).ok().map(Content::Link);
    }
    fs::read(path).ok().map(Content::File)
}

/// Waits until `done` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not in {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number that the environment may raise.
pub(crate) fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Keeps a line of a long run's report, where one is asked for.
pub(crate) fn report(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("FCP_REPORT") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// A small generator for moments and places, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

/// Highest resident memory of a process so far, and its open descriptors.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
