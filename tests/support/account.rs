//! Accounts that a test makes and takes away again. Root only.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::process::kill9_any;
use crate::processes;
use crate::sshd::Sshd;

/// Somebody else may hold the lock of the passwd file.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// An account with its own group and a home below the server's directory, which the client's key
/// opens. Removed on drop, its processes with it.
#[derive(Debug)]
pub struct Account {
    name: String,
    uid: u32,
    home: PathBuf,
}

impl Account {
    /// Makes one with this login shell; `None`, with a notice on stderr, where that cannot be.
    pub fn new(sshd: &Sshd, shell: impl AsRef<Path>) -> Option<Self> {
        let shell = shell.as_ref();
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED what needs an account of its own: not root");
            return None;
        }
        if !shell.is_file() {
            eprintln!("SKIPPED: {} is not installed", shell.display());
            return None;
        }
        let name = format!("fcpt{:08x}", RandomState::new().build_hasher().finish() as u32);
        let home = sshd.path("home").join(&name);
        let mut useradd = Command::new("useradd");
        // `*` is no password but, unlike `!`, does not lock the account for sshd.
        useradd.args(["-M", "-U", "-K", "MAIL_DIR=/nonexistent", "-p", "*", "-s"]).arg(shell);
        if let Err(why) = patiently(useradd.arg("-d").arg(&home).arg(&name)) {
            eprintln!("SKIPPED what needs an account of its own: useradd: {why}");
            return None;
        }
        let account = Self { uid: uid_of(&name), name, home };
        fs::create_dir(&account.home).unwrap();
        fs::set_permissions(&account.home, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&account.home, Some(account.uid), Some(account.uid)).unwrap();
        sshd.authorize(&account.name, "");
        Some(account)
    }

    /// Gives it a password to log in with.
    ///
    /// # Panics
    /// The system does not.
    pub fn set_password(&self, password: &str) {
        let hash = Command::new("openssl").args(["passwd", "-6", password]).output();
        let hash = String::from_utf8(hash.unwrap().stdout).unwrap();
        patiently(Command::new("usermod").args(["-p", hash.trim(), &self.name])).unwrap();
    }

    /// Its login name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its uid; its group has the same number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its home directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Writes a file of its own below its home, such as `.bashrc`.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.join(name);
        fs::write(&path, content).unwrap();
        chown(&path, Some(self.uid), Some(self.uid)).unwrap();
        path
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // One that starts others while it is looked for shows up the next time.
        while let pids = processes::of_user(self.uid)
            && !pids.is_empty()
        {
            pids.into_iter().for_each(kill9_any);
            thread::sleep(Duration::from_millis(5));
        }
        if let Err(why) = patiently(Command::new("userdel").arg("-f").arg(&self.name)) {
            eprintln!("the account {} stays: {why}", self.name);
        }
    }
}

fn uid_of(name: &str) -> u32 {
    let output = Command::new("id").args(["-u", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let uid = text.trim().parse().unwrap();
    assert!(uid != 0, "a test account must not be root");
    uid
}

fn patiently(command: &mut Command) -> Result<(), String> {
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let output = command.output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        why = String::from_utf8_lossy(&output.stderr).into_owned();
        if !why.contains("lock") {
            break;
        }
        thread::sleep(PAUSE);
    }
    Err(why)
}
