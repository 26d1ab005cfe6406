//! What a job is, once `jobs.yaml` was read and checked.
//!
//! [`load`] reads a file to a [`JobFile`], in which a job is either a [`JobSpec`] or a list of
//! mistakes, so that one bad job does not stop the others. Secrets stay where they are until
//! [`LoginSpec::resolve`].
//!
//! What holds where a job says nothing, and what it may say:
//!
#![doc = include_str!("keys.md")]

mod end;
mod error;
mod fields;
mod file;
mod job;
mod secrets;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;

use super::folders::FolderPattern;
pub use error::SpecError;
pub use file::{Checked, JobFile, candidates, find, load};
pub use secrets::{CredentialSpec, LoginSpec, SecretSource};

/// All keys, with what holds without them and what they may be; for people.
pub const KEYS: &str = include_str!("keys.md");

/// One job.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Its top-level key.
    pub key: String,
    /// `name`; the key where there is none.
    pub name: String,
    /// `description`.
    pub description: String,
    /// Where files are picked up.
    pub source: End,
    /// Where they go.
    pub destination: End,
    /// `file_pattern`: searched for anywhere in the file name.
    pub file_pattern: Regex,
    /// `folder_pattern`.
    pub folder_pattern: FolderPattern,
    /// `layout`.
    pub layout: Layout,
    /// `overwrite`.
    pub overwrite: Overwrite,
    /// `transfer`.
    pub transfer: Transfer,
    /// `done`.
    pub done: Done,
    /// `min_file_age_minutes`.
    pub min_age: Duration,
    /// `stable_seconds`: between two looks at a file; zero for no wait.
    pub stable: Duration,
    /// `marker`: a file `NAME` counts only beside this name, e.g. `{name}.done`.
    pub marker: Option<String>,
    /// `clock`: whether the server's clock must be measured.
    pub clock: ClockRule,
    /// `max_workers`: files at the same time.
    pub max_workers: usize,
    /// `max_connections` to one host.
    pub max_connections: usize,
    /// `log_dir`: of the job, of the file, or the state directory.
    pub log_dir: PathBuf,
    /// `on_success`: a command with the summary as JSON on its standard input.
    pub on_success: Option<String>,
    /// `on_failure`, likewise.
    pub on_failure: Option<String>,
}

/// One end of a job.
#[derive(Clone, Debug)]
pub enum End {
    /// `type: LOCAL`.
    Local {
        /// `path`, absolute.
        path: PathBuf,
    },
    /// `type: SFTP`.
    Sftp {
        /// Where and as whom; its secrets are not fetched yet.
        login: Box<LoginSpec>,
        /// `base_path` as the server spells it.
        base_path: Vec<u8>,
    },
}

/// `layout`: what a file's name at the destination keeps of its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The part below `base_path`.
    #[default]
    Tree,
    /// The name alone.
    Flat,
}

/// `overwrite`: what happens to a file of the same name at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Replaced when it is smaller than the source's.
    #[default]
    Larger,
    /// Stays.
    Never,
    /// Replaced.
    Always,
    /// Replaced when it is older.
    Newer,
    /// Replaced when size or time differ.
    Differs,
    /// Stays, and the new file gets another name.
    Rename,
}

/// `transfer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// `large_file_threshold_mb`, in bytes.
    pub large_file_threshold: u64,
    /// `chunk_size_mb`, in bytes.
    pub chunk_size: u64,
    /// `resume_enabled`.
    pub resume: bool,
    /// `verify_integrity`.
    pub verify_integrity: bool,
    /// `show_progress`.
    pub show_progress: bool,
    /// `retry_attempts`: tries in all, at least one.
    pub attempts: u32,
    /// `retry_delay_seconds`: before the second try; it doubles from there.
    pub retry_delay: Duration,
}

/// `done`: what happens to a source that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// `action`.
    pub action: Action,
    /// `zip_before_move`; only ever with [`Action::Move`].
    pub zip: bool,
    /// `folder`: below the folder the file was in.
    pub folder: String,
}

/// `done.action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Into `done.folder`.
    Move,
    /// Removed.
    Delete,
    /// Left where it is.
    #[default]
    Keep,
}

/// `clock`: whose clock file ages are measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockRule {
    /// The server's; where it cannot be measured, a file's age counts from when we first saw it.
    #[default]
    Server,
    /// This machine's, by the user's word.
    Ours,
}
