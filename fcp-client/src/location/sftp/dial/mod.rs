//! How a connection to an SFTP server comes about: the built-in client, or the system's `ssh`.
//!
//! [`dial`] makes a [`Connection`], which opens streams that speak SFTP and runs commands.

mod connection;
mod failure;

use std::fmt::Write as _;
use std::path::PathBuf;

pub use connection::{Connection, Future, Link, Output, Stream};

use crate::connect::SshOptions;
#[cfg(doc)]
use crate::location::Reason;
use crate::location::Result;
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

/// Connects and logs in, once.
///
/// # Errors
/// [`Reason::Login`] and [`Reason::HostKey`], which are final: trying again may lock the account;
/// [`Reason::Busy`] when the server takes no more connections; [`Reason::Lost`] and
/// [`Reason::Timeout`] when it cannot be reached.
#[allow(clippy::unused_async)]
pub async fn dial(login: &Login) -> Result<Connection> {
    let _ = login;
    todo!()
}
