//! What both ends of fcp know about files.
//!
//! Three layers, each allowed to use only the ones before it:
//! - data: [`range_set`];
//! - decisions, pure: [`select`], [`transfer`], [`relay`], [`auth`] (the proof of a token), the
//!   machines of [`version1`], and the format of the [`journal`];
//! - shells, behind the feature `io`: `fs` (every syscall on a user's files), `private` (the
//!   program's own files, such as keys and tokens), the journal's file, `walk`, `engine` (threads and sockets around the machines), `peer` (who is at the other end),
//!   `tls` (connections with pinned keys; a feature of its own).

pub mod auth;
#[cfg(feature = "io")]
pub mod engine;
#[cfg(feature = "io")]
pub mod expand;
#[cfg(feature = "io")]
pub mod fs;
pub mod journal;
#[cfg(feature = "io")]
pub mod peer;
#[cfg(feature = "io")]
pub mod private;
pub mod range_set;
pub mod relay;
pub mod select;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transfer;
pub mod version1;
#[cfg(feature = "io")]
pub mod walk;
