//! The system's `ssh`: one of them is a connection, and a stream.
//!
//! It tells only by ending whether a login succeeded, so a stream is open before that is known, and
//! [`Link::explain`] finds the true cause of what the stream's user sees as an end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::timeout;

use super::askpass::{Answers, Asker};
use super::connection::{Future, Held, Link, Output, SFTP_ONLY, Stream};
use super::failure::{Server, words};
use super::{Connection, Credential, HostKeyRule, Login};
use crate::connect::ssh::subsystem::{self, Askpass, Remote, Running, Started};
use crate::connect::ssh::{HostFacts, Place, Settings, SshOptions};
use crate::location::{LocationError, Reason, Result};

/// How long an ssh whose stream failed may take to end and to say why.
const ENDING: Duration = Duration::from_secs(2);
/// How much of what it says is kept: the last of it.
const MAX_COMPLAINT: usize = 8 << 10;
/// How long a TCP connection may take, unless ssh_config says so.
const CONNECT_TIMEOUT: &str = "ConnectTimeout=10";
/// sshd is asked whether it lives, so that a dead one is noticed in two minutes.
const ALIVE: [&str; 2] = ["ServerAliveInterval=30", "ServerAliveCountMax=3"];

/// The host as `connect::ssh` has it.
pub(super) fn place(login: &Login) -> Place {
    Place { user: login.user.clone(), host: login.host.clone(), port: login.port }
}

/// Starts the ssh that is to be the first stream.
///
/// # Errors
/// It cannot be started.
pub(super) async fn dial(login: &Login, settings: Option<&Settings>) -> Result<Connection> {
    let name = login.name();
    let get = |key: &str| settings.and_then(|settings| settings.get(key));
    let host = get("hostname").unwrap_or(&login.host);
    let port = get("port").and_then(|port| port.parse().ok()).or(login.port).unwrap_or(22);
    let server = Server::new(&name, host, port);
    if !login.ssh.is_openssh() {
        let text = "SFTP needs OpenSSH's ssh; leave the other program (-e) out";
        return Err(server.failed(Reason::Unsupported, text));
    }
    let options = options(login).map_err(|why| server.failed(Reason::HostKey, why))?;
    let call = Arc::new(Call {
        server,
        place: place(login),
        options,
        facts: settings.and_then(Settings::facts),
        answers: answers(login),
    });
    let (child, stream) = call.start(Remote::Sftp)?;
    let state = Mutex::new(State { stream: Some(stream), has_exec: true });
    Ok(Connection::new(&name, System { call, child, state }))
}

/// How ssh is called for this login.
#[derive(Debug)]
struct Call {
    server: Server,
    place: Place,
    options: SshOptions,
    facts: Option<HostFacts>,
    answers: Answers,
}

/// An ssh, and what it said so far. Ended in the background when dropped, as that may take time.
struct Child {
    running: Option<Running>,
    complaint: Arc<Mutex<Vec<u8>>>,
    listening: tokio::task::JoinHandle<()>,
    asker: Option<Asker>,
}

/// A connection that is one ssh.
struct System {
    call: Arc<Call>,
    child: Arc<Child>,
    state: Mutex<State>,
}

struct State {
    stream: Option<Stream>,
    has_exec: bool,
}

impl Call {
    fn start(&self, remote: Remote<'_>) -> Result<(Arc<Child>, Stream)> {
        self.try_start(remote).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let text = "there is no ssh here: install OpenSSH's client";
                self.server.failed(Reason::Unsupported, text)
            }
            _ => self.server.failed(Reason::Lost, format!("ssh cannot be run: {error}")),
        })
    }

    fn try_start(&self, remote: Remote<'_>) -> io::Result<(Arc<Child>, Stream)> {
        let asker = match self.answers.is_empty() {
            true => None,
            false => Some(Asker::start(self.answers.clone())?),
        };
        let askpass: Option<Askpass> = asker.as_ref().map(Asker::askpass).transpose()?;
        let facts = self.facts.as_ref();
        let started =
            subsystem::start(&self.place, &self.options, facts, remote, askpass.as_ref())?;
        let Started { running, reader, writer, errors } = started;
        let complaint = Arc::new(Mutex::new(Vec::new()));
        let listening = tokio::spawn(listen(receiver(errors)?, Arc::clone(&complaint)));
        let child = Arc::new(Child { running: Some(running), complaint, listening, asker });
        let stream = Stream {
            reader: Box::new(Held::new(receiver(reader)?, &child)),
            writer: Box::new(Held::new(Sender::from_owned_fd(writer)?, &child)),
        };
        Ok((child, stream))
    }

    /// Why an ssh ended, as far as it tells.
    fn explain(&self, child: &Child, error: LocationError) -> LocationError {
        let said = child.said();
        let status = child.ended().and_then(|status| status.code());
        let asked = child.asker.as_ref().is_some_and(Asker::has_refused);
        match reason(&said, status) {
            Some(reason) => self.server.failed(reason, told(&said)),
            None if asked => self.server.failed(Reason::Login, "it asks for what we do not have"),
            None if status == Some(255) && !said.is_empty() => {
                self.server.failed(Reason::Lost, told(&said))
            }
            None => error,
        }
    }
}

