//! A real sshd with its own keys, an account with a password, and an agent, for the tests.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::plan::Env;
use super::{Connection, Credential, Dialer, Door, HostKeyRule, Login, Stream};
use crate::connect::SshOptions;

/// A server on loopback; ended when dropped.
pub(in crate::location::sftp) struct Sshd {
    child: Child,
    pub(super) port: u16,
    dir: tempfile::TempDir,
}

impl Sshd {
    /// `None`, with a notice, where there is no sshd. The first value of a keyword counts.
    pub(in crate::location::sftp) fn start(lines: &str) -> Option<Sshd> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.is_file() {
            eprintln!("SKIPPED what needs sshd: there is no {}", program.display());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        lay_keys(dir.path());
        fs::create_dir(dir.path().join("home")).unwrap();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            fs::write(dir.path().join("config"), config(dir.path(), port, lines)).unwrap();
            let mut command = Command::new(program);
            command.arg("-D").arg("-f").arg(dir.path().join("config"));
            command.arg("-E").arg(dir.path().join("log"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            while child.try_wait().unwrap().is_none() && Instant::now() < end {
                let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                if log.contains("Server listening") {
                    return Some(Sshd { child, port, dir });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Makes a key that may log in as `user`.
    pub(in crate::location::sftp) fn key(
        &self,
        user: &str,
        kind: &str,
        passphrase: &str,
    ) -> PathBuf {
        let path = self.path(&format!("key_{kind}_{}", passphrase.len()));
        keygen(&path, &["-t", kind, "-N", passphrase]);
        self.authorize(user, &read(&pub_of(&path)));
        path
    }

    /// Lets a line of authorized_keys in, too.
    pub(super) fn authorize(&self, user: &str, line: &str) {
        let home = self.path("home");
        let path = self.path(&format!("keys_{user}"));
        let before = fs::read_to_string(&path).unwrap_or_default();
        let options = format!("environment=\"HOME={}\"", home.display());
        let line = match line.starts_with("cert-authority") {
            true => line.replacen("cert-authority", &format!("cert-authority,{options}"), 1),
            false => format!("{options} {line}"),
        };
        fs::write(&path, format!("{before}{line}\n")).unwrap();
    }

    /// A line of known_hosts with the key of this kind.
    pub(super) fn known(&self, kind: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.host_key(kind))
    }

    /// The public key of this kind, as one line.
    pub(super) fn host_key(&self, kind: &str) -> String {
        let text = read(&self.path(&format!("host_{kind}.pub")));
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// A login that knows the ed25519 key of the server.
    pub(in crate::location::sftp) fn login(
        &self,
        user: &str,
        credentials: Vec<Credential>,
    ) -> (Login, Env) {
        let known = self.path("known_hosts");
        fs::write(&known, format!("{}\n", self.known("ed25519"))).unwrap();
        let login = Login {
            host: "127.0.0.1".to_owned(),
            port: Some(self.port),
            user: Some(user.to_owned()),
            credentials,
            host_key: HostKeyRule::Known,
            dialer: Dialer::Builtin,
            ssh: SshOptions::default(),
        };
        let home = Some(self.path("home"));
        let env = Env { home, known_hosts: Some(known), ..Env::default() };
        (login, env)
    }

    /// The same for the system's ssh.
    pub(in crate::location::sftp) fn system(
        &self,
        user: &str,
        credentials: Vec<Credential>,
    ) -> Login {
        let (mut login, env) = self.login(user, credentials);
        login.dialer = Dialer::System;
        login.ssh.config_file = Some("none".into());
        let known = env.known_hosts.unwrap();
        login.ssh.options = vec![
            format!("UserKnownHostsFile={}", known.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
        ];
        login
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd's log\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Host keys, made once, as that takes its time.
fn lay_keys(dir: &Path) {
    static KEYS: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let made = tempfile::tempdir().unwrap();
        for kind in ["ed25519", "rsa", "ecdsa"] {
            keygen(&made.path().join(format!("host_{kind}")), &["-t", kind]);
        }
        let entries = fs::read_dir(made.path()).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    });
    for (name, contents) in keys {
        fs::write(dir.join(name), contents).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn config(dir: &Path, port: u16, lines: &str) -> String {
    let dir = dir.display();
    format!(
        "{lines}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host_ed25519\n\
         HostKey {dir}/host_rsa\nHostKey {dir}/host_ecdsa\nAuthorizedKeysFile {dir}/keys_%u\n\
         UsePAM no\nStrictModes no\nPermitUserEnvironment HOME\nPidFile none\n\
         PermitRootLogin yes\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\n\
         Subsystem sftp internal-sftp\nLogLevel VERBOSE\nUseDNS no\n"
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

pub(super) fn pub_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", path.display()))
}

/// Makes a key, or whatever else is asked of ssh-keygen for one.
pub(super) fn keygen(path: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.arg("-q").args(args);
    if !args.contains(&"-N") && args.first() == Some(&"-t") {
        command.args(["-N", ""]);
    }
    let output = command.arg("-f").arg(path).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An account whose password is `password`; removed when dropped. Root only.
pub(super) struct Account {
    pub(super) name: String,
}

impl Account {
    pub(super) fn new(password: &str) -> Option<Account> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED what needs an account: not root");
            return None;
        }
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let name = format!("fcpt{:08x}", nanos.as_nanos() as u32);
        let hash = Command::new("openssl").args(["passwd", "-6", password]).output().ok()?;
        let hash = String::from_utf8(hash.stdout).unwrap();
        for _ in 0..40 {
            let mut useradd = Command::new("useradd");
            useradd.args(["-M", "-U", "-K", "MAIL_DIR=/nonexistent", "-s", "/bin/sh", "-p"]);
            let output = useradd.arg(hash.trim()).args(["-d", "/", &name]).output().unwrap();
            if output.status.success() {
                return Some(Account { name });
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        eprintln!("SKIPPED what needs an account: useradd does not make one");
        None
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for _ in 0..40 {
            let output = Command::new("userdel").args(["-f", &self.name]).output().unwrap();
            if output.status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

/// An agent; ended when dropped.
pub(super) struct Agent {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Agent {
    pub(super) fn start(dir: &Path) -> Agent {
        let socket = dir.join("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !socket.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Agent { child, socket }
    }

    pub(super) fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        command.env("SSH_AUTH_SOCK", &self.socket).arg(key).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Dials with this environment.
pub(super) async fn dial((login, env): (Login, Env)) -> crate::location::Result<Connection> {
    Door::find_with(login, env).await?.enter().await
}

/// The same, for a pool.
pub(in crate::location::sftp) fn opener(
    login: (Login, Env),
) -> Box<crate::location::sftp::pool::Opener> {
    Box::new(move || Box::pin(dial(login.clone())))
}

/// Greets as an SFTP client does; the version of the server.
pub(in crate::location::sftp) async fn greet(stream: &mut Stream) -> std::io::Result<u32> {
    stream.writer.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await?;
    stream.writer.flush().await?;
    let mut head = [0; 9];
    stream.reader.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let mut rest = vec![0; length - 5];
    stream.reader.read_exact(&mut rest).await?;
    Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
}
