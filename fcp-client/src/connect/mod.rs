//! How a server is reached: [`loopback`] by TCP on this machine, [`ssh`] by the system's ssh.
//!
//! [`greeting`] is HELLO and its answers, [`plain`] the greeting where a version 1 server may be.
//! Everything here blocks; a session is opened before there is anything else to do.

pub mod greeting;
mod loopback;
mod plain;
pub mod ssh;

use std::time::Duration;

pub use loopback::{Session, open};
pub use plain::Purpose;

/// How long connecting and each answer of the greeting may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
