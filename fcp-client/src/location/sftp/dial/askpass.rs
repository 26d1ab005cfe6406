//! How the system's `ssh` gets a password without a terminal: it runs this program again as its
//! askpass program, which asks the fcp that started it over a socket that only its user can reach.
//! No secret is ever an argument or in an environment.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fcp_common::private;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::prompt::is_for_password;
use crate::connect::ssh::subsystem::Askpass;
use crate::secret::Secret;

/// The first argument with which ssh is told to ask for the keys of a host.
const KNOWN_HOST: &str = "--ssh-known-host";
/// Where the socket is.
const SOCKET: &str = "FCP_ASKPASS_SOCKET";
/// Longest prompt, and longest answer.
const MAX_TEXT: u64 = 4 << 10;
/// How long either end waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// `sun_path` less the NUL.
const MAX_PATH: usize = 107;

/// Whether ssh started this process to ask something: then it is answered, and the exit code is
/// ssh's to judge. To be asked first of all in `main`.
pub fn answer(args: &[OsString]) -> Option<ExitCode> {
    if args.get(1).is_some_and(|arg| arg == KNOWN_HOST) {
        let args: Option<Vec<&str>> = args[2..].iter().map(|arg| arg.to_str()).collect();
        if let Some(line) = args.and_then(|args| known_host(&args)) {
            println!("{line}");
        }
        return Some(ExitCode::SUCCESS);
    }
    // Whatever else ssh runs has this in its environment, too.
    let [_, prompt] = args else { return None };
    let (socket, prompt) = (std::env::var_os(SOCKET)?, prompt.to_string_lossy());
    let printed = fetch(Path::new(&socket), &prompt).and_then(|text| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    });
    Some(if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fetch(socket: &Path, prompt: &str) -> std::io::Result<Zeroizing<String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(prompt.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT as usize));
    stream.take(MAX_TEXT).read_to_string(&mut text)?;
    match text.is_empty() {
        true => Err(std::io::ErrorKind::PermissionDenied.into()),
        false => Ok(text),
    }
}

/// How ssh is to ask for the keys that it may believe, where only `pin` counts.
///
/// # Errors
/// It is no pin.
pub(super) fn known_hosts_command(pin: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " :+/=@.-,[]_".contains(c);
    let is_pin = pin.starts_with("SHA256:") || key_of(pin).is_some();
    if !is_pin || !pin.chars().all(is_plain) {
        let pin = fcp_proto::escape_text(pin);
        return Err(format!("host_key {pin:?} is neither SHA256:... nor the text of a public key"));
    }
    let program = program().map_err(|error| error.to_string())?;
    let program = program.to_str().filter(|path| !path.contains(['"', '\\', '%', '$']));
    let program = program.ok_or("the path of fcp has characters that ssh cannot be told")?;
    Ok(format!("\"{program}\" {KNOWN_HOST} \"{pin}\" %H %t %K %f"))
}

/// The line of known_hosts that makes ssh believe the pinned key, and no other.
fn known_host(args: &[&str]) -> Option<String> {
    let [pin, host, kind, key, fingerprint] = args else { return None };
    match key_of(pin) {
        Some(pinned) => Some(format!("{host} {pinned}")),
        None => (pin.trim_end_matches('=') == *fingerprint).then(|| format!("{host} {kind} {key}")),
    }
}

/// The kind and the text of a key, with or without names before them.
fn key_of(pin: &str) -> Option<String> {
    let words: Vec<&str> = pin.split_ascii_whitespace().collect();
    let at =
        words.iter().position(|word| word.starts_with("ssh-") || word.starts_with("ecdsa-"))?;
    let key = words.get(at + 1).filter(|key| key.starts_with("AAAA"))?;
    Some(format!("{} {key}", words[at]))
}

/// What may be answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// To a prompt for the account's password, a single time.
    pub(super) password: Option<Secret>,
    /// To a prompt that names the file.
    pub(super) passphrases: Vec<(PathBuf, Secret)>,
}

/// Answers the prompts of one ssh until dropped.
#[derive(Debug)]
pub(super) struct Asker {
    path: PathBuf,
    task: JoinHandle<()>,
    refused: Arc<AtomicBool>,
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.password.is_none() && self.passphrases.is_empty()
    }

    /// The answer to a prompt. A password goes out once, so that a wrong one counts once.
    fn take(&mut self, prompt: &str) -> Option<Secret> {
        if is_for_password(prompt) {
            return self.password.take();
        }
        let lower = prompt.to_lowercase();
        let named = self.passphrases.iter().find(|(path, _)| {
            lower.contains("passphrase for key") && prompt.contains(&*path.to_string_lossy())
        });
        named.map(|(_, secret)| secret.clone())
    }
}

