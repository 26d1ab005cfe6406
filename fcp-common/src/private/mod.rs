//! The program's own files: keys, tokens, pins, settings, its log, and directories for sockets.
//!
//! Not users' data, which is [`crate::fs`]'s: here the question is who else may have had his hands
//! on a file. [`read`] says it of a file by a [`Rule`]; [`create`], [`append`] and
//! [`Locked::replace`] write what nobody else can read, so that it is there whole or not at all;
//! [`require_own_dir`] and [`own_dir`] are for directories that hold sockets.

mod daily;
mod dir;
mod error;
mod held;
mod lock;
mod log;
mod process;
mod read;
mod stamp;
#[cfg(test)]
mod tests;
mod write;

pub use daily::{Appender, names};
pub use dir::{
    not_changed_for, own_dir, own_dirs, remove, require_own_dir, require_own_file, runtime_dirs,
};
pub use error::{Fault, PrivateError, shown};
pub use held::{Held, hold, holder, named};
pub use lock::{Locked, lock};
pub use log::open_log;
pub use process::{Fate, Process};
pub use read::{Contents, Rule, read, read_named, read_text};
pub use stamp::Stamp;
pub use write::{append, create};