impl System {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, command: &[u8], limit: usize) -> Result<Output> {
        let (child, Stream { mut reader, writer }) = self.call.start(Remote::Command(command))?;
        drop(writer);
        let mut stdout = Vec::new();
        let most = (limit as u64).saturating_add(1);
        let read = (&mut reader).take(most).read_to_end(&mut stdout).await;
        read.map_err(|error| self.call.server.io(&error))?;
        if stdout.len() > limit {
            return Err(self.call.server.failed(Reason::Protocol, "it printed too much"));
        }
        let status = child.wait(ENDING).await.and_then(|status| status.code());
        if status == Some(255) {
            let lost = self.call.server.failed(Reason::Lost, "ssh could not run a command");
            return Err(self.call.explain(&child, lost));
        }
        if stdout.starts_with(SFTP_ONLY) {
            let text = "it runs no commands for this account";
            return Err(self.call.server.failed(Reason::Unsupported, text));
        }
        Ok(Output { status: status.and_then(|code| u32::try_from(code).ok()), stdout })
    }
}

impl Link for System {
    fn open_sftp(&self) -> Future<'_, Result<Stream>> {
        let stream = self.lock().stream.take();
        Box::pin(std::future::ready(
            stream.ok_or_else(|| self.call.server.failed(Reason::Busy, "one ssh is one session")),
        ))
    }

    fn exec<'a>(&'a self, command: &'a [u8], limit: usize) -> Future<'a, Result<Output>> {
        Box::pin(async move {
            let done = self.run(command, limit).await;
            if done.as_ref().is_err_and(|error| !error.is_transient()) {
                self.lock().has_exec = false;
            }
            done
        })
    }

    fn explain(&self, error: LocationError) -> Future<'_, LocationError> {
        Box::pin(async move {
            let _ = self.child.wait(ENDING).await;
            self.call.explain(&self.child, error)
        })
    }

    fn has_exec(&self) -> bool {
        self.lock().has_exec
    }

    fn max_channels(&self) -> usize {
        1
    }

    fn is_closed(&self) -> bool {
        self.child.ended().is_some()
    }
}

impl Child {
    fn ended(&self) -> Option<std::process::ExitStatus> {
        self.running.as_ref().and_then(Running::ended)
    }

