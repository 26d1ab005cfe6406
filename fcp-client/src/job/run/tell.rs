//! Takes what happens to whoever listens, and counts it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fcp_proto::path::RelPath;

use crate::job::plan::Skip;
use crate::job::report::{FileRecord, JobEvent, JobSummary};

/// Hears of everything that happens, from many tasks.
pub type Listener = Arc<dyn Fn(&JobEvent) + Send + Sync>;

/// Bytes of a file after which its progress is told again.
pub(super) const STEP: u64 = 1 << 20;

/// The voice of one job.
pub(super) struct Teller {
    job: String,
    listener: Listener,
    totals: Mutex<JobSummary>,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Teller {
    pub(super) fn new(job: &str, dry_run: bool, listener: Listener) -> Teller {
        let totals = JobSummary { job: job.to_owned(), dry_run, ..JobSummary::default() };
        Teller { job: job.to_owned(), listener, totals: Mutex::new(totals) }
    }

    pub(super) fn planning(&self, files: u64, bytes: u64) {
        self.tell(&JobEvent::Planning { job: self.job.clone(), files, bytes });
    }

    pub(super) fn planned(&self, file: &RelPath, to: &RelPath, bytes: u64, steps: Vec<String>) {
        self.count(|totals| {
            totals.delivered += 1;
            totals.bytes += bytes;
        });
        let (file, to) = (file.to_string(), to.to_string());
        self.tell(&JobEvent::Planned { job: self.job.clone(), file, to, bytes, steps });
    }

    pub(super) fn started(&self, file: &RelPath, bytes: u64, worker: usize) {
        let file = file.to_string();
        self.tell(&JobEvent::Started { job: self.job.clone(), file, bytes, worker });
    }

    /// What tells of a file's bytes; its calls may be many.
    pub(super) fn meter(self: &Arc<Self>, file: &RelPath, worker: usize) -> Meter {
        let (moved, told) = (AtomicU64::new(0), AtomicU64::new(0));
        Meter { teller: Arc::clone(self), file: file.to_string(), worker, moved, told }
    }

    pub(super) fn retried(&self, file: &RelPath, attempt: u32, wait: Duration, error: &str) {
        self.tell(&JobEvent::Retried {
            job: self.job.clone(),
            file: file.to_string(),
            attempt,
            seconds: wait.as_secs_f64(),
            error: error.to_owned(),
        });
    }

    /// A file of this run (`sent` bytes of it), or what was left of an earlier one.
    pub(super) fn done(&self, record: FileRecord, sent: u64, recovered: bool) {
        self.count(|totals| {
            totals.delivered += u64::from(!recovered);
            totals.recovered += u64::from(recovered);
            totals.bytes += sent;
        });
        self.tell(&JobEvent::Done(Box::new(record)));
    }

    /// A file of this run is delivered, and its source stays where it was to go.
    pub(super) fn left(&self, sent: u64) {
        self.count(|totals| {
            totals.delivered += 1;
            totals.not_put_away += 1;
            totals.bytes += sent;
        });
    }

    pub(super) fn phase(&self, file: &RelPath, phase: &'static str) {
        let (job, file) = (self.job.clone(), file.to_string());
        self.tell(&JobEvent::Phase { job, file, phase });
    }

    pub(super) fn skipped(&self, file: &RelPath, why: &Skip) {
        if why.is_failure() {
            return self.failed(file, 0, &why.to_string());
        }
        if why.is_foreign() {
            self.count(|totals| totals.ignored += 1);
        } else {
            self.count(|totals| {
                totals.skipped += 1;
                *totals.skipped_by.entry(why.class().to_owned()).or_default() += 1;
            });
        }
        // What is no file of the job at all is counted, and told by dry runs only.
        if why.is_foreign() && !self.totals(|totals| totals.dry_run) {
            return;
        }
        self.tell(&JobEvent::Skipped {
            job: self.job.clone(),
            file: file.to_string(),
            class: why.class(),
            why: why.to_string(),
        });
    }

    /// A source that was to be deleted and is moved.
    pub(super) fn spared(&self, file: &RelPath, why: &str) {
        self.count(|totals| totals.spared += 1);
        self.note(format!("{file}: {why}"));
    }

    pub(super) fn failed(&self, file: &RelPath, attempts: u32, error: &str) {
        self.count(|totals| totals.failed += 1);
        self.tell(&JobEvent::Failed {
            job: self.job.clone(),
            file: file.to_string(),
            attempts,
            error: error.to_owned(),
        });
    }

    pub(super) fn note(&self, text: String) {
        self.tell(&JobEvent::Note { job: self.job.clone(), text });
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut JobSummary)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn totals<T>(&self, read: impl FnOnce(&JobSummary) -> T) -> T {
        read(&self.totals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, event: &JobEvent) {
        (self.listener)(event);
    }
}

/// Counts the bytes of one file on their way.
#[derive(Debug)]
pub(super) struct Meter {
    teller: Arc<Teller>,
    file: String,
    worker: usize,
    moved: AtomicU64,
    told: AtomicU64,
}

impl Meter {
    pub(super) fn add(&self, bytes: u64) {
        let moved = self.moved.fetch_add(bytes, Relaxed) + bytes;
        let told = self.told.load(Relaxed);
        let due = moved >= told.saturating_add(STEP);
        if due && self.told.compare_exchange(told, moved, Relaxed, Relaxed).is_ok() {
            let (job, file) = (self.teller.job.clone(), self.file.clone());
            let event = JobEvent::Progress { job, file, worker: self.worker, bytes: moved };
            self.teller.tell(&event);
        }
    }
}
