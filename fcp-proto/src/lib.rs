//! The fcp wire protocol: bytes to meaning and back.
//!
//! This crate never opens a socket or a file, never reads a clock and draws no random numbers, so
//! every byte of the protocol can be tested, replayed and fuzzed. PROTOCOL.md is its normative
//! text; the golden tests hold both to the same bytes.

pub mod auth;
pub mod coding;
pub mod error;
pub mod flag;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod ids;
pub mod limits;
pub mod meta;
pub mod packet;
pub mod path;
pub mod state;
pub mod v1;
pub mod version;

pub use auth::Fingerprint;
pub use coding::DecodeError;
pub use error::{ErrorCode, Violation};
pub use flag::Flag;
pub use ids::{ConnId, DirId, FileId, SessionId};
pub use meta::{Digest, EntryKind, SourceVersion, Timestamp};
pub use path::{Name, PathRefused, RelPath, escape, escape_text};
