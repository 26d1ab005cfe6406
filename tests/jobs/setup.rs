//! A server to pick files up from, a job that does, and the judge of what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fcp_tests::process::Finished;
use fcp_tests::sftp_faults::{self, Faults};
use fcp_tests::sshd::{Options, Sshd};
use fcp_tests::tree::random_bytes;
use tempfile::TempDir;

use crate::programs::{ended, fcp, scratch};

pub(crate) const MIB: u64 = 1 << 20;
/// The month that the tests' files are in, given as YEAR.
pub(crate) const YEAR: &str = "2024";
pub(crate) const MONTH: &str = "2024/202403";

/// A server, a client and the folders of a job between them.
pub(crate) struct World {
    pub(crate) sshd: Sshd,
    pub(crate) faults: Faults,
    pub(crate) dir: TempDir,
}

impl World {
    /// `None`, with a notice, where OpenSSH is not installed.
    pub(crate) fn new() -> Option<World> {
        World::with(Options::without_fcpd())
    }

    pub(crate) fn with(options: Options<'_>) -> Option<World> {
        if !sftp_faults::is_installed() {
            return None;
        }
        let faults = Faults::default();
        let subsystem = faults.subsystem(env!("CARGO_BIN_EXE_sftp-faults"));
        World::around(Sshd::start(options.line(subsystem))?, faults)
    }

    /// One that other accounts can use, too, as the server is sshd's own and has no faults.
    pub(crate) fn without_faults(options: Options<'_>) -> Option<World> {
        World::around(Sshd::start(options)?, Faults::default())
    }

    fn around(sshd: Sshd, faults: Faults) -> Option<World> {
        let world = World { sshd, faults, dir: scratch() };
        for name in ["home", "in", "out"] {
            fs::create_dir(world.path(name)).unwrap();
        }
        Some(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file, an hour old, into the source's month.
    pub(crate) fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path("in").join(MONTH).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, random_bytes(size, size + name.len() as u64)).unwrap();
        age(&path, 3600);
        path
    }

    /// How the server is logged in to: lines of `source` or `destination`.
    pub(crate) fn login(&self) -> String {
        let address = self.sshd.address();
        let (host, port, user) = (address.ip(), address.port(), self.sshd.user());
        let key = self.sshd.path("client_key");
        format!(
            "    type: SFTP\n    host: \"{host}\"\n    port: {port}\n    user: \"{user}\"\n    \
             key_file: \"{}\"\n",
            key.display()
        )
    }

    /// A job from the server's `in` to our `out`, with these lines more.
    pub(crate) fn job(&self, more: &str) -> PathBuf {
        self.write(&format!(
            "J:\n  name: J\n  source:\n{}    base_path: \"{}\"\n  destination:\n    type: LOCAL\n    \
             path: \"{}\"\n{more}",
            self.login(),
            self.path("in").display(),
            self.path("out").display()
        ))
    }

    /// A job from our `in` to the server's `out`.
    pub(crate) fn upload(&self, more: &str) -> PathBuf {
        self.write(&format!(
            "J:\n  name: J\n  source:\n    type: LOCAL\n    path: \"{}\"\n  destination:\n{}    \
             base_path: \"{}\"\n{more}",
            self.path("in").display(),
            self.login(),
            self.path("out").display()
        ))
    }

    /// A job from the server to itself, through us.
    pub(crate) fn across(&self, more: &str) -> PathBuf {
        let login = self.login();
        self.write(&format!(
            "J:\n  name: J\n  source:\n{login}    base_path: \"{}\"\n  destination:\n{login}    \
             base_path: \"{}\"\n{more}",
            self.path("in").display(),
            self.path("out").display()
        ))
    }

    pub(crate) fn write(&self, yaml: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("jobs.yaml");
        fs::write(&path, yaml).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// `fcp job ...` as a user of this world types it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = fcp();
        command.env("HOME", self.path("home")).env_remove("SSH_AUTH_SOCK");
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        command.env("FCP_KNOWN_HOSTS", self.sshd.path("known_hosts"));
        command.current_dir(self.dir.path()).arg("job").args(args);
        command
    }

    /// Runs the job over the tests' year.
    pub(crate) fn run(&self) -> Finished {
        ended(&mut self.command(&["run", "J", YEAR]))
    }

