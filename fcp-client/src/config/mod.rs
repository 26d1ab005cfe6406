//! The client's config: what holds for a host, and what says so.
//!
//! A setting comes from the first of these that has it: an option, the environment, the user's
//! file, the system's file, fcp itself. [`Files`] is what was read, [`resolve`] decides without
//! looking anywhere else, `show` tells what came out.

mod file;
mod layer;
mod pattern;
mod show;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use layer::{Files, candidates};
pub use show::{as_json, as_text};
pub use token::{BadNamedToken, NamedToken, TokenSource, read_token_file};

use crate::cli::{CommandLine, Direct, Family, TransferOptions, Via};
use crate::error::CliError;
use layer::Settings;

/// The most connections of a session.
pub const MAX_CONNECTIONS: u16 = 128;

/// What holds for one host.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Way to a host behind ssh.
    pub via: Valued<Via>,
    /// Whether content may go beside ssh.
    pub direct: Valued<Direct>,
    /// Connections of the session; `None` leaves it to what is measured.
    pub connections: Valued<Option<u16>>,
    /// Version of the protocol; `None` takes the best one.
    pub protocol: Valued<Option<u16>>,
    /// What starts fcpd, as a command of the host's shell.
    pub remote_fcpd: Valued<String>,
    /// The token for an fcp:// server.
    pub token: Valued<Option<TokenSource>>,
    /// Private keys for ssh (`-i`).
    pub identity: Valued<Vec<PathBuf>>,
    /// Hosts to jump over (`-J`).
    pub jump: Valued<Option<String>>,
    /// Port of sshd (`-p` of ssh).
    pub port: Valued<Option<u16>>,
    /// ssh's config file (`-F`).
    pub ssh_config: Valued<Option<PathBuf>>,
    /// Options for ssh (`-o`).
    pub ssh_option: Valued<Vec<String>>,
    /// The program that is called as ssh.
    pub rsh: Valued<CommandLine>,
    /// `-4` or `-6`; no file has it.
    pub family: Option<Family>,
    /// `-z`; no file has it.
    pub compress: bool,
}

/// A value, and what set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valued<T> {
    /// The value.
    pub value: T,
    /// What set it.
    pub source: Source,
}

/// What set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// An option.
    Flag(&'static str),
    /// A variable of the environment.
    Env(&'static str),
    /// A config file.
    File {
        /// The file's name, escaped.
        name: Arc<str>,
        /// The line, from 1.
        line: usize,
        /// The section as the file spells it, escaped.
        section: Arc<str>,
    },
}

/// Why the config cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file that is there and cannot be read, or not trusted.
    #[error("{0}: {1}")]
    File(String, String),
    /// Something in a file; the first text is `file:line:column`.
    #[error("{0}: {1}")]
    Content(String, String),
    /// A variable of the environment.
    #[error("{0}: {1}")]
    Env(&'static str, String),
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::Usage(error.to_string())
    }
}

/// What holds for `host`, which is a host's name as an operand has it, without user and port.
///
/// # Errors
/// [`ConfigError::Env`] for a variable that says what cannot be; an empty one says nothing.
pub fn resolve(
    typed: &TransferOptions,
    host: &str,
    env: &impl Fn(&str) -> Option<OsString>,
    files: &Files,
) -> Result<Resolved, ConfigError> {
    let mut all = Settings::from_flags(typed).or(Settings::from_env(env)?);
    for settings in files.settings_for(host) {
        all = all.or(settings.clone());
    }
    Ok(Resolved {
        via: all.via.unwrap_or_default(),
        direct: all.direct.unwrap_or_default(),
        connections: optional(all.connections),
        protocol: optional(all.protocol),
        remote_fcpd: all.remote_fcpd.unwrap_or(Valued::default_of("fcpd".to_owned())),
        token: optional(all.token),
        identity: all.identity.unwrap_or_default(),
        jump: optional(all.jump),
        port: optional(all.port),
        ssh_config: optional(all.ssh_config),
        ssh_option: all.ssh_option.unwrap_or_default(),
        rsh: all.rsh.unwrap_or_else(|| {
            Valued::default_of(CommandLine { program: "ssh".into(), arguments: Vec::new() })
        }),
        family: typed.reach.family(),
        compress: typed.reach.compress,
    })
}

fn optional<T>(set: Option<Valued<T>>) -> Valued<Option<T>> {
    match set {
        Some(Valued { value, source }) => Valued { value: Some(value), source },
        None => Valued::default_of(None),
    }
}

impl<T> Valued<T> {
    fn default_of(value: T) -> Valued<T> {
        Valued { value, source: Source::Default }
    }
}

impl<T: Default> Default for Valued<T> {
    fn default() -> Valued<T> {
        Valued::default_of(T::default())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::Flag(name) => write!(f, "flag {name}"),
            Source::Env(name) => write!(f, "env {name}"),
            Source::File { name, line, section } => write!(f, "{name}:{line} ({section})"),
        }
    }
}

#[cfg(test)]
mod tests;
