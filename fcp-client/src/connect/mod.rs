//! How a server is reached: [`loopback`] by TCP on this machine, [`ssh`] by the system's ssh.
//!
//! Everything here blocks; a session is opened before there is anything else to do.

pub mod address;
pub mod channel;
pub mod direct;
pub mod grow;
pub mod known_servers;
mod loopback;
pub mod ramp;
pub mod ssh;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod token;

pub use loopback::{Purpose, Session, open};