    /// Runs it until it says that all is done; a crash is for the next run to mend.
    pub(crate) fn run_to_end(&self) {
        for _ in 0..5 {
            if self.run().code() == Some(0) {
                return;
            }
        }
        self.run().assert_success();
    }

    /// The files below a folder by their relative names, temporary ones left out.
    pub(crate) fn visible(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.path(folder), "", &mut found);
        found.retain(|name, _| !name.rsplit('/').next().unwrap().starts_with(".tmp."));
        found
    }

    /// Temporary names below a folder.
    pub(crate) fn temps(&self, folder: &str) -> Vec<String> {
        let mut found = BTreeMap::new();
        collect(&self.path(folder), "", &mut found);
        let is_temp = |name: &String| name.rsplit('/').next().unwrap().starts_with(".tmp.");
        found.into_keys().filter(is_temp).collect()
    }
}

/// What the files of a job were before anything ran, by name: what must exist somewhere, whole.
pub(crate) struct Originals(BTreeMap<String, Vec<u8>>);

impl Originals {
    pub(crate) fn of(world: &World) -> Originals {
        Originals(world.visible("in"))
    }

    /// At least one whole copy of each is somewhere, and nothing partial has a final name.
    pub(crate) fn assert_none_lost(&self, world: &World) {
        let (source, out) = (world.visible("in"), world.visible("out"));
        for (name, content) in &self.0 {
            let copies = [source.get(name), source.get(&done(name)), out.get(name)];
            let zipped = source.get(&format!("{}.zip", done(name)));
            let whole = copies.into_iter().flatten().any(|copy| copy == content)
                || zipped.is_some_and(|zip| &unzipped(zip) == content);
            assert!(whole, "{name} is lost: in {:?}, out {:?}", source.keys(), out.keys());
        }
        for (name, content) in &out {
            assert_eq!(self.0.get(name), Some(content), "{name} is not what its source was");
        }
    }

    /// Each is at the destination, once, and in `DONE` as itself or zipped if that is wanted.
    pub(crate) fn assert_delivered(&self, world: &World, after: After) {
        assert_eq!(world.visible("out"), self.0);
        let source = world.visible("in");
        for (name, content) in &self.0 {
            let (there, moved) = (source.get(name), source.get(&done(name)));
            let zip = source.get(&format!("{}.zip", done(name)));
            match after {
                After::Kept => assert_eq!(there, Some(content)),
                After::Deleted => assert_eq!((there, moved, zip), (None, None, None)),
                After::Moved => assert_eq!((there, moved), (None, Some(content))),
                After::Zipped => {
                    assert_eq!((there, moved), (None, None));
                    assert_eq!(&unzipped(zip.unwrap()), content);
                }
            }
        }
        let expected = if after == After::Deleted { 0 } else { self.0.len() };
        assert_eq!(source.len(), expected, "{:?}", source.keys());
        assert_eq!(world.temps("out"), [""; 0]);
        assert_eq!(world.temps("in"), [""; 0]);
    }
}

/// What is to become of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Kept,
    Deleted,
    Moved,
    Zipped,
}

impl After {
    pub(crate) const ALL: [After; 4] = [After::Kept, After::Deleted, After::Moved, After::Zipped];

    /// The job's lines that ask for it.
    pub(crate) fn lines(self) -> &'static str {
        match self {
            After::Kept => "  done:\n    action: KEEP\n",
            After::Deleted => "  done:\n    action: DELETE\n",
            After::Moved => "  done:\n    action: MOVE\n",
            After::Zipped => "  done:\n    action: MOVE\n    zip_before_move: true\n",
        }
    }
}

/// Where a file goes within its folder.
pub(crate) fn done(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/DONE/{name}"),
        None => format!("DONE/{name}"),
    }
}

/// The one file of an archive, as `unzip` finds it; `unzip -t` must agree with it first.
pub(crate) fn unzipped(zip: &[u8]) -> Vec<u8> {
    let dir = scratch();
    let path = dir.path().join("a.zip");
    fs::write(&path, zip).unwrap();
    let test = Command::new("unzip").arg("-tqq").arg(&path).output().expect("unzip");
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
    let mut child = Command::new("unzip");
    child.arg("-p").arg(&path).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut content = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut content).unwrap();
    assert!(child.wait().unwrap().success());
    content
}

/// Makes a file so many seconds old.
pub(crate) fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn collect(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else if kind.is_file() {
            found.insert(name, fs::read(entry.path()).unwrap_or_default());
        }
    }
}
