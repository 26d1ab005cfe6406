//! The two programs, run.

use std::ffi::OsString;
use std::fs;
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
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The last JSON line, which is the summary.
pub(crate) fn summary(finished: &Finished) -> Value {
    let last = json_lines(finished).pop().expect("a summary");
    assert_eq!(last["event"], "summary", "{last}");
    last
}
