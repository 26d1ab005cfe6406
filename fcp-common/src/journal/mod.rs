//! The resume journal: what a run that died left behind, and which of its blocks are good.
//!
//! [`record`] and [`replay()`] are pure: bytes to records to state. `file` writes the journal of a
//! live run and `recover` reads those of dead ones, under the destination's `.fcp-journal`.
//! Nothing in a journal is trusted: its names pass the same gates as a peer's, only temps that
//! spell its own run id are touched, and its blocks are hashed again before use.

pub mod names;
pub mod record;
pub mod replay;

#[cfg(feature = "io")]
mod file;
#[cfg(feature = "io")]
mod recover;

#[cfg(feature = "io")]
pub use file::RunJournal;
pub use record::{BLOCK_SIZE, Record};
#[cfg(feature = "io")]
pub use recover::{DeadRun, Partial, adopt, recover};
pub use replay::{Begun, Replayed, replay};
