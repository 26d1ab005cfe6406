//! Where the first ssh may serve further channels, so that a password is asked for once.
//!
//! Only where the user has no ControlPath: that one is always theirs. The socket lies in a
//! directory that nobody else can enter and has a new name for each session. ssh removes it when
//! it ends, also on SIGTERM; we remove it for an ssh that was killed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fcp_common::private;

/// `sun_path` less the NUL and the 17 bytes that ssh appends while it binds.
const MAX_PATH: usize = 108 - 1 - 17;

/// The path of a socket that nobody has; removed when dropped.
#[derive(Debug)]
pub(super) struct MasterPath(String);

impl MasterPath {
    /// A new one, or none where no directory fits: then only logins that need no prompt add up.
    pub(super) fn new() -> Option<MasterPath> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let dirs = private::runtime_dirs(runtime.as_deref());
        dirs.iter().find_map(|dir| MasterPath::below(dir))
    }

    /// As ssh is told.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn below(dir: &Path) -> Option<MasterPath> {
        let path = dir.join(unique_name()).into_os_string().into_string().ok()?;
        // ssh expands percent signs and tildes, and cuts its configuration at spaces.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
        let usable = path.len() <= MAX_PATH && path.starts_with('/') && path.bytes().all(plain);
        (usable && private::own_dir(dir).is_ok()).then_some(MasterPath(path))
    }
}

impl Drop for MasterPath {
    fn drop(&mut self) {
        private::remove(self.0.as_ref());
    }
}

/// Not yet used by any process that is alive, nor by another session of this one.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("ssh-{:x}-{count:x}-{now:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, DirBuilder};
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(unique_name()).join(name);
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        dir
    }

    #[test]
    fn two_sessions_never_share_a_socket() {
        let dir = temp("m");
        let (a, b) = (MasterPath::below(&dir).unwrap(), MasterPath::below(&dir).unwrap());
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(a.as_str(), b"").unwrap();
        let left = a.as_str().to_owned();
        drop(a);
        assert!(!Path::new(&left).exists());
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_enter_or_that_ssh_would_misread_is_not_used() {
        let open = temp("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(MasterPath::below(&open).is_none());
        let real = temp("real");
        DirBuilder::new().mode(0o700).create(&real).unwrap();
        let link = real.parent().unwrap().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(MasterPath::below(&link).is_none());
        assert!(MasterPath::below(&real.parent().unwrap().join("a b")).is_none());
        assert!(MasterPath::below(&real.parent().unwrap().join("x".repeat(100))).is_none());
        fs::remove_dir_all(open.parent().unwrap()).unwrap();
        fs::remove_dir_all(real.parent().unwrap()).unwrap();
    }
}
