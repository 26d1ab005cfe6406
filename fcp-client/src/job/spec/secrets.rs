//! Where passwords and passphrases come from, fetched when a login needs them and not before.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fcp_common::private::{self, Fault, PrivateError, Rule, shown};
use zeroize::Zeroizing;

use super::error::SpecError;
use super::{End, fields};
use crate::connect::SshOptions;
use crate::location::sftp::dial::{Credential, Dialer, HostKeyRule, Login};
use crate::secret::Secret;

/// No password is longer, and no private key.
const MAX_SECRET: u64 = 64 << 10;
/// Who else can read it may have it already. A link may lead to it, as where secrets are mounted.
const RULE: Rule = Rule::given(0o077, MAX_SECRET);
/// How long a command may take to tell a secret.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where, and as whom; its secrets are where they were.
#[derive(Clone, Debug)]
pub struct LoginSpec {
    /// A host name, an address without brackets, or an alias of ssh_config.
    pub host: String,
    /// `port`.
    pub port: Option<u16>,
    /// `user`.
    pub user: Option<String>,
    /// In the order in which they are tried.
    pub credentials: Vec<CredentialSpec>,
    /// `host_key`.
    pub host_key: HostKeyRule,
    /// `dialer`.
    pub dialer: Dialer,
    /// File and job, both escaped, and the section that it was read from.
    pub(super) of: (String, String, &'static str),
}

/// What proves who we are, and where its secret is.
#[derive(Clone, Debug)]
pub enum CredentialSpec {
    /// `password` and its kin.
    Password(SecretSource),
    /// `key_file`.
    KeyFile {
        /// Where it is.
        path: PathBuf,
        /// `passphrase` and its kin.
        passphrase: Option<SecretSource>,
    },
    /// `agent: true`.
    Agent,
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In the job file.
    Text(Secret),
    /// In a variable of the environment.
    Env(String),
    /// In a file.
    File(PathBuf),
    /// On the standard output of a command of the shell, which may have secrets itself.
    Command(Secret),
}

impl LoginSpec {
    /// Fetches the secrets.
    ///
    /// # Errors
    /// One cannot be had, or others can read it. Blocks while a command runs, for 30 s at most.
    pub fn resolve(&self) -> Result<Login, SpecError> {
        self.resolve_with(&|name| std::env::var_os(name))
    }

