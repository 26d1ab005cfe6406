//! How a connection to an SFTP server comes about: the built-in client, or the system's `ssh`.

use std::path::PathBuf;

use crate::connect::SshOptions;
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
