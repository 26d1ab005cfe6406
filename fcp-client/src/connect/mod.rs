//! How a server is reached: [`loopback`] by TCP on this machine, [`ssh`] by the system's ssh.
//!
//! Everything here blocks; a session is opened before there is anything else to do.

mod loopback;
pub mod ssh;

pub use loopback::{Purpose, Session, open};
