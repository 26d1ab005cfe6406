//! Both ends of a job, reached.

use crate::job::spec::{End, JobSpec};
use crate::location::local::Local;
use crate::location::sftp::dial::Login;
use crate::location::sftp::pool::PoolOptions;
use crate::location::sftp::{Sftp, SftpOptions};
use crate::location::{Location, LocationError, Reason};

use super::{Stop, retry};

/// Sessions over one connection; servers allow ten by default, and some are for commands.
const CHANNELS: usize = 4;

/// Why an end cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unreached {
    /// Why.
    pub error: LocationError,
    /// Whether it is another machine.
    pub remote: bool,
}

impl Unreached {
    /// Whether nobody answered as they should; otherwise the base directory is what is wrong.
    pub fn is_connection(&self) -> bool {
        let base = [Reason::Denied, Reason::NotDirectory, Reason::NotFound];
        self.remote && !base.contains(&self.error.reason)
    }

    /// Whether trying again can lock the account, or talks to somebody else.
    pub fn is_refused(&self) -> bool {
        matches!(self.error.reason, Reason::Login | Reason::HostKey)
    }
}

/// How often a connection is tried.
#[derive(Clone, Copy)]
pub struct Tries<'a> {
    /// Tries in all.
    pub max: u32,
    /// Hears why one failed and that another will be.
    pub told: &'a (dyn Fn(String) + Sync),
}

/// Reaches one end, with so many tries; `login` has the secrets of an SFTP end.
/// `make` makes its base directory where it is not there.
///
/// # Errors
/// See [`Unreached`].
pub async fn connect(
    spec: &JobSpec,
    end: &End,
    login: Option<Login>,
    make: bool,
    tries: Tries<'_>,
    stop: &Stop,
) -> Result<Location, Unreached> {
    let mut attempt = 1;
    loop {
        let remote = login.is_some();
        let error = match once(spec, end, login.clone(), make).await {
            Ok(location) => return Ok(location),
            Err(error) => error,
        };
        let again = error.is_transient() && attempt < tries.max && !stop.is_over();
        if !again {
            return Err(Unreached { error, remote });
        }
        let wait = retry::delay(spec.transfer.retry_delay, attempt, retry::random());
        let LocationError { place, text, .. } = &error;
        let (seconds, next, max) = (wait.as_secs_f64(), attempt + 1, tries.max);
        (tries.told)(format!(
            "cannot connect to {place} ({text}); trying again in {seconds:.0} s ({next} of {max})"
        ));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.over() => {}
        }
        attempt += 1;
    }
}

async fn once(
    spec: &JobSpec,
    end: &End,
    login: Option<Login>,
    make: bool,
) -> Result<Location, LocationError> {
    match (end, login) {
        (End::Sftp { base_path, .. }, Some(login)) => {
            let max_connections = spec.max_connections.max(1);
            let pool = PoolOptions { max_connections, max_channels: CHANNELS };
            let options = SftpOptions { pool, lanes: max_connections, make_base: make };
            Sftp::connect(login, base_path, options).await.map(Location::Sftp)
        }
        (End::Local { path }, _) if make => Local::make(path).map(Location::Local),
        (End::Local { path }, _) => Local::new(path).map(Location::Local),
        (End::Sftp { .. }, None) => Err(LocationError::new(
            "sftp",
            crate::location::Op::Connect,
            b"",
            Reason::Login,
            "no login was given",
        )),
    }
}
