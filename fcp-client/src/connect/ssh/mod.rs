//! Hosts that the system's ssh reaches: it knows the user's ssh_config, keys, agents and proxies.
//!
//! [`stdio`] and [`tunnel`] open a session, `further` adds connections to it; [`subsystem`] is for
//! hosts that have only sshd. Below them:
//! `route` is one host and its logins, `probe` what ssh would do there, `command` what it is
//! told, `child` a running ssh and `pipes` its two ends, `master` where it may share a login,
//! `preamble` where fcpd begins to speak, `diagnosis` why it did not.

mod child;
mod command;
mod diagnosis;
mod further;
pub mod logins;
mod master;
mod pipes;
mod preamble;
mod probe;
mod route;
mod sieve;
pub mod stdio;
pub mod subsystem;
#[cfg(test)]
mod tests;
pub mod tunnel;

use std::ffi::OsString;
use std::path::PathBuf;

pub use child::end_all;
pub use further::Further;
pub use probe::{HostFacts, Settings, has_aes, settings};
pub use stdio::SshSession;

/// What the user wants of ssh; everything that is not set is ssh's own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOptions {
    /// `-e`: the program and arguments of its own; `ssh` by default. Never empty.
    pub program: Vec<OsString>,
    /// `-F`.
    pub config_file: Option<PathBuf>,
    /// `-i`, in order.
    pub identities: Vec<PathBuf>,
    /// `-J`.
    pub jump: Option<String>,
    /// `-o`, in order.
    pub options: Vec<String>,
    /// `-P`; the port of a `ssh://` operand is [`Place::port`] and comes before it.
    pub port: Option<u16>,
    /// `-4`.
    pub ipv4: bool,
    /// `-6`.
    pub ipv6: bool,
    /// `-C`.
    pub compress: bool,
    /// `--remote-fcpd`: for the remote shell as it is, so that `sudo fcpd` works; `fcpd` by default.
    pub remote_fcpd: String,
    /// How many times `-v`; from the third on ssh explains itself, too.
    pub verbose: u8,
}

impl Default for SshOptions {
    fn default() -> SshOptions {
        SshOptions {
            program: vec!["ssh".into()],
            config_file: None,
            identities: Vec::new(),
            jump: None,
            options: Vec::new(),
            port: None,
            ipv4: false,
            ipv6: false,
            compress: false,
            remote_fcpd: "fcpd".to_owned(),
            verbose: 0,
        }
    }
}

/// Whom to reach, as in the operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Before the `@`.
    pub user: Option<String>,
    /// A name of ssh_config, of DNS, or an address without brackets.
    pub host: String,
    /// Of a `ssh://` operand.
    pub port: Option<u16>,
}