    fn said(&self) -> String {
        let said = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Waits until it has ended and all that it said is there.
    async fn wait(&self, limit: Duration) -> Option<std::process::ExitStatus> {
        let running = self.running.clone()?;
        let end = Instant::now() + limit;
        let waiting = tokio::task::spawn_blocking(move || running.wait_until(end));
        let status = waiting.await.ok().flatten()?;
        let heard = async {
            while !self.listening.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // A master of ssh's own may keep its standard error open.
        let _ = timeout(Duration::from_millis(200), heard).await;
        Some(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Its pipes are closed by now, which ends it; else it is ended.
        let _ = std::thread::Builder::new().name("ssh-end".to_owned()).spawn(move || {
            let _ = running.wait_until(Instant::now() + ENDING);
            drop(running);
        });
    }
}

fn receiver(fd: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd(fd)
}

async fn listen(mut errors: Receiver, complaint: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(n @ 1..) = errors.read(&mut piece).await {
        let mut all = complaint.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(&piece[..n]);
        let excess = all.len().saturating_sub(MAX_COMPLAINT);
        all.drain(..excess);
    }
}

/// What the login's credentials answer.
fn answers(login: &Login) -> Answers {
    let mut answers = Answers::default();
    for credential in &login.credentials {
        match credential {
            Credential::Password(secret) => answers.password = Some(secret.clone()),
            Credential::KeyFile { path, passphrase: Some(secret) } => {
                answers.passphrases.push((path.clone(), secret.clone()));
            }
            Credential::KeyFile { .. } | Credential::Agent => {}
        }
    }
    answers
}

/// The user's options and ours. ssh keeps the first value that it is told.
fn options(login: &Login) -> std::result::Result<SshOptions, String> {
    let mut options = login.ssh.clone();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    match &login.host_key {
        HostKeyRule::Known => last.push("StrictHostKeyChecking=yes".to_owned()),
        HostKeyRule::AcceptNew => last.push("StrictHostKeyChecking=accept-new".to_owned()),
        HostKeyRule::Pinned(pin) => first.extend(pinned(pin)?),
    }
    if let Some(file) = std::env::var_os("FCP_KNOWN_HOSTS").filter(|file| !file.is_empty()) {
        let file = file.into_string().map_err(|_| "FCP_KNOWN_HOSTS is not UTF-8".to_owned())?;
        last.push(format!("UserKnownHostsFile={}", quoted(&file)?));
        last.push("GlobalKnownHostsFile=/dev/null".to_owned());
    }
    last.extend(credentials(login, &mut options.identities));
    last.push(CONNECT_TIMEOUT.to_owned());
    last.extend(ALIVE.map(str::to_owned));
    options.options = first.into_iter().chain(options.options).chain(last).collect();
    Ok(options)
}

/// Only what the login has is tried, as each refusal counts.
fn credentials(login: &Login, identities: &mut Vec<std::path::PathBuf>) -> Vec<String> {
    let mut options = Vec::new();
    let (mut has_key, mut has_agent, mut has_password) = (false, false, false);
    for credential in &login.credentials {
        match credential {
            Credential::Password(_) => has_password = true,
            Credential::KeyFile { path, .. } => {
                has_key = true;
                identities.push(path.clone());
            }
            Credential::Agent => has_agent = true,
        }
    }
    if login.credentials.is_empty() {
        return options;
    }
    has_key |= !identities.is_empty();
    if has_key && !has_agent {
        options.push("IdentitiesOnly=yes".to_owned());
    }
    if !has_key && !has_agent {
        options.push("PubkeyAuthentication=no".to_owned());
    }
    if !has_password {
        let none = ["PasswordAuthentication=no", "KbdInteractiveAuthentication=no"];
        options.extend(none.map(str::to_owned));
    }
    options
}

/// A pinned key is the only one known; ssh asks a program of ours for it.
fn pinned(pin: &str) -> std::result::Result<Vec<String>, String> {
    let program = super::askpass::known_hosts_command(pin.trim())?;
    Ok(vec![
        "StrictHostKeyChecking=yes".to_owned(),
        "UserKnownHostsFile=/dev/null".to_owned(),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "FingerprintHash=sha256".to_owned(),
        format!("KnownHostsCommand={program}"),
    ])
}

/// A path as ssh_config takes it.
fn quoted(path: &str) -> std::result::Result<String, String> {
    match path.contains(['"', '\\', '\n', '%', '$']) {
        true => Err("a path that ssh is told may not contain any of \" \\ % $".to_owned()),
        false => Ok(format!("\"{path}\"")),
    }
}

/// What it means, by the words of OpenSSH's ssh.
fn reason(said: &str, status: Option<i32>) -> Option<Reason> {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&[
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "No matching host key",
        "no matching host key",
        "is marked as revoked",
    ]) {
        return Some(Reason::HostKey);
    }
    if has(&[
        "Permission denied",
        "Too many authentication failures",
        "No supported authentication",
    ]) {
        return Some(Reason::Login);
    }
    if has(&["kex_exchange_identification", "Exceeded MaxStartups", "Not allowed at this time"])
        || has(&["mux_client_request_session: session request failed", "open failed"])
    {
        return Some(Reason::Busy);
    }
    if has(&["subsystem request failed"]) {
        return Some(Reason::Unsupported);
    }
    if has(&["timed out", "Timeout, server", "not responding"]) {
        return Some(Reason::Timeout);
    }
    if has(&["Bad configuration option", "Bad owner or permissions", "no argument after keyword"])
        || has(&["command-line line", "terminating, "])
    {
        return Some(Reason::Unsupported);
    }
    (status == Some(255) && has(&["Connection refused", "Could not resolve", "No route to host"]))
        .then_some(Reason::Lost)
}

/// The last lines that it said, escaped.
fn told(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !is_frame(line));
    let lines: Vec<&str> = lines.collect();
    let text = lines[lines.len().saturating_sub(8)..].join(" | ");
    format!("ssh says: {}", words(text.as_bytes()))
}

fn is_frame(line: &str) -> bool {
    line.bytes().all(|b| b == b'@') || line.starts_with("Pseudo-terminal")
}
