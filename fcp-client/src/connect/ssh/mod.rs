//! Hosts that the system's ssh reaches: it knows the user's ssh_config, keys, agents and proxies.
//!
//! [`command`] is what is typed for the user, [`probe`] what ssh would do, [`child`] a running ssh
//! and [`pipes`] its two ends, [`master`] where ssh may share a login, [`diagnosis`] why one failed.

pub mod child;
pub mod command;
pub mod diagnosis;
pub mod master;
pub mod pipes;
pub mod probe;

use std::ffi::OsString;
use std::path::PathBuf;

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
