//! An ssh whose host runs a subsystem or a command for us, with its three pipes. It asks nobody but
//! an askpass program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Child};
use super::command::{Login, Run, arguments};
use super::{HostFacts, Place, SshOptions};

/// What is to run there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote<'a> {
    /// The SFTP subsystem.
    Sftp,
    /// A command line for the remote shell.
    Command(&'a [u8]),
}

/// What answers the prompts of a login: a program and what it needs in its environment. No secret
/// stands there, as others of the same user can read it.
#[derive(Clone, Debug)]
pub struct Askpass {
    /// The program.
    pub program: OsString,
    /// Its environment.
    pub env: (OsString, OsString),
}

/// A running ssh. Dropping it ends and reaps it, which may take a second.
#[derive(Clone, Debug)]
pub struct Running(Arc<Child>);

/// A running ssh and its pipes, which do not block.
#[derive(Debug)]
pub struct Started {
    /// The program.
    pub running: Running,
    /// Its standard output.
    pub reader: OwnedFd,
    /// Its standard input.
    pub writer: OwnedFd,
    /// Its standard error.
    pub errors: OwnedFd,
}

/// Starts OpenSSH's ssh.
///
/// # Errors
/// `NotFound` where there is none; others once all were ended.
pub fn start(
    place: &Place,
    options: &SshOptions,
    facts: Option<&HostFacts>,
    remote: Remote<'_>,
    askpass: Option<&Askpass>,
) -> io::Result<Started> {
    let run = match remote {
        Remote::Sftp => Run::Subsystem("sftp"),
        Remote::Command(line) => Run::Line(OsStr::from_bytes(line)),
    };
    let login = if askpass.is_some() { Login::Answered } else { Login::Alone };
    let args = arguments(place, options, facts, login, run);
    tracing::info!("starting {args:?}");
    let (program, rest) = args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (errors, complain) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = Command::new(program);
    command.args(rest).stderr(Stdio::from(complain));
    if let Some(Askpass { program, env: (key, value) }) = askpass {
        // Versions before 8.4 want a display, too, and no terminal.
        command.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env(key, value);
        if std::env::var_os("DISPLAY").is_none() {
            command.env("DISPLAY", "none:0");
        }
    }
    let (child, pipes) = child::launch(command)?;
    let (reader, writer) = pipes.into_fds();
    rustix::io::ioctl_fionbio(&errors, true)?;
    Ok(Started { running: Running(child), reader, writer, errors })
}

impl Running {
    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.0.ended()
    }

    /// Waits until it ends or the moment comes.
    pub fn wait_until(&self, end: Instant) -> Option<ExitStatus> {
        self.0.wait_until(end)
    }

    /// Calls `then` once it ends, on the thread that watches it, or at once if it has.
    pub fn on_exit(&self, then: impl FnOnce(ExitStatus) + Send + 'static) {
        self.0.on_exit(then);
    }

    /// Ends it now, which may take a second.
    pub fn end(&self) {
        self.0.end();
    }
}
