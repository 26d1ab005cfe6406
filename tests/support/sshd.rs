//! A real OpenSSH server on a port of its own, with its own keys and its own clients' config.
//!
//! As root it serves the accounts of [`crate::account`] too, as a plain user only that user.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::netns::Netns;
use crate::process::{free_port, kill9_any};
use crate::processes;

/// The name of the server in the config files made here.
pub const HOST: &str = "fcptest";

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);
/// Another process may take a free port before the server binds it.
const START_ATTEMPTS: u32 = 3;
/// A port below the ephemeral ones, for a server that is alone in its network.
const OWN_PORT: u16 = 2222;
/// Marks the processes of a server's sessions, so that a test finds them and nothing is left over.
const MARKER: &str = "FCP_TEST_SSHD";

/// What kind of server it is to be.
#[derive(Debug, Default)]
pub struct Options<'a> {
    fcpd: Option<PathBuf>,
    lines: Vec<String>,
    after: String,
    netns: Option<&'a Netns>,
}

impl<'a> Options<'a> {
    /// A server whose sessions find this program as `fcpd` in their PATH.
    pub fn with_fcpd(fcpd: impl AsRef<Path>) -> Self {
        Self { fcpd: Some(fcpd.as_ref().to_owned()), ..Self::default() }
    }

    /// A server that has no `fcpd`.
    pub fn without_fcpd() -> Self {
        Self::default()
    }

    /// One more line of sshd_config, ahead of our own; the first of a keyword counts.
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The end of sshd_config, such as Match blocks. The accounts of a test are `fcpt*`.
    pub fn after(mut self, text: impl Into<String>) -> Self {
        self.after = text.into();
        self
    }

    /// Runs in this network namespace instead of on loopback.
    pub fn inside(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }
}

/// A running server; it and all it started are killed on drop.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    address: SocketAddr,
    user: String,
    marker: String,
    configs: AtomicU32,
    dir: TempDir,
}

impl Sshd {
    /// Starts a server and waits until it listens; `None`, with a notice on stderr, where OpenSSH
    /// is not installed.
    pub fn start(options: Options<'_>) -> Option<Self> {
        let Some(sshd) = sshd_program() else {
            eprintln!("SKIPPED what needs sshd: OpenSSH's server is not installed");
            return None;
        };
        if rustix::process::geteuid().is_root() {
            // sshd wants it, and only an init system makes it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = TempDir::new().unwrap();
        lay_out(dir.path(), options.fcpd.as_deref());
        let mut server = Self::spawn_listening(&sshd, &options, dir);
        server.user = own_name();
        server.authorize(&server.user, "");
        Some(server)
    }

    /// Lets this account in with the client's key; `options` are those of authorized_keys, such as
    /// `command="..."`, or empty.
    pub fn authorize(&self, user: &str, options: &str) {
        let key = fs::read_to_string(self.path("client_key.pub")).unwrap();
        let mut all = vec![options.to_owned()];
        if user == own_name() {
            // Whoever runs the tests has start-up files that may wait for anything.
            all.push(format!("environment=\"HOME={}\"", self.path("home").display()));
        }
        all.retain(|option| !option.is_empty());
        let options = all.join(",");
        let blank = if options.is_empty() { "" } else { " " };
        fs::write(self.path("keys").join(user), format!("{options}{blank}{key}")).unwrap();
    }

    /// The client's config file: one host, [`HOST`].
    pub fn ssh_config(&self) -> PathBuf {
        self.ssh_config_with("", "")
    }

    /// The same with lines ahead of the host's own, of which the first counts, and with text after
    /// them, such as further hosts.
    pub fn ssh_config_with(&self, lines: &str, after: &str) -> PathBuf {
        let path = self.path(&format!("ssh_config{}", self.configs.fetch_add(1, Relaxed)));
        fs::write(&path, format!("{}\n{after}\n", self.host_block(HOST, lines))).unwrap();
        path
    }

    /// This server as a host of any name, for another server's config file.
    pub fn host_block(&self, name: &str, lines: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "Host {name}\n{lines}\nHostName {}\nPort {}\nUser {}\nIdentityFile {dir}/client_key\n\
             IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {dir}/known_hosts\n\
             GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nControlPath none\n",
            self.address.ip(),
            self.address.port(),
            self.user
        )
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The user this test runs as, who may log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A path below its own directory, which everybody may enter.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has logged so far, at level VERBOSE.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// How many ssh connections have logged in so far.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey for ").count()
    }

    /// How many sessions (commands, shells and subsystems) have begun so far.
    pub fn sessions(&self) -> usize {
        self.log().matches("Starting session: ").count()
    }

