//! Streams that speak SFTP, by logins of which the first may ask the user and no other does.
//!
//! ssh says nothing when it is logged in, and a user may take long to type, so the first words of
//! SFTP are exchanged here: a stream is given out once the server's answer has begun.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::child::{Child, Errors};
use super::command::{Login, Run};
use super::pipes::Pipes;
use super::route::Route;
use super::{Place, SshOptions};
use crate::error::CliError;

/// What the SFTP subsystem is called.
const SFTP: Run<'static> = Run::Subsystem("sftp");
/// SSH_FXP_INIT for version 3, which every client sends first.
pub const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];
/// Further channels of one connection: sshd allows 10 sessions (MaxSessions).
const MAX_CHANNELS: usize = 9;
/// How long a login that nobody is asked about may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a program whose pipe has closed may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// The logins at one host.
#[derive(Debug)]
pub struct SftpLogins {
    route: Route,
    /// The login that may ask has been made. Held while it is made.
    begun: Mutex<bool>,
    /// A login of its own was refused once.
    channels_only: AtomicBool,
    /// Channels that were asked for.
    channels: AtomicUsize,
}

/// A stream behind a login. [`INIT`] was sent.
#[derive(Debug)]
pub struct SftpStream {
    /// The ssh that carries it; keep it as long as the stream.
    pub ssh: Arc<dyn std::any::Any + Send + Sync>,
    /// What the server says, after `begun`.
    pub reader: OwnedFd,
    /// What it is told, after [`INIT`].
    pub writer: OwnedFd,
    /// The beginning of its answer.
    pub begun: Vec<u8>,
}

/// Why there is no further stream.
#[derive(Debug)]
pub enum NoStream {
    /// The first login failed; nobody shall be asked again.
    First(CliError),
    /// No further one without asking.
    Further(io::Error),
}

impl SftpLogins {
    /// Asks ssh what it would do. Reaches nobody yet.
    pub fn new(place: &Place, options: &SshOptions) -> SftpLogins {
        let (begun, channels_only, channels) = Default::default();
        SftpLogins { route: Route::new(place, options), begun, channels_only, channels }
    }

    /// The host as the user would type it.
    pub fn name(&self) -> String {
        self.route.to_string()
    }

    /// Where ssh would connect to, as far as it tells.
    pub fn hostname(&self) -> &str {
        let facts = self.route.facts.as_ref();
        facts.map_or(self.route.place.host.as_str(), |facts| &facts.hostname)
    }

    /// Opens a stream; blocks for as long as a login takes, the first with the user's typing.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open(&self) -> Result<SftpStream, NoStream> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            let first = self.first().map_err(NoStream::First)?;
            *begun = true;
            return Ok(first);
        }
        drop(begun);
        self.further().map_err(NoStream::Further)
    }

    /// Runs a command line in the account's shell, without input and without asking anybody; blocks
    /// until it ends. Answers with its exit code and what it printed.
    ///
    /// # Errors
    /// It cannot be run, or prints more than `limit` bytes.
    pub fn exec(&self, command: &[u8], limit: usize) -> io::Result<(Option<i32>, Vec<u8>)> {
        let login = self.route.master().map_or(Login::Quiet, Login::Channel);
        let run = Run::Line(OsStr::from_bytes(command));
        let (child, mut pipes) = self.route.start(login, run, Errors::Nowhere)?;
        let mut printed = Vec::new();
        (&mut pipes).take(limit as u64 + 1).read_to_end(&mut printed)?;
        if printed.len() > limit {
            return Err(io::Error::other("it printed too much"));
        }
        let status = child.wait_until(Instant::now() + ENDING).and_then(|status| status.code());
        match status {
            Some(255) => Err(io::Error::other("ssh could not run a command")),
            status => Ok((status, printed)),
        }
    }

    fn first(&self) -> Result<SftpStream, CliError> {
        if !self.route.options.is_openssh() {
            let text = "SFTP needs OpenSSH's ssh; leave the other program (-e) out";
            return Err(CliError::Unsupported(text.to_owned()));
        }
        let (child, pipes) = self.route.first(SFTP)?;
        greet(&child, pipes, None).map_err(|error| self.not_there(&child, &error))
    }

    fn further(&self) -> io::Result<SftpStream> {
        let Some(master) = self.route.master() else {
            // Perhaps a channel of the user's master.
            let shared = self.route.is_shared_by_user();
            return if shared { self.channel(Login::Quiet) } else { self.quiet(Login::Quiet) };
        };
        if self.channels_only.load(Ordering::Relaxed) {
            return self.channel(Login::Channel(master));
        }
        self.quiet(Login::Quiet).or_else(|error| {
            tracing::info!("no further login ({error}), but perhaps a channel of the first");
            self.channels_only.store(true, Ordering::Relaxed);
            self.channel(Login::Channel(master))
        })
    }

    fn channel(&self, login: Login<'_>) -> io::Result<SftpStream> {
        if self.channels.fetch_add(1, Ordering::Relaxed) >= MAX_CHANNELS {
            return Err(io::Error::other("as many channels as sshd allows"));
        }
        self.quiet(login)
    }

    fn quiet(&self, login: Login<'_>) -> io::Result<SftpStream> {
        let (child, pipes) = self.route.start(login, SFTP, Errors::Nowhere)?;
        let end = Some(Instant::now() + PATIENCE);
        // What did not come about is not waited for, wherever it hangs.
        greet(&child, pipes, end).inspect_err(|_| child.end())
    }

    /// Why the first login led nowhere.
    fn not_there(&self, child: &Child, error: &io::Error) -> CliError {
        if error.kind() != io::ErrorKind::UnexpectedEof && error.kind() != io::ErrorKind::BrokenPipe
        {
            return self.route.failed(error);
        }
        let status = child.wait_until(Instant::now() + ENDING).and_then(|status| status.code());
        let program = self.route.options.program.first();
        let program = program.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        self.route.failed(match status {
            Some(255) => format!("{program} could not connect; what it said is above"),
            _ => "it offers no SFTP: its sshd_config has no `Subsystem sftp`, or it may not be run"
                .to_owned(),
        })
    }
}

/// Says the first words and waits until the answer begins.
fn greet(child: &Arc<Child>, mut pipes: Pipes, end: Option<Instant>) -> io::Result<SftpStream> {
    pipes.set_end(end);
    pipes.write_all(&INIT)?;
    let mut begun = vec![0; 64];
    let got = pipes.read(&mut begun)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    begun.truncate(got);
    let (reader, writer) = pipes.into_fds();
    Ok(SftpStream { ssh: Arc::clone(child) as _, reader, writer, begun })
}
