//! Who is at the other end of a loopback TCP connection, as the kernel knows it.
//!
//! Loopback is not authentication: every local user can connect to a port above 1024, and every
//! local user can listen on one. So the server asks [`peer_uid`] before it reads a byte, and the
//! client asks [`server_uid`] before it sends one. All questions go to the kernel's socket table,
//! by `sock_diag` (`netlink.rs`) or, where that is missing, by `/proc/net/tcp` (`proc_net.rs`); a
//! question that the table cannot answer beyond doubt is an [`Unknown`], never a default.
//!
//! What no look-up can show: the uid is that of the process that *created* the socket (or accepted
//! it), so a descriptor handed to somebody else keeps its maker's uid; and a proxy speaks as the
//! user that runs it. This is one factor, not proof of a person.

mod diag_codec;
mod identity;
mod netlink;
mod own_end;
mod proc_net;
mod row;
mod table;
#[cfg(test)]
mod tests;
mod unknown;

pub use identity::{
    listener_owner, listener_owner_from, peer_uid, peer_uid_from, server_uid, server_uid_from,
};
pub use table::Sources;
pub use unknown::{End, Unknown};
