//! Tokens: who may come over TLS and through tunnels, and what they may touch.
//!
//! A client's token is kept in a [`Store`] as what checks it, never as itself; `fcpd token`
//! ([`command`]) writes the store, and [`live::Tokens`] is how a running server follows it. The
//! [`local`] token is for whoever reaches loopback through a tunnel inside ssh, and lies where only
//! our user can read it.

pub mod command;
mod expiry;
pub mod live;
pub mod local;
mod store;

pub use expiry::{BadTime, Time};
pub use store::{Entry, Store, StoreError};

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 bytes from the system's generator.
///
/// # Errors
/// The system has none.
pub(crate) fn random() -> Result<[u8; 32], rustix::io::Errno> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
