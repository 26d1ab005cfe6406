//! Version 1, the published protocol: its two machines, and the shells around them.
//!
//! [`Sender`] and [`Receiver`] decide and do no I/O; [`V1Filter`] is what a PULL leaves out.
//!
//! The protocol has no acknowledgements, so both machines assume that whatever was under way on a
//! lost connection is gone: the sender sends it again, the receiver drops what it has already and
//! asks once more for files that stay incomplete.

mod filter;
mod receiver;
mod sender;
mod types;

#[cfg(test)]
mod tests;

pub use filter::V1Filter;
pub use receiver::Receiver;
pub use sender::Sender;
pub use types::{Action, Finished, ReceiveConfig, Run, SendEvent, Silent, Work};

/// Files that a receiver has under way at once; what the published one has.
pub const WINDOW: usize = 8;
/// Files that a peer may have asked for and not got; a larger number is a flood.
pub const SEND_WINDOW: usize = 4096;
