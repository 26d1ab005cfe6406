//! The transfer engine's decisions: two pure machines, no I/O, no clock, no threads.
//!
//! ```text
//!   sender                                          receiver
//!   ENTRIES, DIRS_END  ----------------------->     make directories, inspect files
//!                      <-----------------------     WANT (or DIGESTS_WANTED), RESULTS
//!   WHOLE | DATA.. BLOCK  (any connection)  -->     check, write, journal, publish
//!                      <-----------------------     WRITTEN, RESULTS
//!   FINISH             ----------------------->     directories last
//!                      <-----------------------     CLOSE
//! ```
//!
//! [`Sender`] and [`Receiver`] share four families of methods: getters, `handle_*` (the world
//! tells us), commands, and `poll_*` (what to do next). The shells in `engine` feed them and do
//! what they say; the tests join two of them over a simulated network and disk.

mod assemble;
mod link;
mod receiver;
mod schedule;
mod sender;
#[cfg(test)]
mod tests;

pub use assemble::{Assembler, MIN_DATA, Piece, digest};
pub use link::Link;
pub use receiver::{
    Action, Admits, Announced, Config, Existing, FileMeta, MadeDir, Placement, ReceiveEvent,
    Receiver, RootMetaRule, RootRule,
};
pub use schedule::Schedule;
pub use sender::{Event, Help, Sender, Work};
