//! The independent judge of equality: rsync has nothing to do.

use std::path::Path;
use std::process::Command;

/// `rsync -rlptn --delete -i --checksum A/ B/` prints nothing. The error holds what it printed, or
/// why it could not run.
pub fn agrees(a: &Path, b: &Path) -> Result<(), String> {
    let slashed = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let output = Command::new("rsync")
        .args(["-rlptn", "--delete", "-i", "--checksum"])
        .args([slashed(a), slashed(b)])
        .output()
        .map_err(|e| format!("rsync cannot be run: {e}"))?;
    if output.status.success() && output.stdout.is_empty() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)))
}

/// Panics with what rsync would do, if it would do anything.
#[track_caller]
pub fn assert_agrees(a: &Path, b: &Path) {
    if let Err(difference) = agrees(a, b) {
        panic!("rsync finds that {} and {} differ: {difference}", a.display(), b.display());
    }
}
