//! Where jobs keep what must outlive a run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The state directory, from the environment that `env` reads: `fcp` in `$XDG_STATE_HOME` or in
/// `~/.local/state`; `None` without either.
pub fn dir(env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let below_home = || absolute("HOME").map(|home| home.join(".local/state"));
    absolute("XDG_STATE_HOME").or_else(below_home).map(|dir| dir.join("fcp"))
}

/// The ledger in the state directory `dir`.
pub fn ledger(dir: &Path) -> PathBuf {
    dir.join("jobs.sqlite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_follows_the_environment() {
        let of = |name: &'static str, value: &'static str| {
            dir(&move |asked: &str| (asked == name).then(|| value.into()))
        };
        assert_eq!(of("XDG_STATE_HOME", "/s"), Some("/s/fcp".into()));
        assert_eq!(of("HOME", "/home/a"), Some("/home/a/.local/state/fcp".into()));
        assert_eq!(of("XDG_STATE_HOME", "relative"), None);
    }
}
