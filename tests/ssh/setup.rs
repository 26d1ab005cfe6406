//! A server behind ssh, and fcp calling it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::Finished;
use fcp_tests::proxy::{Plan, Proxy};
use fcp_tests::sshd::{HOST, Options, Sshd};
use fcp_tests::{rsync, tree};
use tempfile::TempDir;

use crate::programs::{FCPD, LIMIT, ended, fcp, scratch, slashed};

pub(crate) const MIB: u64 = 1 << 20;

/// A server behind ssh, a client that knows it, and a directory for both.
pub(crate) struct World {
    pub(crate) sshd: Sshd,
    pub(crate) dir: TempDir,
    /// What `fcp -F` is given.
    pub(crate) ssh_config: PathBuf,
}

impl World {
    /// One with fcpd; `None` where there is no sshd.
    pub(crate) fn new() -> Option<World> {
        World::with(Options::with_fcpd(FCPD))
    }

    pub(crate) fn with(options: Options<'_>) -> Option<World> {
        let sshd = Sshd::start(options)?;
        let dir = scratch();
        fs::create_dir_all(dir.path().join("home/.config/fcp")).unwrap();
        let ssh_config = sshd.ssh_config();
        Some(World { sshd, dir, ssh_config })
    }

    /// From now on fcp's ssh is told these lines of ssh_config first.
    pub(crate) fn ssh_lines(&mut self, lines: &str) {
        self.ssh_config = self.sshd.ssh_config_with(lines, "");
    }

    /// From now on everything of ssh goes through a proxy that counts and spoils it. The direct
    /// port is beside it, on the same address.
    pub(crate) fn through_proxy(&mut self, plan: Plan) -> Proxy {
        let proxy = Proxy::start(self.sshd.address(), move |_| plan);
        let known =
            format!("HostKeyAlias [{}]:{}", self.sshd.address().ip(), self.sshd.address().port());
        self.ssh_lines(&format!("HostName 127.0.0.1\nPort {}\n{known}", proxy.port()));
        proxy
    }

    /// A path in the world's directory.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join(name.as_ref())
    }

    /// The small tree, made once, at this name.
    pub(crate) fn small(&self, name: &str) -> PathBuf {
        tree::small(&self.path(name));
        self.path(name)
    }

    /// A file of so many bytes at this name.
    pub(crate) fn file(&self, name: &str, size: u64) -> PathBuf {
        fs::write(self.path(name), tree::random_bytes(size, size + 1)).unwrap();
        self.path(name)
    }

    /// Writes fcp's own config.
    pub(crate) fn fcp_config(&self, text: &str) {
        fs::write(self.path("home/.config/fcp/config.toml"), text).unwrap();
    }

    /// fcp as a user of this world types it, who has no files of their own in the way.
    pub(crate) fn fcp(&self, args: &[&str]) -> Command {
        let mut command = fcp();
        command.env("HOME", self.path("home")).env_remove("SSH_AUTH_SOCK");
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.env_remove("SSH_ASKPASS").env_remove("DISPLAY");
        command.arg("-F").arg(&self.ssh_config).args(args);
        command
    }

    /// `fcp -F CONFIG push ARGS SRC HOST:DST`.
    pub(crate) fn push(&self, args: &[&str], src: &Path, dst: impl AsRef<OsStr>) -> Command {
        let mut command = self.fcp(&["push"]);
        command.args(args).arg(src).arg(at(HOST, dst));
        command
    }

    /// `fcp -F CONFIG pull ARGS HOST:SRC DST`.
    pub(crate) fn pull(&self, args: &[&str], src: impl AsRef<OsStr>, dst: &Path) -> Command {
        let mut command = self.fcp(&["pull"]);
        command.args(args).arg(at(HOST, src)).arg(dst);
        command
    }

    /// The small tree goes there and back and is the same; returns what the two said.
    #[track_caller]
    pub(crate) fn assert_works(&self, args: &[&str]) -> [Finished; 2] {
        let src = self.path("works-src");
        if !src.exists() {
            tree::small(&src);
        }
        let [there, back] = ["works-there", "works-back"].map(|name| self.path(name));
        for old in [&there, &back] {
            let _ = fs::remove_dir_all(old);
        }
        let pushed = ended(&mut self.push(args, &slashed(&src), &there));
        pushed.assert_success();
        assert_copied(&src, &there);
        let pulled = ended(&mut self.pull(args, slashed(&there), &back));
        pulled.assert_success();
        assert_copied(&src, &back);
        [pushed, pulled]
    }
}

/// `HOST:PATH`.
pub(crate) fn at(host: &str, path: impl AsRef<OsStr>) -> OsString {
    let mut operand = OsString::from(format!("{host}:"));
    operand.push(path);
    operand
}

/// `USER@HOST:PATH`.
pub(crate) fn at_user(user: &str, path: impl AsRef<OsStr>) -> OsString {
    at(&format!("{user}@{HOST}"), path)
}

/// Both judges agree that one tree is a copy of the other.
#[track_caller]
pub(crate) fn assert_copied(src: &Path, dst: &Path) {
    assert_same_tree(src, dst);
    rsync::assert_agrees(src, dst);
}

#[track_caller]
pub(crate) fn assert_same_file(a: &Path, b: &Path) {
    let [left, right] =
        [a, b].map(|p| fs::read(p).unwrap_or_else(|e| panic!("{}: {e}", p.display())));
    assert!(left == right, "{} and {} differ", a.display(), b.display());
}

/// It ended with this code, and said each of these in any case of letters.
#[track_caller]
pub(crate) fn assert_told(finished: &Finished, code: i32, words: &[&str]) {
    finished.assert_code(code);
    let text = finished.stderr_text().to_lowercase();
    for word in words {
        assert!(text.contains(&word.to_lowercase()), "{word:?} is not in: {text}");
    }
}

/// Waits until it holds; panics after the limit.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether nothing of a name begins so in the directory: no temp, no journal.
#[track_caller]
pub(crate) fn assert_empty(dir: &Path) {
    let names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.is_empty(), "{}: {names:?}", dir.display());
}

/// A file name of any bytes.
pub(crate) fn bytes(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
