//! `--via stdio`: fcpd is started on the host by the login itself.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fcp_common::engine::{Cancel, Duplex};
use fcp_proto::version::{Agreed, Hello, ReplyExtra};
use fcp_proto::{Fingerprint, SessionId};

use super::child::Child;
use super::command::first_command;
use super::further::{Further, Way};
use super::pipes::Pipes;
use super::preamble::{NotFound, skip_noise};
use super::probe::HostFacts;
use super::route::Route;
use super::{Place, SshOptions};
use crate::connect::PATIENCE;
use crate::connect::greeting::{self, Offer, await_welcome, say_hello};
use crate::error::CliError;

/// How long a program whose pipe has closed may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long a session that is over anyway has to find out by itself.
const SETTLE: Duration = Duration::from_millis(500);

/// A session whose first connection goes through ssh. Dropping it ends every ssh that it started.
pub struct SshSession {
    /// What was agreed; `None` with a version 1 server behind a tunnel.
    pub agreed: Option<Agreed>,
    /// The session, for ATTACH on other transports.
    pub sid: SessionId,
    /// What else the server said.
    pub extra: ReplyExtra,
    /// The connections: one, more come from [`SshSession::further`].
    pub conns: Vec<Duplex>,
    /// Opens more of them; for a thread beside the session.
    pub further: Arc<Further>,
    /// How long the login took, the user's typing included.
    pub login: Duration,
    /// Closes a login that the others are channels of; dropped with the session.
    pub(super) kept: Option<Pipes>,
    pub(super) first: Arc<Child>,
    pub(super) route: Arc<Route>,
}

/// Logs in at `place`, starts fcpd there, and opens a session with what `hello` offers. What ssh
/// says about the host decides `direct`: whether to ask for a data port that takes this certificate.
///
/// # Errors
/// [`CliError::Connect`], with what to do about it. No path was sent then.
pub fn open(
    place: &Place,
    options: &SshOptions,
    hello: &Hello,
    direct: impl FnOnce(Option<&HostFacts>) -> Option<Fingerprint>,
) -> Result<SshSession, CliError> {
    let began = Instant::now();
    let route = Arc::new(Route::new(place, options));
    let offer = Offer { hello, credential: None, direct: direct(route.facts.as_ref()) };
    let hello = greeting::hello(&offer).map_err(|error| route.failed(error))?;
    let command = first_command(options, &hello);
    let (first, mut pipes) = route.first_of_fcpd(&command)?;
    // When it is gone already, its exit status says more than the broken pipe does.
    let sent = say_hello(&mut pipes, hello).ok();
    // No deadline: somebody may be typing a password.
    skip_noise(&mut pipes).map_err(|found| not_there(&route, &first, &found))?;
    route.answered();
    let login = began.elapsed();
    pipes.set_end(Some(Instant::now() + PATIENCE));
    let sent = sent.ok_or_else(|| route.failed("it hung up; its log says why"))?;
    let welcome = await_welcome(&mut pipes, &sent, None).map_err(|error| route.failed(error))?;
    if route.is_shared_by_user() {
        // Perhaps a master that others use by now; it ends once they have all gone.
        first.let_go();
    }
    let idle = Duration::from_secs(welcome.agreed.idle_secs.into());
    let duplex = duplex(pipes, idle).map_err(|error| route.failed(error))?;
    let attach = Way::Attach(format!("{} --stdio --attach", options.remote_fcpd));
    let further = Arc::new(Further::new(Arc::clone(&route), attach, welcome.sid, idle));
    Ok(SshSession {
        agreed: Some(welcome.agreed),
        sid: welcome.sid,
        extra: welcome.extra,
        conns: vec![duplex],
        further,
        login,
        kept: None,
        first,
        route,
    })
}

impl SshSession {
    /// What ssh said about the host before it was reached; `None` where it said nothing.
    pub fn facts(&self) -> Option<&HostFacts> {
        self.route.facts.as_ref()
    }

    /// Ends the session when the first ssh ends before it. [`SshSession::ended`] tells that from a
    /// user who cancelled.
    pub fn cancel_on_exit(&self, cancel: Cancel) {
        self.first.on_exit(move |_| {
            std::thread::sleep(SETTLE);
            cancel.cancel();
        });
    }

    /// How the first ssh ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.first.ended()
    }
}

impl Drop for SshSession {
    fn drop(&mut self) {
        // Their pipes first: then they end by themselves, if they can.
        self.conns.clear();
        self.kept = None;
        self.route.end();
    }
}

/// A connection over a running program.
pub(super) fn duplex(pipes: Pipes, idle: Duration) -> io::Result<Duplex> {
    let (reader, writer): (OwnedFd, OwnedFd) = pipes.into_fds();
    Duplex::fds(reader, writer, idle)
}

/// Why the first login led nowhere.
fn not_there(route: &Route, first: &Child, found: &NotFound) -> CliError {
    let command = &route.options.remote_fcpd;
    match &found.error {
        None => route.failed(format!(
            "it printed more than {} KiB before {command} answered; a start-up file of the shell \
             must be quiet when nobody is there",
            super::preamble::MAX_NOISE >> 10
        )),
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let status = first.wait_until(Instant::now() + ENDING);
            route.login_failed(command, status, &found.noise)
        }
        Some(error) => route.failed(error),
    }
}