    /// As [`LoginSpec::resolve`], with this environment.
    pub(super) fn resolve_with(
        &self,
        env: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Login, SpecError> {
        let credentials = self.credentials.iter().map(|spec| match spec {
            CredentialSpec::Agent => Ok(Credential::Agent),
            CredentialSpec::Password(source) => {
                self.fetch("password", source, env).map(Credential::Password)
            }
            CredentialSpec::KeyFile { path, passphrase } => {
                check_key_file(path).map_err(|text| self.error("key_file", text))?;
                let passphrase = passphrase.as_ref().map(|p| self.fetch("passphrase", p, env));
                let passphrase = passphrase.transpose()?;
                Ok(Credential::KeyFile { path: path.clone(), passphrase })
            }
        });
        Ok(Login {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            credentials: credentials.collect::<Result<_, _>>()?,
            host_key: self.host_key.clone(),
            dialer: self.dialer,
            ssh: SshOptions::default(),
        })
    }

    fn fetch(
        &self,
        what: &'static str,
        source: &SecretSource,
        env: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Secret, SpecError> {
        let key = format!("{what}{}", source.suffix());
        source.fetch(env).map_err(|text| self.error(&key, text))
    }

    fn error(&self, key: &str, text: String) -> SpecError {
        let (file, job, place) = &self.of;
        let key = Some(format!("{place}.{key}"));
        SpecError { file: file.clone(), line: None, job: Some(job.clone()), key, text }
    }

    /// Whether two logins lead to the same account, as far as their spelling tells.
    pub(super) fn is_same_account(&self, other: &LoginSpec) -> bool {
        let port = |login: &LoginSpec| login.port.unwrap_or(22);
        let users = self.user.as_ref().zip(other.user.as_ref());
        self.host.eq_ignore_ascii_case(&other.host)
            && port(self) == port(other)
            && users.is_none_or(|(one, other)| one == other)
    }

    /// `user@host:port`, escaped.
    pub fn shown(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let colon = self.host.contains(':');
        let host = if colon { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.filter(|port| *port != 22).map(|port| format!(":{port}"));
        fcp_proto::escape_text(&format!("{user}{host}{}", port.unwrap_or_default()))
    }
}

impl End {
    /// The login of an SFTP end, with its secrets; `None` for a local one.
    ///
    /// # Errors
    /// See [`LoginSpec::resolve`].
    pub fn login(&self) -> Result<Option<Login>, SpecError> {
        match self {
            End::Local { .. } => Ok(None),
            End::Sftp { login, .. } => login.resolve().map(Some),
        }
    }
}

impl SecretSource {
    /// What the key that named it ends in.
    fn suffix(&self) -> &'static str {
        match self {
            SecretSource::Text(_) => "",
            SecretSource::Env(_) => "_env",
            SecretSource::File(_) => "_file",
            SecretSource::Command(_) => "_command",
        }
    }

    fn fetch(&self, env: &impl Fn(&str) -> Option<OsString>) -> Result<Secret, String> {
        let bytes = match self {
            SecretSource::Text(secret) => return Ok(secret.clone()),
            SecretSource::Env(name) => {
                // A name that is none may be a password in the wrong place.
                let name_shown = fields::shown_key(name);
                let value = env(name).ok_or(format!("there is no variable {name_shown}"))?;
                Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
            SecretSource::File(path) => read_file(path)?,
            SecretSource::Command(line) => command_output(line.reveal(), PATIENCE)?,
        };
        one_line(&bytes)
    }
}

/// The one line of a text, without its end.
fn one_line(bytes: &[u8]) -> Result<Secret, String> {
    if bytes.len() as u64 > MAX_SECRET {
        return Err("it is longer than 64 KiB, which is no password".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("it is empty".to_owned()),
        line if line.contains('\n') => {
            Err("it has more than one line; of a command's, `| head -n 1` is the first".to_owned())
        }
        line if line.contains('\0') => Err("it has a NUL byte".to_owned()),
        line => Ok(Secret::new(line.to_owned())),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let read =
        private::read(path, &RULE).and_then(|c| c.ok_or_else(|| PrivateError::missing(path)));
    read.map(|contents| Zeroizing::new(contents.bytes)).map_err(|error| mended(&error))
}

/// A key that others can read is no secret, and ssh refuses it, too.
fn check_key_file(path: &Path) -> Result<(), String> {
    read_file(path).map(|_| ())
}

/// The error, with the command that mends it.
pub(super) fn mended(error: &PrivateError) -> String {
    let file = quoted(&error.path);
    match &error.fault {
        Fault::Open { mode } => {
            format!(
                "{} can be read by others (mode {mode:03o}): chmod 600 {file}",
                shown(&error.path)
            )
        }
        Fault::Writable { mode } => {
            format!(
                "{} can be written by others (mode {mode:03o}): chmod go-w {file}",
                shown(&error.path)
            )
        }
        _ => error.to_string(),
    }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    match text.chars().all(plain) && !text.starts_with('-') {
        true => text.into_owned(),
        false => format!("'{}'", fcp_proto::escape_text(&text).replace('\'', "'\\''")),
    }
}

/// What a command prints. It keeps our terminal, to ask, and what it complains about is shown.
pub(super) fn command_output(line: &str, patience: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + patience;
    let late = || format!("the command takes longer than {} s", patience.as_secs());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|why| format!("/bin/sh cannot be started: {why}"))?;
    let output = output_of(&mut child, until);
    let status = output.as_ref().and_then(|_| ended(&mut child, until));
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    match (output.ok_or_else(late)?, status) {
        // Whoever prints too much is cut off, and its status says so.
        (bytes, _) if bytes.len() as u64 > MAX_SECRET => Ok(bytes),
        (bytes, Some(status)) if status.success() => Ok(bytes),
        (_, Some(status)) => Err(format!("the command failed ({status})")),
        (_, None) => Err(late()),
    }
}

/// What the program prints until it closes its output, or one byte more than it may; `None` where
/// it does not close it in time.
fn output_of(child: &mut Child, until: Instant) -> Option<Zeroizing<Vec<u8>>> {
    let stdout = child.stdout.take()?;
    let (tell, told) = mpsc::sync_channel(1);
    // Something that the command left behind may hold the pipe for ever.
    thread::spawn(move || {
        // All at once: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
        let read = stdout.take(MAX_SECRET + 1).read_to_end(&mut bytes);
        let _ = tell.send(read.is_ok().then_some(bytes));
    });
    told.recv_timeout(until.saturating_duration_since(Instant::now())).ok().flatten()
}

fn ended(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}
