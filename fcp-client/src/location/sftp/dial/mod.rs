//! How a connection to an SFTP server comes about: the built-in client, or the system's `ssh`.
//!
//! [`dial`] makes a [`Connection`], which opens streams that speak SFTP and runs commands.

pub mod askpass;
#[cfg(feature = "sftp")]
mod builtin;
mod connection;
mod failure;
pub(in crate::location::sftp) mod plan;
mod prompt;
mod system;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

pub use connection::{Connection, Future, Link, Output, Stream};

use self::failure::Server;
use self::plan::{Env, Way};
use crate::connect::SshOptions;
use crate::connect::ssh::{self, Settings};
use crate::location::{Reason, Result};
use crate::secret::Secret;

/// Where, and as whom.
#[derive(Clone, Debug)]
pub struct Login {
    /// A host name, an address without brackets, or an alias of ssh_config.
    pub host: String,
    /// 22 unless somebody says so.
    pub port: Option<u16>,
    /// Whoever ssh_config says, else ourselves.
    pub user: Option<String>,
    /// In the order in which they are tried; empty for agent and default keys.
    pub credentials: Vec<Credential>,
    /// How the server's key is judged.
    pub host_key: HostKeyRule,
    /// Which program.
    pub dialer: Dialer,
    /// What the system's ssh is told besides.
    pub ssh: SshOptions,
}

/// What proves who we are.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A password; also answers a keyboard-interactive prompt for one.
    Password(Secret),
    /// A private key, with a certificate beside it where there is one.
    KeyFile {
        /// Where it is.
        path: PathBuf,
        /// What opens it.
        passphrase: Option<Secret>,
    },
    /// Whatever the agent at `SSH_AUTH_SOCK` has.
    Agent,
}

/// How the server's key is judged. All of them fail closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostKeyRule {
    /// It stands in a known_hosts file.
    #[default]
    Known,
    /// An unknown host is added; a changed key is refused.
    AcceptNew,
    /// It is this one: `SHA256:...`, or a line `ssh-ed25519 AAAA...`.
    Pinned(String),
}

/// Which program speaks ssh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialer {
    /// The built-in one where it can do all that ssh_config says of the host, else the system's.
    #[default]
    Auto,
    /// The built-in one.
    Builtin,
    /// The system's `ssh`.
    System,
}

impl Login {
    /// How errors and logs call the server, e.g. `sftp user@host:2222`.
    pub fn name(&self) -> String {
        let mut name = "sftp ".to_owned();
        if let Some(user) = &self.user {
            let _ = write!(name, "{user}@");
        }
        match self.host.contains(':') {
            true => name.extend(["[", &self.host, "]"]),
            false => name.push_str(&self.host),
        }
        if let Some(port) = self.port {
            let _ = write!(name, ":{port}");
        }
        fcp_proto::escape(name.as_bytes())
    }
}

impl Credential {
    fn is_agent(&self) -> bool {
        matches!(self, Credential::Agent)
    }
}

/// Connects and logs in, once.
///
/// # Errors
/// [`Reason::Login`] and [`Reason::HostKey`], which are final: trying again may lock the account;
/// [`Reason::Busy`] when the server takes no more connections; [`Reason::Lost`] and
/// [`Reason::Timeout`] when it cannot be reached.
pub async fn dial(login: &Login) -> Result<Connection> {
    Door::find(login.clone()).await?.enter().await
}

/// The way to a server as one login, found once.
#[derive(Clone, Debug)]
pub struct Door {
    login: Arc<Login>,
    settings: Arc<Option<Settings>>,
    way: Way,
}

impl Door {
    /// Asks ssh, where there is one, what its configuration says of the host. Reaches nobody.
    ///
    /// # Errors
    /// [`Reason::Unsupported`] for a host or user that ssh or a shell would read more into.
    pub async fn find(login: Login) -> Result<Door> {
        Door::find_with(login, Env::of_process()).await
    }

    async fn find_with(login: Login, env: Env) -> Result<Door> {
        check(&login)?;
        let place = system::place(&login);
        let options = login.ssh.clone();
        let asked = tokio::task::spawn_blocking(move || ssh::settings(&place, &options)).await;
        let asked = asked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let is_unclear = asked.as_ref().is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound);
        let settings = asked.ok();
        let way = match plan::way(&login, settings.as_ref(), &env) {
            // It says itself what is wrong with its configuration.
            Way::Builtin(_) if is_unclear && login.dialer == Dialer::Auto => {
                Way::System("ssh does not tell its configuration")
            }
            Way::Builtin(plan) if login.dialer == Dialer::Auto && settings.is_some() => {
                keyed(&login, plan)
            }
            way => way,
        };
        tracing::debug!("{}: {way:?}", login.name());
        Ok(Door { login: Arc::new(login), settings: Arc::new(settings), way })
    }

    /// See [`dial`].
    ///
    /// # Errors
    /// See [`dial`].
    pub async fn enter(&self) -> Result<Connection> {
        match &self.way {
            #[cfg(feature = "sftp")]
            Way::Builtin(plan) => builtin::dial(&self.login, plan).await,
            #[cfg(not(feature = "sftp"))]
            Way::Builtin(plan) => {
                let server = Server::new(&self.login.name(), &plan.host, plan.port);
                Err(server.failed(Reason::Unsupported, "this fcp is built without an ssh client"))
            }
            Way::System(_) => system::dial(&self.login, self.settings.as_ref().as_ref()).await,
        }
    }

    /// As [`Login::name`].
    pub fn name(&self) -> String {
        self.login.name()
    }
}

/// Where nothing is named and no key is there that the built-in client can use, ssh may know more.
fn keyed(login: &Login, plan: Box<plan::Plan>) -> Way {
    let is_there = |path: &PathBuf| fcp_common::private::Stamp::of(path).is_some();
    let has_key = plan.agent.is_some() || plan.keys.iter().any(is_there);
    match has_key || !login.credentials.is_empty() {
        true => Way::Builtin(plan),
        false => Way::System("there is no key for the built-in client"),
    }
}

fn check(login: &Login) -> Result<()> {
    let user = login.user.as_deref();
    crate::target::check_names(user, &login.host).map_err(|error| {
        let server = Server::new(&login.name(), &login.host, login.port.unwrap_or(22));
        server.failed(Reason::Unsupported, error.to_string())
    })
}

#[cfg(all(test, feature = "sftp"))]
mod hostile;
#[cfg(all(test, feature = "sftp"))]
pub(in crate::location::sftp) mod testing;
#[cfg(all(test, feature = "sftp"))]
mod tests;
