//! The Python environment of the version 1 peer, made once under `target/fcp-test-venv`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::process::run;

/// What `pip` installs. fastcopy 0.1.8 imports what paramiko dropped in version 4.
const PACKAGES: [&str; 4] = ["fastcopy==0.1.8", "paramiko<4", "python-daemon", "rich"];
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// The environment's Python interpreter, or `None`, with a notice on stderr, where it cannot be
/// made: there is no Python, or no package index can be reached.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        make(&target_dir().join("fcp-test-venv"))
            .inspect_err(|why| eprintln!("SKIPPED what needs fastcopy 0.1.8: {why}"))
            .ok()
    });
    made.as_deref()
}

/// The folder of build results: what `CARGO_TARGET_DIR` says, or the workspace's own.
fn target_dir() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    env::var_os("CARGO_TARGET_DIR").map_or_else(own, PathBuf::from)
}

fn make(dir: &Path) -> Result<PathBuf, String> {
    let io = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(dir).map_err(io)?;
    // Test binaries run side by side; the first one makes it and the others wait. The lock ends
    // with the file.
    let lock = File::create(dir.join("lock")).map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
    let python = dir.join("v/bin/python");
    let done = dir.join("installed");
    if fs::read_to_string(&done).is_ok_and(|text| text == PACKAGES.join("\n")) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(dir.join("v"));
    step(Command::new("python3").args(["-m", "venv"]).arg(dir.join("v")))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    step(Command::new(&python).args(pip).args(PACKAGES))?;
    fs::write(done, PACKAGES.join("\n")).map_err(io)?;
    Ok(python)
}

fn step(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    if Command::new(command.get_program()).arg("--version").output().is_err() {
        return Err(format!("{name} is not installed"));
    }
    let finished = run(command, INSTALL_LIMIT);
    if finished.code() == Some(0) && !finished.timed_out {
        return Ok(());
    }
    Err(format!("{name} ended with {}: {}", finished.status, finished.stderr_text()))
}
