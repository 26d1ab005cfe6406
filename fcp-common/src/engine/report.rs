//! What a session tells its caller while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fcp_proto::EntryKind;
use fcp_proto::packet::{Outcome, Problem};

use crate::transfer::Announced;

/// Numbers that grow while a session runs; read them from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Content bytes of all files announced so far.
    pub total_bytes: AtomicU64,
    /// Entries announced so far.
    pub total_entries: AtomicU64,
    /// Content bytes that need no sending or have been sent: what progress is measured by.
    pub done_bytes: AtomicU64,
    /// Entries finished.
    pub done_entries: AtomicU64,
    /// Content bytes sent or received.
    pub moved_bytes: AtomicU64,
    /// Content bytes kept from an earlier run.
    pub kept_bytes: AtomicU64,
    /// Bytes written to connections.
    pub wire_out: AtomicU64,
    /// Bytes read from connections.
    pub wire_in: AtomicU64,
    /// 1 once everything has been announced.
    pub walked: AtomicU64,
}

impl Counters {
    /// What a receiver knows of what is to come.
    pub(crate) fn set_announced(&self, announced: Announced) {
        self.total_entries.store(announced.entries, Relaxed);
        self.total_bytes.store(announced.bytes, Relaxed);
        self.walked.store(announced.all.into(), Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
}

/// An entry that is finished.
#[derive(Clone, Debug)]
pub struct EntryReport {
    /// Its path as the user would write it; bytes, to be escaped before printing.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Its length in bytes.
    pub size: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// Takes what a session tells, from any of its threads.
pub trait Report: Send + Sync {
    /// An entry is finished.
    fn entry(&self, entry: EntryReport);
    /// Something at the source could not be announced.
    fn problem(&self, problem: Problem);
    /// Something was left out on purpose.
    fn skipped(&self, path: Vec<u8>, why: &str);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReport;

impl Report for NoReport {
    fn entry(&self, _: EntryReport) {}
    fn problem(&self, _: Problem) {}
    fn skipped(&self, _: Vec<u8>, _: &str) {}
}
