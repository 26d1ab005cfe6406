//! Version 1, the published protocol: its two machines, and the shells around them.
//!
//! [`Sender`] and [`Receiver`] decide and do no I/O; [`V1Filter`] is what a PULL leaves out. With
//! the feature `io`, [`send()`] and [`receive()`] run one end of a session over blocking
//! connections, and [`read_reply`] is the client's side of the opening.
//!
//! The protocol has no acknowledgements, so both machines assume that whatever was under way on a
//! lost connection is gone: the sender sends it again, the receiver drops what it has already and
//! asks once more for files that stay incomplete.

mod filter;
mod receiver;
mod sender;
mod types;

#[cfg(feature = "io")]
mod handshake;
#[cfg(feature = "io")]
mod receive;
#[cfg(feature = "io")]
mod send;
#[cfg(feature = "io")]
mod session;
#[cfg(feature = "io")]
mod source;
#[cfg(feature = "io")]
mod store;
#[cfg(test)]
mod tests;

pub use filter::V1Filter;
#[cfg(feature = "io")]
pub use handshake::{HandshakeError, Opened, read_reply};
#[cfg(feature = "io")]
pub use receive::{OpenDestination, V1ReceiveOptions, destination_at, receive};
pub use receiver::Receiver;
#[cfg(feature = "io")]
pub use send::{V1SendOptions, send};
pub use sender::Sender;
#[cfg(feature = "io")]
pub use source::open_pull_source;
pub use types::{Action, Admission, Admit, Finished, ReceiveConfig, Run, SendEvent, Silent, Work};

/// Files that a receiver has under way at once; what the published one has.
pub const WINDOW: usize = 8;
/// Files that a peer may have asked for and not got; a larger number is a flood.
pub const SEND_WINDOW: usize = 4096;
