//! A user's files: every syscall on them, held directories, temps and the one way to publish.
//!
//! Start from [`Dir`] (a directory held open, through which everything below it is reached) and
//! [`publish()`], the only function that makes a final file name appear. [`sys`] is the layer
//! under both; nothing else in the project calls the kernel about a user's files.

mod base;
mod dir;
mod file;
mod lazy;
mod stat;
mod walk;

pub mod fault;
pub mod publish;
pub mod sys;
pub mod temp;

pub use crate::journal::names::RunId;
pub use base::Base;
pub use dir::{Dir, DirEntry, Entries, user_path};
pub use file::File;
pub use lazy::{DirPool, LazyDir};
pub use publish::{
    Expected, FileMeta, PublishError, PublishedDir, Step, SyncPolicy, finish_dir, publish,
    publish_dir, publish_symlink,
};
pub use stat::{Kind, Stat};
pub use sys::umask;
pub use temp::{Temp, TempNames, is_reserved};
