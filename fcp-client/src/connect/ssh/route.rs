//! The ways to one host that have been found, and the programs that run over them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Child, Errors};
use super::command::{Login, Run, arguments};
use super::diagnosis::{Failed, not_started};
use super::master::MasterPath;
use super::pipes::Pipes;
use super::probe::{HostFacts, probe};
use super::sieve::Sieve;
use super::{Place, SshOptions};
use crate::error::CliError;

/// How long programs may take to end by themselves: what is in their pipes still goes out.
const GRACE: Duration = Duration::from_millis(20);

/// A host, what is known of it, and the logins there. Dropping it ends them all.
#[derive(Debug)]
pub(super) struct Route {
    /// Whom to reach.
    pub(super) place: Place,
    /// How.
    pub(super) options: SshOptions,
    /// What ssh said beforehand.
    pub(super) facts: Option<HostFacts>,
    /// Those that may be running, the first one first; none once the session is over.
    children: Mutex<Option<Vec<Arc<Child>>>>,
    /// What the first one says, where it starts fcpd.
    sieve: OnceLock<Sieve>,
    /// Dropped after the children, as one of them may be listening there.
    master: Option<MasterPath>,
}

impl Route {
    /// Asks ssh what it would do. Reaches nobody yet.
    pub(super) fn new(place: &Place, options: &SshOptions) -> Route {
        let facts = probe(place, options);
        // Where the user has a ControlPath, sharing logins is theirs to decide.
        let share = facts.as_ref().is_some_and(|facts| facts.control_path.is_none());
        let master = if share { MasterPath::new() } else { None };
        let (place, options) = (place.clone(), options.clone());
        Route {
            place,
            options,
            facts,
            children: Mutex::new(Some(Vec::new())),
            sieve: OnceLock::new(),
            master,
        }
    }

    /// Starts the login that may ask the user, and shows what it complains about.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn first(&self, run: Run<'_>) -> Result<(Arc<Child>, Pipes), CliError> {
        self.start(Login::First(self.master()), run, Errors::Shown)
            .map_err(|error| self.failed(not_started(&self.program(), &error)))
    }

    /// As [`Route::first`], for the login that starts fcpd: what may say that there is none is held
    /// back until that is known. Afterwards [`Route::answered`] shows it; so does a failed login,
    /// but for that.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn first_of_fcpd(&self, line: &str) -> Result<(Arc<Child>, Pipes), CliError> {
        let start = || {
            let (errors, complain) = pipe_with(PipeFlags::CLOEXEC)?;
            let sieve = Sieve::start(errors, &self.options.remote_fcpd)?;
            let login = Login::First(self.master());
            let started = self.start_with(login, Run::Command(line), |args| {
                child::start_into(args, Stdio::from(complain))
            })?;
            let _ = self.sieve.set(sieve);
            Ok(started)
        };
        start().map_err(|error: io::Error| self.failed(not_started(&self.program(), &error)))
    }

    /// There is an fcpd: whatever ssh and the host say is shown.
    pub(super) fn answered(&self) {
        self.sieve.get().into_iter().for_each(Sieve::open);
    }

    /// Starts another login.
    ///
    /// # Errors
    /// The program cannot be started, or the session is over.
    pub(super) fn start(
        &self,
        login: Login<'_>,
        run: Run<'_>,
        errors: Errors,
    ) -> io::Result<(Arc<Child>, Pipes)> {
        self.start_with(login, run, |args| child::start(args, errors))
    }

    fn start_with(
        &self,
        login: Login<'_>,
        run: Run<'_>,
        start: impl FnOnce(&[OsString]) -> io::Result<(Arc<Child>, Pipes)>,
    ) -> io::Result<(Arc<Child>, Pipes)> {
        let args = arguments(&self.place, &self.options, self.facts.as_ref(), login, run);
        let mut children = self.children();
        let list = children.as_mut().ok_or_else(|| io::Error::other("the session is over"))?;
        tracing::info!("starting {args:?}");
        let (child, pipes) = start(&args)?;
        list.retain(|child| child.ended().is_none());
        list.push(Arc::clone(&child));
        Ok((child, pipes))
    }

    /// Ends all logins, and allows no more.
    pub(super) fn end(&self) {
        let Some(children) = self.children().take() else { return };
        let end = Instant::now() + GRACE;
        // Further ones first: a master would wait for them.
        children.iter().rev().for_each(|child| child.terminate(end));
        children.iter().rev().for_each(|child| child.end());
        if children.iter().all(|child| child.ended().is_some()) {
            self.sieve.get().into_iter().for_each(Sieve::settle);
        }
    }

    /// Where the first login serves further channels, if it does.
    pub(super) fn master(&self) -> Option<&str> {
        self.master.as_ref().map(MasterPath::as_str)
    }

    /// Whether logins share connections as ssh_config has it.
    pub(super) fn is_shared_by_user(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.control_path.is_some())
    }

    /// The error of a login that ended before anything useful came.
    pub(super) fn login_failed(
        &self,
        command: &str,
        status: Option<ExitStatus>,
        noise: &[u8],
    ) -> CliError {
        self.sieve.get().into_iter().for_each(|sieve| sieve.finish(status));
        let (host, program) = (self.to_string(), self.program());
        let failed = Failed { host: &host, program: &program, command, status, noise };
        if failed.has_no_fcpd() {
            return CliError::NoFcpd { server: host.clone(), reason: failed.reason() };
        }
        self.failed(failed.reason())
    }

    /// The error of a host that cannot be spoken to.
    pub(super) fn failed(&self, reason: impl fmt::Display) -> CliError {
        CliError::Connect { server: self.to_string(), reason: reason.to_string() }
    }

    fn program(&self) -> String {
        self.options.program.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn children(&self) -> MutexGuard<'_, Option<Vec<Arc<Child>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.end();
    }
}

/// The host as the user would type it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place.user {
            Some(user) => write!(f, "{user}@{}", self.place.host),
            None => f.write_str(&self.place.host),
        }
    }
}
