//! How a server is reached: `loopback` by TCP on this machine, [`ssh`] by the system's ssh,
//! [`tls`] beyond this machine, and [`direct`] past ssh. `reach` chooses among them.
//!
//! [`greeting`] is HELLO and its answers, `plain` the greeting where a version 1 server may be;
//! [`ramp`] and [`grow`] bring more connections while a session runs.
//! Everything here blocks; a session is opened before there is anything else to do.

pub mod address;
pub mod channel;
pub mod direct;
pub mod greeting;
pub mod grow;
pub mod known_servers;
mod loopback;
mod plain;
pub mod ramp;
mod reach;
pub mod ssh;
#[cfg(test)]
mod testing;
pub mod tls;

use std::time::Duration;

pub use plain::Purpose;
pub use reach::{Reach, Running, Session, open, ssh_options};
pub use ssh::{SshOptions, end_all};

/// How long connecting and each answer of the greeting may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
