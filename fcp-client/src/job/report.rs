//! What a run tells while it goes on and when it is over.

use std::collections::BTreeMap;

use serde::Serialize;

/// Something happened to a file, or to the whole job.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// A file is being copied; `bytes` in all.
    Started { job: String, file: String, bytes: u64, worker: usize },
    /// More of it is there.
    Progress { job: String, file: String, worker: usize, bytes: u64 },
    /// What is done with a large file after it was copied: `proving`, `moving`, `zipping`,
    /// `removing`.
    Phase { job: String, file: String, phase: &'static str },
    /// It is delivered and put away; or in a dry run it would be.
    Done(Box<FileRecord>),
    /// What a run would do with it; told by dry runs.
    Planned { job: String, file: String, to: String, bytes: u64, steps: Vec<String> },
    /// It was left alone; `class` is the reason in one or two words.
    Skipped { job: String, file: String, class: &'static str, why: String },
    /// It failed for good in this run.
    Failed { job: String, file: String, attempts: u32, error: String },
    /// It is to be tried again after `seconds`.
    Retried { job: String, file: String, attempt: u32, seconds: f64, error: String },
    /// Something about a folder or the job that a person should know.
    Note { job: String, text: String },
    /// What lies ahead: files and bytes to copy.
    Planning { job: String, files: u64, bytes: u64 },
}

/// One delivered file: a line of the audit.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct FileRecord {
    pub when: String,
    pub job: String,
    /// Below the source's base.
    pub file: String,
    pub source: String,
    pub destination: String,
    /// Bytes.
    pub size: u64,
    /// `sha256:<hex>` where the content was proven.
    pub hash: Option<String>,
    pub proven_by: String,
    pub attempts: u32,
    pub seconds: f64,
    /// What became of the source: `moved to ...`, `zipped to ...`, `deleted`, `kept`.
    pub action: String,
    /// Bytes that an earlier run had brought.
    pub resumed: u64,
}

/// The end of a job.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct JobSummary {
    pub job: String,
    pub dry_run: bool,
    pub found: u64,
    pub delivered: u64,
    /// Delivered in this run, with sources that stay although they were to go; `failed` has them, too.
    pub not_put_away: u64,
    /// Of earlier runs, brought to their end.
    pub recovered: u64,
    pub skipped: u64,
    /// Names in the folders that are none of the job's: other files, directories.
    pub ignored: u64,
    /// How many were skipped for which reason.
    pub skipped_by: BTreeMap<String, u64>,
    pub failed: u64,
    /// Sources that were moved instead of deleted, as their copies are not to be seen any more.
    pub spared: u64,
    /// Content bytes that were sent.
    pub bytes: u64,
    pub seconds: f64,
    /// Folders that are not there.
    pub missing_folders: Vec<String>,
    /// Of these, those whose time has not come.
    pub folders_to_come: Vec<String>,
    /// Why the job ended early, if it did.
    pub error: Option<String>,
    pub exit_code: u8,
}