    /// The processes of its sessions whose program has this name.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let mut pids = processes::with_environment(MARKER, &self.marker);
        pids.retain(|&pid| processes::name(pid).is_some_and(|n| n == name));
        pids
    }

    /// The client's key behind a passphrase; [`crate::askpass::Askpass`] knows it.
    pub fn locked_key(&self, passphrase: &str) -> PathBuf {
        let path = self.path("locked_key");
        fs::copy(self.path("client_key"), &path).unwrap();
        keygen(Command::new("ssh-keygen").args(["-q", "-p", "-N", passphrase, "-f"]).arg(&path));
        path
    }

    fn spawn_listening(sshd: &Path, options: &Options<'_>, dir: TempDir) -> Self {
        let marker = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        for _ in 0..START_ATTEMPTS {
            let address: SocketAddr = match options.netns {
                Some(netns) => (netns.far(), OWN_PORT).into(),
                None => (Ipv4Addr::LOCALHOST, free_port()).into(),
            };
            let config = sshd_config(dir.path(), address, &marker, options);
            fs::write(dir.path().join("sshd_config"), config).unwrap();
            write_known_hosts(dir.path(), address);
            let mut child = spawn(sshd, options.netns, dir.path());
            if listens(&mut child, &dir.path().join("log")) {
                let (user, configs) = (String::new(), AtomicU32::new(0));
                return Self { child, address, user, marker, configs, dir };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("sshd does not start: {log}");
    }

    fn kill_all(&mut self) {
        // The listener first, so that nothing new begins.
        let mut pids = processes::descendants(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        pids.extend(processes::with_environment(MARKER, &self.marker));
        pids.into_iter().for_each(kill9_any);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the sshd on {}\n{}", self.address, self.log());
        }
        self.kill_all();
    }
}

fn sshd_program() -> Option<PathBuf> {
    // It re-executes itself and so wants its absolute path; no user's PATH has it.
    let dirs = ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/bin"];
    dirs.iter().map(|dir| Path::new(dir).join("sshd")).find(|path| path.is_file())
}

/// Keys, the directory of authorized keys, and the one that holds `fcpd`.
fn lay_out(dir: &Path, fcpd: Option<&Path>) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["keys", "bin", "home", "own-home"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    for name in ["host_key", "client_key"] {
        let mut command = Command::new("ssh-keygen");
        keygen(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)));
    }
    if let Some(fcpd) = fcpd {
        place(fcpd, &dir.join("bin/fcpd"));
    }
}

/// A link, or a copy where others may not enter the directory of the program.
fn place(program: &Path, at: &Path) {
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o1 != 0);
    if program.ancestors().skip(1).all(open) {
        symlink(program, at).unwrap();
    } else {
        fs::copy(program, at).unwrap();
    }
}

fn keygen(command: &mut Command) {
    let output = command.output().expect("ssh-keygen, which comes with ssh");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

fn sshd_config(dir: &Path, address: SocketAddr, marker: &str, options: &Options<'_>) -> String {
    let mut text = String::new();
    options.lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
    let dir = dir.display();
    write!(
        text,
        "ListenAddress {}\nPort {}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/keys/%u\n\
         UsePAM no\nStrictModes no\nPermitUserEnvironment HOME\nPidFile none\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n\
         LogLevel VERBOSE\nUseDNS no\n",
        address.ip(),
        address.port(),
    )
    .unwrap();
    if !options.lines.iter().any(|line| line.starts_with("Subsystem sftp ")) {
        text.push_str("Subsystem sftp internal-sftp\n");
    }
    if penalizes() {
        // Tests fail to log in on purpose, and all come from one address.
        text.push_str("PerSourcePenalties no\n");
    }
    // The first SetEnv counts. Our own user's start-up files and settings stay out of the test:
    // they may take long, and a killed session may leave their locks behind.
    let env = format!("SetEnv PATH={dir}/bin:/usr/local/bin:/usr/bin:/bin {MARKER}={marker}");
    let after = &options.after;
    write!(text, "Match User fcpt*\n{env}\nMatch all\n{env} HOME={dir}/own-home\n{after}\n")
        .unwrap();
    text
}

/// OpenSSH 9.8 and later lock out who failed often; earlier ones do not know the keyword.
fn penalizes() -> bool {
    let output = Command::new("ssh").arg("-V").output().expect("ssh is installed with sshd");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.strip_prefix("OpenSSH_").unwrap_or_default();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (9, 8)
}

fn write_known_hosts(dir: &Path, address: SocketAddr) {
    let key = fs::read_to_string(dir.join("host_key.pub")).unwrap();
    let line = format!("[{}]:{} {key}", address.ip(), address.port());
    fs::write(dir.join("known_hosts"), line).unwrap();
}

fn spawn(sshd: &Path, netns: Option<&Netns>, dir: &Path) -> Child {
    let _ = fs::remove_file(dir.join("log"));
    let mut command = match netns {
        Some(netns) => netns.command(sshd),
        None => Command::new(sshd),
    };
    command.arg("-D").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(dir.join("log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{}: {e}", sshd.display()))
}

fn listens(child: &mut Child, log: &Path) -> bool {
    let deadline = Instant::now() + START_LIMIT;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        if fs::read_to_string(log).is_ok_and(|text| text.contains("Server listening on ")) {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

/// The login name of the user this runs as.
fn own_name() -> String {
    let output = Command::new("id").arg("-un").output().expect("id is in coreutils");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