impl Asker {
    /// Begins to listen.
    ///
    /// # Errors
    /// There is no directory for the socket that nobody else can enter.
    pub(super) fn start(answers: Answers) -> std::io::Result<Asker> {
        let path = socket_path()?;
        let listener = UnixListener::bind(&path)?;
        let refused = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(listener, answers, Arc::clone(&refused)));
        Ok(Asker { path, task, refused })
    }

    /// What ssh is told of it.
    pub(super) fn askpass(&self) -> std::io::Result<Askpass> {
        Ok(Askpass { program: program()?, env: (SOCKET.into(), self.path.clone().into()) })
    }

    /// Whether something was asked that has no answer: the login cannot succeed any more.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.task.abort();
        private::remove(&self.path);
    }
}

/// This program itself.
fn program() -> std::io::Result<OsString> {
    // A test's own program does not ask anybody.
    #[cfg(test)]
    if let Some(fcp) = tests::fcp() {
        return Ok(fcp.into());
    }
    std::env::current_exe().map(OsString::from)
}

fn socket_path() -> std::io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ask-{:x}-{count:x}-{now:x}", std::process::id());
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let dirs = private::runtime_dirs(runtime.as_deref());
    let fits = |path: &PathBuf| path.as_os_str().len() <= MAX_PATH;
    let mut paths = dirs.iter().map(|dir| (dir, dir.join(&name)));
    let found = paths.find(|(dir, path)| fits(path) && private::own_dir(dir).is_ok());
    found.map(|(_, path)| path).ok_or_else(|| {
        std::io::Error::other("there is no directory for a socket that nobody else can enter")
    })
}

async fn serve(listener: UnixListener, mut answers: Answers, refused: Arc<AtomicBool>) {
    let own = rustix::process::geteuid().as_raw();
    while let Ok((mut stream, _)) = listener.accept().await {
        // The directory is ours alone, but root may enter it.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
            continue;
        }
        let mut prompt = Vec::new();
        let mut bounded = (&mut stream).take(MAX_TEXT);
        let reading = bounded.read_to_end(&mut prompt);
        if !matches!(timeout(PATIENCE, reading).await, Ok(Ok(_))) {
            continue;
        }
        match answers.take(&String::from_utf8_lossy(&prompt)) {
            Some(secret) => {
                let _ = timeout(PATIENCE, stream.write_all(secret.reveal().as_bytes())).await;
            }
            None => refused.store(true, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real program, beside the tests' own one, if it was built.
    pub(super) fn fcp() -> Option<PathBuf> {
        let dir = std::env::current_exe().ok()?;
        let fcp = dir.parent()?.parent()?.join("fcp");
        fcp.is_file().then_some(fcp)
    }

    #[tokio::test]
    async fn a_password_goes_out_once_and_a_passphrase_for_its_key_only() {
        let answers = Answers {
            password: Some(Secret::new("p w".into())),
            passphrases: vec![("/k".into(), Secret::new("open".into()))],
        };
        let asker = Asker::start(answers).unwrap();
        let path = asker.path.clone();
        let ask = |prompt: &'static str| {
            let path = path.clone();
            async move {
                let fetched = tokio::task::spawn_blocking(move || fetch(&path, prompt)).await;
                fetched.unwrap().ok().map(|text| text.to_string())
            }
        };
        assert_eq!(ask("Enter passphrase for key '/k': ").await.as_deref(), Some("open"));
        assert_eq!(ask("u@h's password: ").await.as_deref(), Some("p w"));
        assert!(!asker.has_refused());
        assert_eq!(ask("u@h's password: ").await, None);
        assert!(asker.has_refused());
        assert_eq!(ask("Enter passphrase for key '/x': ").await, None);
        assert_eq!(ask("continue connecting (yes/no/[fingerprint])? ").await, None);
        drop(asker);
        assert!(!path.exists());
    }

    #[test]
    fn nobody_shows_a_secret() {
        let answers = Answers { password: Some(Secret::new("hidden".into())), passphrases: vec![] };
        assert!(!format!("{answers:?}").contains("hidden"));
    }
}
