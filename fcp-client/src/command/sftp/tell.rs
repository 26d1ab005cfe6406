//! What a copy over SFTP tells while it goes on: the same reports, counters and errors as a session.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use fcp_common::engine::{Counters, EntryReport, Report};
use fcp_common::fs::Kind;
use fcp_proto::packet::{Outcome, Problem, Summary, WireError};
use fcp_proto::{EntryKind, ErrorCode};

use crate::location::{LocationError, Meta, Reason};

/// Tells the user, and counts.
pub(super) struct Tell {
    report: Arc<dyn Report>,
    pub(super) counters: Arc<Counters>,
    changed: AtomicU64,
    same: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    /// What nothing can go on after; the first one counts.
    fatal: Mutex<Option<LocationError>>,
}

impl Tell {
    pub(super) fn new(report: Arc<dyn Report>, counters: Arc<Counters>) -> Tell {
        let (changed, same, failed, received, fatal) = Default::default();
        Tell { report, counters, changed, same, failed, received, fatal }
    }

    /// An entry is known of.
    pub(super) fn announced(&self, meta: &Meta) {
        self.counters.total_entries.fetch_add(1, Relaxed);
        if meta.kind == Kind::File {
            self.counters.total_bytes.fetch_add(meta.size, Relaxed);
        }
    }

    /// An announced entry is finished.
    pub(super) fn done(&self, path: Vec<u8>, meta: &Meta, outcome: Outcome) {
        let counter = match &outcome {
            Outcome::Same => &self.same,
            Outcome::Failed(_) => &self.failed,
            _ => &self.changed,
        };
        counter.fetch_add(1, Relaxed);
        self.counters.done_entries.fetch_add(1, Relaxed);
        let (kind, size) = match meta.kind {
            Kind::Dir => (EntryKind::Dir, 0),
            Kind::Symlink => (EntryKind::Symlink, 0),
            _ => (EntryKind::File, meta.size),
        };
        if kind == EntryKind::File && matches!(outcome, Outcome::Same | Outcome::Metadata) {
            self.counters.done_bytes.fetch_add(size, Relaxed);
        }
        self.report.entry(EntryReport { path, kind, size, outcome });
    }

    /// Something cannot be looked at.
    pub(super) fn problem(&self, path: Vec<u8>, error: WireError) {
        self.report.problem(Problem { path, error });
    }

    /// As [`Tell::problem`], of a location.
    pub(super) fn unseen(&self, path: Vec<u8>, error: &LocationError) {
        if !self.note_fatal(error) {
            self.problem(path, wire(error));
        }
    }

    /// Something is left out on purpose.
    pub(super) fn skipped(&self, path: Vec<u8>, why: &str) {
        self.report.skipped(path, why);
    }

    /// So many bytes were moved.
    pub(super) fn moved(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
        self.counters.moved_bytes.fetch_add(bytes, Relaxed);
    }

    /// So many of the moved bytes were there from an earlier run.
    pub(super) fn kept(&self, bytes: u64) {
        self.received.fetch_sub(bytes, Relaxed);
        self.counters.moved_bytes.fetch_sub(bytes, Relaxed);
        self.counters.kept_bytes.fetch_add(bytes, Relaxed);
    }

    /// Keeps an error that nothing can go on after; whether it is one.
    pub(super) fn note_fatal(&self, error: &LocationError) -> bool {
        let fatal = ends_all(error.reason);
        if fatal {
            let mut first = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
        fatal
    }

    /// Whether to stop.
    pub(super) fn is_over(&self) -> bool {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What nothing could go on after.
    pub(super) fn fatal(&self) -> Option<LocationError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            changed: self.changed.load(Relaxed),
            same: self.same.load(Relaxed),
            failed: self.failed.load(Relaxed),
            received: self.received.load(Relaxed),
            kept: self.counters.kept_bytes.load(Relaxed),
        }
    }
}

/// Whether the other files would fail as well.
pub(super) fn ends_all(reason: Reason) -> bool {
    use Reason as R;
    reason.is_transient() || matches!(reason, R::Login | R::HostKey | R::Protocol | R::Cancelled)
}

/// A failure as the reports have it; the path stands before it there.
pub(super) fn wire(error: &LocationError) -> WireError {
    let code = match error.reason {
        Reason::NotFound => ErrorCode::NOT_FOUND,
        Reason::Exists => ErrorCode::DESTINATION_CHANGED,
        Reason::IsDirectory => ErrorCode::IS_DIRECTORY,
        Reason::NotDirectory => ErrorCode::NOT_DIRECTORY,
        Reason::NotFile => ErrorCode::SPECIAL,
        Reason::Denied => ErrorCode::PERMISSION,
        Reason::Full => ErrorCode::NO_SPACE,
        Reason::Changed => ErrorCode::CHANGED,
        _ => ErrorCode::IO,
    };
    let text = match code {
        ErrorCode::NOT_FOUND | ErrorCode::CHANGED => code.to_string(),
        _ => format!("cannot {} at {}: {}", verb(error), error.place, error.text),
    };
    WireError::new(code, text)
}

/// What was being done, for a sentence that names the file elsewhere.
fn verb(error: &LocationError) -> String {
    let op = error.op.to_string();
    op.trim_end_matches(" of").to_owned()
}
